"""The shape and switches of a transformer. This module does not import torch."""

from typing import ClassVar, Literal

from pydantic import PositiveFloat, PositiveInt, model_validator

from sparsity_lab.core.config import Config, GrowingConfig
from sparsity_lab.model.sites import GATED_NODE_SITES, MATRICES, NODE_SITES, Matrix, Site


class RotaryScaling(Config):
    """How rotary frequencies are changed for a longer context.

    "linear" divides all by `factor`. "llama3" divides those that turn fewer than `low_freq_factor` times over
    `original_n_ctx` positions, keeps those above `high_freq_factor`, and interpolates between the two.
    """

    kind: Literal["linear", "llama3"]
    factor: PositiveFloat
    low_freq_factor: PositiveFloat = 1.0
    high_freq_factor: PositiveFloat = 4.0
    original_n_ctx: PositiveInt = 8192

    @model_validator(mode="after")
    def _check(self) -> "RotaryScaling":
        if self.low_freq_factor >= self.high_freq_factor:
            raise ValueError(f"low_freq_factor {self.low_freq_factor} must be below high_freq_factor")
        return self


class ModelConfig(GrowingConfig):
    """Shape and switches of a `Transformer`.

    `n_head` and `d_mlp` default to d_model / d_head and 4 · d_model. `activation_fraction` is AbsTopK's k as
    a share of the width, rounded down; 1 switches AbsTopK off. It applies at `activation_sites`, and to the
    residual stream at `residual_sites`. `residual_activation` is applied to the stream after each sublayer's
    write. A null `norm_eps` is 1e-5 for LayerNorm and float32's machine epsilon for RMSNorm.

    `gated_mlp`, positions=rotary and the `rotary_` values serve Llama-like models (`importers/llama.py`).
    """

    later_fields: ClassVar = ("gated_mlp", "rotary_theta", "rotary_scaling")

    kind: Literal["transformer"] = "transformer"
    n_layer: PositiveInt
    d_model: PositiveInt
    n_ctx: PositiveInt
    d_head: PositiveInt = 16
    n_head: PositiveInt | None = None
    d_mlp: PositiveInt | None = None
    activation_fraction: float = 1.0
    activation_sites: tuple[Site, ...] = NODE_SITES
    residual_sites: tuple[Literal["resid_post_attn", "resid_post_mlp"], ...] = ()
    residual_activation: Literal["identity", "relu"] = "identity"
    activation: Literal["gelu", "gelu_tanh", "relu", "silu"] = "gelu"
    norm: Literal["rms", "layer"] = "rms"
    norm_bias: bool = True
    norm_eps: PositiveFloat | None = None
    bias: bool = True
    tied_embeddings: bool = False
    attention_sink: bool = True
    bigram: Literal["none", "fixed", "learned"] = "fixed"
    positions: Literal["none", "learned", "concatenated", "rotary"] = "none"
    d_pos: PositiveInt | None = None
    gated_mlp: bool = False
    rotary_theta: PositiveFloat = 10_000.0
    rotary_scaling: RotaryScaling | None = None

    @model_validator(mode="after")
    def _check(self) -> "ModelConfig":
        if self.n_head is None and self.d_model % self.d_head:
            raise ValueError(
                f"d_model {self.d_model} must be a multiple of d_head {self.d_head}, or give n_head"
            )
        if not 0 < self.activation_fraction <= 1:
            raise ValueError(f"activation_fraction {self.activation_fraction} must be above 0 and at most 1")
        if others := [site.value for site in self.activation_sites if site not in self.node_sites]:
            raise ValueError(f"activation_sites may not hold {', '.join(others)}")
        if (self.positions == "concatenated") != (self.d_pos is not None):
            raise ValueError("d_pos belongs to positions=concatenated, and is needed there")
        if self.positions == "rotary" and self.d_head % 2:
            raise ValueError(f"d_head {self.d_head} must be even for positions=rotary")
        if self.positions != "rotary" and (self.rotary_theta, self.rotary_scaling) != (10_000.0, None):
            raise ValueError("rotary_theta and rotary_scaling belong to positions=rotary")
        widths = {site.value: self.width(site) for site in self.activation_sites}
        for site, width in (widths | dict.fromkeys(self.residual_sites, self.d_model)).items():
            if self.k(width) < 1:
                raise ValueError(
                    f"activation_fraction {self.activation_fraction} keeps nothing of {site}, {width} wide"
                )
        return self

    @property
    def node_sites(self) -> tuple[Site, ...]:
        """The sites of the model's nodes, in the flat order."""
        return GATED_NODE_SITES if self.gated_mlp else NODE_SITES

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """The matrices of a layer that carry edges."""
        return tuple(matrix for matrix in MATRICES if matrix.target in self.node_sites)

    @property
    def heads(self) -> int:
        """Number of attention heads."""
        return self.n_head or self.d_model // self.d_head

    @property
    def limits_length(self) -> bool:
        """Whether rows may not be longer than n_ctx."""
        return self.positions != "none"

    @property
    def d_read(self) -> int:
        """Number of channels that a sublayer reads: the residual stream and concatenated positions."""
        return self.d_model + (self.d_pos or 0)

    def width(self, site: Site) -> int:
        """Number of channels, and so of nodes, of one site in one layer."""
        if site in (Site.ATTN_IN, Site.MLP_IN):
            return self.d_read
        if site in (Site.ATTN_Q, Site.ATTN_K, Site.ATTN_V):
            return self.heads * self.d_head
        return (self.d_mlp or 4 * self.d_model) if site in (Site.MLP_GATE, Site.MLP_NEURON) else self.d_model

    def k(self, width: int) -> int:
        """Number of activations, out of `width`, that AbsTopK keeps."""
        return int(self.activation_fraction * width)

    def weight_count(self, vocab_size: int) -> int:
        """Number of weights that sparsity applies to (`Transformer.sparse_weights`); allocates none."""
        return sum(self.weight_counts(vocab_size).values())

    def weight_counts(self, vocab_size: int) -> dict[str, int]:
        """The same number for each part of the model, by the first word of its tensors' names."""
        layer = sum(
            self.width(matrix.target) * (self.width(matrix.source) + self.bias) for matrix in self.matrices
        )
        embedding = vocab_size * self.d_model
        positions = 0 if self.positions in ("none", "rotary") else self.n_ctx * (self.d_pos or self.d_model)
        unembedding = vocab_size + (0 if self.tied_embeddings else embedding)
        return {
            "embedding": embedding,
            "positions": positions,
            "blocks": self.n_layer * layer,
            "unembedding": unembedding,
        }
