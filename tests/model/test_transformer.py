"""The transformer: by hand, causal (S5), untouched by a tap that looks (S6), and sized as its config says."""

import math
from typing import Any

import pytest
import torch
from micro import MICRO_BIGRAM, SMALL, VOCABULARY, micro_model, random_tokens, small_model
from pydantic import ValidationError
from torch import Tensor

from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.model.layers import rows_at
from sparsity_lab.model.norm import make_norm
from sparsity_lab.model.sites import NODE_SITES, Site
from sparsity_lab.model.transformer import ModelConfig, Transformer, bigram_log_probabilities

VARIANTS = [
    {},
    {"activation_fraction": 1.0, "attention_sink": False, "bigram": "none"},
    {"bigram": "learned", "positions": "learned"},
    {"positions": "concatenated", "d_pos": 4},
    {"n_head": 3, "activation_sites": (Site.MLP_NEURON,)},
    {"norm": "layer", "activation": "gelu_tanh", "tied_embeddings": True, "bias": False},
    {"residual_activation": "relu", "residual_sites": ("resid_post_attn", "resid_post_mlp")},
]


def gelu(x: float) -> float:
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


def micro_logits(x: tuple[float, float], token: int) -> list[float]:
    rms = math.sqrt((x[0] ** 2 + x[1] ** 2) / 2)
    return [a + b for a, b in zip((x[0] / rms, x[1] / rms, 0.0), MICRO_BIGRAM[token], strict=True)]


def test_micro_model_by_hand() -> None:
    # [0, 1] at its end: m = 1, so (1, -1) → (1, 1) → (1 + 3 gelu(1), 1)
    # [2, 1] at its end: m = 0, so (1, -1) → (1, -1) → (1 + 3 gelu(-1), -1)
    logits = micro_model()(torch.tensor([[0, 1], [2, 1]]))[:, -1]
    expected = [micro_logits((1 + 3 * gelu(1), 1.0), 1), micro_logits((1 + 3 * gelu(-1), -1.0), 1)]
    torch.testing.assert_close(logits, torch.tensor(expected), rtol=0, atol=1e-6)
    # [0] alone: m = 1, so (1, 1) → (1, 3), which RMSNorm brings to (1, 3) / sqrt(5)
    first = micro_logits((1 + 3 * gelu(3 / math.sqrt(5)), 3.0), 0)
    torch.testing.assert_close(
        micro_model()(torch.tensor([[0]]))[0, 0], torch.tensor(first), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("changes", VARIANTS)
def test_s5_no_logit_depends_on_a_later_token(changes: dict[str, Any]) -> None:
    """By gradient with respect to each position's embedding, and by changing the later tokens themselves."""
    model, tokens_bt = small_model(**changes), random_tokens(1, 8)
    embedded: list[Tensor] = []

    def tap(site: Site, layer: int, x: Tensor) -> Tensor:
        if site is Site.RESID and layer == 0:
            embedded.append(x.detach().requires_grad_())
            return embedded[0]
        return x

    logits_tv = model(tokens_bt, tap)[0]
    for position in range(8):
        (gradient_btd,) = torch.autograd.grad(logits_tv[position].norm(), embedded, retain_graph=True)
        reached_t = gradient_btd[0].abs().sum(-1) > 0
        assert not reached_t[position + 1 :].any()
        assert reached_t[: position + 1].all()
    for position in range(1, 8):
        changed_bt = tokens_bt.clone()
        changed_bt[:, position:] = (changed_bt[:, position:] + 1) % VOCABULARY
        torch.testing.assert_close(model(changed_bt)[:, :position], model(tokens_bt)[:, :position])
        assert not torch.allclose(model(changed_bt)[:, position], model(tokens_bt)[:, position])


@pytest.mark.parametrize("changes", VARIANTS)
def test_s6_a_tap_that_returns_its_input_changes_nothing(changes: dict[str, Any]) -> None:
    model, tokens_bt = small_model(**changes), random_tokens(3, 9)
    seen: list[tuple[Site, int, int]] = []

    def tap(site: Site, layer: int, x: Tensor) -> Tensor:
        seen.append((site, layer, x.shape[-1]))
        return x

    assert torch.equal(model(tokens_bt), model(tokens_bt, tap))
    in_order = ["attn_in", "attn_q", "attn_k", "attn_v", "attn_out", "mlp_in", "mlp_neuron", "mlp_out"]
    for layer in range(2):
        sites = [(Site(name), layer, model.config.width(Site(name))) for name in in_order]
        expected = [(Site.RESID, 2 * layer, 16), *sites[:5], (Site.RESID, 2 * layer + 1, 16), *sites[5:]]
        assert seen[10 * layer : 10 * layer + 10] == expected
    assert seen[20:] == [(Site.RESID, 4, 16)]


@pytest.mark.parametrize("changes", VARIANTS)
def test_a_tap_sees_what_abs_top_k_left_and_its_answer_is_used(changes: dict[str, Any]) -> None:
    model, tokens_bt = small_model(**changes), random_tokens(2, 9)
    plain = model(tokens_bt)
    for wanted in NODE_SITES:
        nonzeros: list[Tensor] = []

        def tap(site: Site, layer: int, x: Tensor, wanted: Site = wanted, nonzeros: Any = nonzeros) -> Tensor:
            if site is not wanted:
                return x
            nonzeros.append(x.count_nonzero(-1))
            return x + torch.arange(x.shape[-1])

        assert not torch.allclose(model(tokens_bt, tap), plain)
        width, config = model.config.width(wanted), model.config
        kept = int(config.activation_fraction * width) if wanted in config.activation_sites else width
        assert torch.stack(nonzeros).max() == kept  # fewer where a residual relu has left fewer


@pytest.mark.parametrize(
    "options",
    [{}, {"positions": "learned"}, {"positions": "concatenated", "d_pos": 3}, {"attention_sink": False}],
)
def test_one_position_a_row_has_the_logits_and_activations_that_it_has_among_all(
    options: dict[str, Any],
) -> None:
    model, tokens_bt, position_b = small_model(**options), random_tokens(3, 9), torch.tensor([0, 8, 4])

    def seen(position_b: Tensor | None) -> tuple[Tensor, dict[tuple[Site, int], Tensor]]:
        activations: dict[tuple[Site, int], Tensor] = {}

        def tap(site: Site, layer: int, x: Tensor) -> Tensor:
            activations[site, layer] = x
            return x

        return model(tokens_bt, tap, position_b), activations

    (all_btv, everywhere), (logits_bv, there) = seen(None), seen(position_b)
    torch.testing.assert_close(logits_bv, all_btv[torch.arange(3), position_b])
    assert everywhere.keys() == there.keys()
    for place, x_btc in there.items():
        alone = x_btc.shape[1] == 1
        expected = rows_at(everywhere[place], position_b) if alone else everywhere[place]
        torch.testing.assert_close(x_btc, expected)
        last = place[1] == model.config.n_layer - 1 and place[0] not in (
            Site.RESID, Site.ATTN_IN, Site.ATTN_K, Site.ATTN_V
        )  # fmt: skip
        assert alone == (last or (place[0] is Site.RESID and place[1] > 2 * model.config.n_layer - 2))


def test_a_row_longer_than_the_context() -> None:
    tokens_bt = random_tokens(1, 13)
    assert small_model()(tokens_bt).shape == (1, 13, VOCABULARY)
    with pytest.raises(ValueError, match="13 tokens, but the context is 12"):
        small_model(positions="learned")(tokens_bt)


def test_positions_matter_only_where_they_are_asked_for() -> None:
    tokens_bt = torch.full((1, 6), 3)
    for positions, d_pos in (("none", None), ("learned", None), ("concatenated", 4)):
        logits_tv = small_model(positions=positions, d_pos=d_pos)(tokens_bt)[0]
        same = torch.allclose(logits_tv[1:], logits_tv[:1].expand(5, -1), atol=1e-4)
        # with a sink, the first of several equal tokens differs from the rest only by how much the sink takes
        no_sink_tv = small_model(positions=positions, d_pos=d_pos, attention_sink=False)(tokens_bt)[0]
        assert torch.allclose(no_sink_tv[1:], no_sink_tv[:1].expand(5, -1), atol=1e-4) == (
            positions == "none"
        )
        assert not same


def test_sparse_weights_are_matrices_biases_and_embeddings_with_their_axes() -> None:
    model = small_model(positions="learned", bigram="learned")
    found = model.sparse_weights()
    left = {name for name, _ in model.named_parameters()} - set(found)
    norms = {f"blocks.{layer}.{part}.read.norm.weight" for layer in range(2) for part in ("attention", "mlp")}
    sinks = {f"blocks.{layer}.attention.sink" for layer in range(2)}
    assert left == norms | sinks | {"norm.weight", "bigram"}
    parameters = dict(model.named_parameters())
    assert all(weight is parameters[name] for name, (weight, _) in found.items())
    guarded = {name: axis for name, (_, axis) in found.items() if axis is not None}
    rows = {
        f"blocks.{layer}.{part}.weight": 0
        for layer in range(2)
        for part in ("attention.q", "attention.k", "attention.v", "mlp.up")
    }
    columns = {
        f"blocks.{layer}.{part}.weight": 1 for layer in range(2) for part in ("attention.out", "mlp.down")
    }
    assert guarded == rows | columns


def test_tied_embeddings_are_one_weight_and_stored_once() -> None:
    model, untied = small_model(tied_embeddings=True, bias=False), small_model()
    assert model.unembedding.weight is model.embedding.weight
    left = untied.sparse_weights().keys() - model.sparse_weights().keys()
    parts = ("attention.q", "attention.k", "attention.v", "attention.out", "mlp.up", "mlp.down")
    biases = {f"blocks.{layer}.{part}.bias" for layer in range(2) for part in parts}
    assert left == biases | {"unembedding.weight"}


@pytest.mark.parametrize(
    "changes",
    [
        *VARIANTS,
        {"positions": "learned", "tied_embeddings": True, "bigram": "learned"},
        {"positions": "concatenated", "d_pos": 5, "n_head": 5, "d_mlp": 7, "bias": False, "n_layer": 5},
    ],
)
def test_the_number_of_sparse_weights_is_known_without_making_them(changes: dict[str, Any]) -> None:
    config = SMALL.model_copy(update=changes)
    with torch.device("meta"):
        model = Transformer(config, 37)
    assert config.weight_count(37) == sum(weight.numel() for weight, _ in model.sparse_weights().values())


def test_layer_norm_is_told_its_eps_and_bias() -> None:
    config = SMALL.model_copy(update={"norm": "layer"})
    norm: Any = make_norm(config, 4)
    assert (norm.eps, norm.bias is not None) == (1e-5, True)
    norm = make_norm(config.model_copy(update={"norm_eps": 0.5, "norm_bias": False}), 4)
    assert (norm.eps, norm.bias) == (0.5, None)
    norm = make_norm(SMALL.model_copy(update={"norm_eps": 0.5}), 4)
    torch.testing.assert_close(norm(torch.tensor([1.0, -1.0, 1.0, -1.0]))[0].item(), 1.5**-0.5)


@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_a_norms_eps_does_not_depend_on_the_precision(norm: str) -> None:
    layer = make_norm(SMALL.model_copy(update={"norm": norm}), 64)
    small_nd = 0.01 * torch.randn(5, 64, generator=torch.Generator().manual_seed(0))  # mean square 1e-4
    assert layer.eps == (1e-5 if norm == "layer" else torch.finfo(torch.float32).eps)
    for dtype in (torch.bfloat16, torch.float16):
        rounded_nd = small_nd.to(dtype)
        expected_nd = layer.float()(rounded_nd.float())
        torch.testing.assert_close(layer.to(dtype)(rounded_nd).float(), expected_nd, rtol=0.02, atol=0.02)


def test_the_fixed_bigram_table_is_no_parameter() -> None:
    fixed, learned = small_model(bigram="fixed"), small_model(bigram="learned")
    assert "bigram" in dict(fixed.named_buffers())
    assert "bigram" in dict(learned.named_parameters())
    assert "bigram" not in small_model(bigram="none").state_dict()


def test_an_untrained_model_starts_small() -> None:
    torch.manual_seed(0)
    model = Transformer(ModelConfig(n_layer=8, d_model=128, n_ctx=8, bigram="none"), 64)
    block: Any = model.blocks[0]
    assert model.embedding.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.mlp.up.weight.std().item() == pytest.approx(128**-0.5, rel=0.05)
    assert block.mlp.down.weight.std().item() == pytest.approx(512**-0.5 / 4, rel=0.05)
    assert not block.mlp.down.bias.any()
    assert model(torch.arange(8)[None]).abs().max() < 2


def test_bigram_log_probabilities_by_hand() -> None:
    table = bigram_log_probabilities(torch.tensor([[3, 1], [0, 0]]), smoothing=0.5)
    torch.testing.assert_close(table.exp(), torch.tensor([[0.7, 0.3], [0.5, 0.5]]))
    assert table.dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"d_model": 20}, "d_model 20 must be a multiple of d_head 16"),
        ({"activation_fraction": 0.0}, "activation_fraction 0.0 must be above 0 and at most 1"),
        ({"activation_fraction": 1.5}, "activation_fraction 1.5 must be above 0 and at most 1"),
        ({"activation_fraction": 0.01}, "activation_fraction 0.01 keeps nothing of attn_in, 32 wide"),
        ({"activation": "tanh"}, "activation: 'tanh': input should be 'gelu', 'gelu_tanh', 'relu' or 'silu'"),
        ({"residual_sites": ["resid"]}, "residual_sites.0: 'resid': input should be 'resid_post_attn'"),
        ({"activation_sites": ["resid"]}, "activation_sites may not hold resid"),
        ({"activation_sites": ["attn_pattern"]}, "activation_sites may not hold attn_pattern"),
        ({"activation_sites": ["mlp"]}, "activation_sites.0: 'mlp': input should be 'attn_in', 'attn_q'"),
        ({"activation_sites": ["mlp_gate"]}, "activation_sites may not hold mlp_gate"),
        ({"positions": "rotary", "d_head": 1}, "d_head 1 must be even for positions=rotary"),
        ({"rotary_theta": 1.0}, "rotary_theta and rotary_scaling belong to positions=rotary"),
        (
            {
                "positions": "rotary",
                "rotary_scaling": {"kind": "llama3", "factor": 2.0, "low_freq_factor": 5.0},
            },
            "rotary_scaling: low_freq_factor 5.0 must be below high_freq_factor",
        ),
        ({"positions": "concatenated"}, "d_pos belongs to positions=concatenated"),
        ({"d_pos": 4}, "d_pos belongs to positions=concatenated"),
        ({"n_layer": 0}, "n_layer: 0: input should be greater than 0"),
        ({"bigram": "both"}, "bigram: 'both': input should be 'none', 'fixed' or 'learned'"),
    ],
)
def test_wrong_configs_are_told(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as caught:
        validate(ModelConfig, {"n_layer": 1, "d_model": 32, "n_ctx": 8} | changes, "model")
    assert told in str(caught.value)
    assert str(caught.value).startswith("model")


def test_a_models_config_cannot_change_under_it() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        SMALL.d_model = 32


@pytest.mark.parametrize("changes", [*VARIANTS, {"bigram": "learned"}])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_loss_is_the_cross_entropy_of_the_logits_and_so_are_its_gradients(
    changes: dict[str, Any], scale: float
) -> None:
    fused, plain = (small_model(**changes).requires_grad_() for _ in range(2))
    tokens_bt, targets_bt = random_tokens(2, 9), random_tokens(2, 9, seed=1)
    value = fused.loss(tokens_bt, targets_bt)
    expected = torch.nn.functional.cross_entropy(plain(tokens_bt).flatten(0, 1), targets_bt.flatten())
    torch.testing.assert_close(value, expected)
    (scale * value).backward()
    (scale * expected).backward()
    for (name, one), other in zip(fused.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)
    if isinstance(fused.bigram, torch.nn.Parameter):
        gradient_vv = fused.bigram.grad
        assert gradient_vv is not None
        assert set(gradient_vv.abs().sum(1).nonzero().flatten().tolist()) == set(tokens_bt.flatten().tolist())
