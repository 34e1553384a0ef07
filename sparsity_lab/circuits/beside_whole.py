"""Circuits that are evaluated beside the whole model's run on the same prompts.

Two settings need the whole model's activations:
- `pruning.ablation=other_prompt`: a dropped node takes its value from the pair's other prompt (resample or
  interchange ablation). Only what differs between the two prompts then has to pass through the circuit.
- `pruning.freeze_norm`: every norm divides by the scale that it has in the whole model's run, so that frozen
  nodes cannot change a kept node by way of the norm.

`BesideWhole` is a transformer that runs the whole model first. With `other_prompt`, taps see each node's
difference from its value on the other prompt. A node frozen at zero is then a node that takes the other
prompt's value, and every function that freezes nodes at given values serves unchanged.

The two prompts of a pair may differ in length. They are aligned at both ends: a token of their common
beginning corresponds to itself, and a later token to the one as far from the other prompt's end.

Shape suffixes: b rows of a batch, t tokens, c channels of a site, d d_model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsity_lab.circuits.circuit import Circuit
from sparsity_lab.circuits.closing import with_children
from sparsity_lab.model.sites import Site, Start, Tap
from sparsity_lab.model.taps import Record
from sparsity_lab.model.transformer import Transformer

Values = Mapping[tuple[Site, int], Tensor]


@dataclass(frozen=True)
class Whole:
    """The whole model, and what is taken from its run."""

    model: Transformer
    other_prompt: bool
    freeze_norm: bool


class BesideWhole(Transformer):
    """`whole.model`, or a closed or compacted copy of it, that takes values from the whole model's run."""

    def __init__(self, whole: Whole) -> None:
        nn.Module.__init__(self)
        vars(self).update(vars(whole.model))  # the same tensors
        self.whole = whole

    @property
    def whole_pairs(self) -> bool:
        """Whether a batch must hold whole pairs: the positive prompts, then the negative ones."""
        return self.whole.other_prompt

    def forward(
        self,
        tokens_bt: Tensor,
        tap: Tap | None = None,
        position_b: Tensor | None = None,
        start: Start | None = None,
    ) -> Tensor:
        """Compute logits as the transformer does, after a run of the whole model without a tap.

        Raises:
            ValueError: taps need the other prompts' values, and the prompts' ends are not given.
        """
        whole, net = self.whole, self
        sites = {*(self.config.node_sites if whole.other_prompt else ())}
        record = Record({*sites, Site.RESID} if whole.freeze_norm else sites)
        with torch.no_grad():
            whole.model(tokens_bt, record, position_b)
        if whole.freeze_norm:
            net = with_norm_inputs(self, record.values)
        if whole.other_prompt and tap is not None:
            if position_b is None:
                raise ValueError("the other prompt's values need the position of each prompt's end")
            tap = against(tap, others(record.values, other_positions(tokens_bt, position_b)))
        return Transformer.forward(net, tokens_bt, tap, position_b, start)


def beside_whole(model: Transformer, other_prompt: bool, freeze_norm: bool) -> Transformer:
    """Return `model`, or a `BesideWhole` of it if something is taken from the whole model's run."""
    if not (other_prompt or freeze_norm):
        return model
    return BesideWhole(Whole(model, other_prompt, freeze_norm))


def as_searched(model: Transformer, circuit: Circuit) -> Transformer:
    """Return the model that `circuit` is evaluated in, as in its search: `model` or a `BesideWhole` of it."""
    found = circuit.provenance
    return beside_whole(model, found.get("ablation") == "other_prompt", bool(found.get("freeze_norm")))


def needs_pairs(model: Transformer) -> bool:
    """Return whether frozen nodes differ from row to row, so that they cannot be folded into biases."""
    return isinstance(model, BesideWhole) and model.whole_pairs


def other_positions(tokens_bt: Tensor, last_b: Tensor) -> Tensor:
    """Return, for each token, the position of the corresponding token in the pair's other prompt (b, t).

    `last_b` are the prompts' ends. Padding corresponds to any token.
    """
    other_bt, other_b = _swapped(tokens_bt), _swapped(last_b)
    time_t = torch.arange(tokens_bt.shape[1], device=tokens_bt.device)
    shared_bt = (tokens_bt == other_bt) & (time_t <= torch.minimum(last_b, other_b)[:, None])
    prefix_b1 = shared_bt.long().cumprod(1).sum(1, keepdim=True)  # length of the common beginning
    from_end_bt = time_t + (other_b - last_b)[:, None]
    later_bt = torch.maximum(from_end_bt, torch.minimum(prefix_b1, other_b[:, None]))
    return torch.where(time_t < prefix_b1, time_t, later_bt).clamp(max=tokens_bt.shape[1] - 1)


def others(values: Values, position_bt: Tensor) -> dict[tuple[Site, int], Tensor]:
    """Return the recorded activations of each row's other prompt, aligned by `position_bt`.

    A site that is visited at the prompts' ends alone has one position, which corresponds to itself.
    """
    return {
        key: _swapped(x_btc)
        if x_btc.shape[1] == 1
        else _swapped(x_btc).gather(1, position_bt[..., None].expand_as(x_btc))
        for key, x_btc in values.items()
        if key[0] is not Site.RESID
    }


def against(tap: Tap, other: Values) -> Tap:
    """Make a tap that shows to `tap` the differences of nodes from `other`, and adds `other` again."""

    def changed(site: Site, layer: int, x_btc: Tensor) -> Tensor:
        value_btc = other.get((site, layer))
        if value_btc is None:
            return tap(site, layer, x_btc)
        return value_btc + tap(site, layer, x_btc - value_btc)

    return changed


class ScaledNorm(nn.Module):
    """A norm that divides by the scale of another input `whole_btd`, of the same shape."""

    def __init__(self, norm: nn.RMSNorm | nn.LayerNorm, whole_btd: Tensor) -> None:
        super().__init__()
        self.norm, self.whole_btd = norm, whole_btd

    def forward(self, x_btd: Tensor) -> Tensor:
        whole_btd, bias_d = self.whole_btd, None
        eps = self.norm.eps or torch.finfo(torch.float32).eps
        if isinstance(self.norm, nn.LayerNorm):
            bias_d = self.norm.bias
            whole_btd, x_btd = (x - x.mean(-1, keepdim=True) for x in (whole_btd, x_btd))
        x_btd = x_btd * (whole_btd.square().mean(-1, keepdim=True) + eps).rsqrt() * self.norm.weight
        return x_btd if bias_d is None else x_btd + bias_d


def with_norm_inputs(model: BesideWhole, values: Values) -> BesideWhole:
    """Return a copy of `model` whose norms take their scale from the residual streams in `values`."""

    def scaled(norm: nn.Module, boundary: int) -> nn.Module:
        assert isinstance(norm, nn.RMSNorm | nn.LayerNorm)
        return ScaledNorm(norm, values[Site.RESID, boundary])

    blocks = []
    for layer, block in enumerate(model.blocks):
        sublayers = {}
        for half, name in enumerate(("attention", "mlp")):
            sublayer: Any = block.get_submodule(name)
            if hasattr(sublayer, "read"):  # a sublayer whose outputs are all frozen reads nothing
                norm = scaled(sublayer.read.norm, 2 * layer + half)
                sublayers[name] = with_children(sublayer, read=with_children(sublayer.read, norm=norm))
        blocks.append(with_children(block, **sublayers))
    last = scaled(model.norm, 2 * len(model.blocks))
    return with_children(model, blocks=nn.ModuleList(blocks), norm=last)


def _swapped(x: Tensor) -> Tensor:
    """Exchange the two prompts of every pair, along the first axis."""
    return x.roll(len(x) // 2, 0)
