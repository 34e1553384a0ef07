"""Taps: what may be done at the sites of a forward pass, each written once.

`on_nodes` and `at_site` make a tap of a function, `chain` makes one of several, `Record` keeps what it sees.
Freezing and scaling take nodes as flat vectors (n) over all nodes, in the order of a `Layout`.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from sparsity_lab.model.sites import Site, Start, Tap, asks_for_pattern
from sparsity_lab.model.transformer import Transformer


class Layout(Protocol):
    """Where each node site of a layer lies in a flat vector over all nodes (`circuits.nodes.NodeLayout`)."""

    @property
    def slices(self) -> Mapping[tuple[Site, int], slice]:
        """(site, layer) → its stretch; other sites are not in it."""


def on_nodes(layout: Layout, change: Callable[[Tensor, slice], Tensor]) -> Tap:
    """A tap that replaces x at every node site by `change(x, place)`, and leaves all else as it is."""

    def tap(site: Site, layer: int, x_btc: Tensor) -> Tensor:
        place = layout.slices.get((site, layer))
        return x_btc if place is None else change(x_btc, place)

    return tap


def at_site(wanted: Site, of_layer: int, change: Callable[[Tensor], Tensor]) -> Tap:
    """A tap that replaces x at one site of one layer (at `Site.RESID`: one boundary) by `change(x)`."""

    def tap(site: Site, layer: int, x_btc: Tensor) -> Tensor:
        return change(x_btc) if site is wanted and layer == of_layer else x_btc

    return tap


class Chain:
    """A tap made of several: each sees what the one before it returned, the pattern only if it asks."""

    def __init__(self, taps: tuple[Tap, ...]) -> None:
        self.taps = taps
        self.asks_for_pattern = any(asks_for_pattern(tap) for tap in taps)

    def __call__(self, site: Site, layer: int, x_btc: Tensor) -> Tensor:
        for tap in self.taps:
            if site is not Site.ATTN_PATTERN or asks_for_pattern(tap):
                x_btc = tap(site, layer, x_btc)
        return x_btc


def chain(*taps: Tap | None) -> Tap:
    """One tap of several, in order; None is left out."""
    return Chain(tuple(tap for tap in taps if tap is not None))


@dataclass(frozen=True)
class Record:
    """A tap that keeps what it sees at some sites, by (site, layer or boundary), and changes nothing."""

    sites: Collection[Site]
    values: dict[tuple[Site, int], Tensor] = field(default_factory=dict)

    @property
    def asks_for_pattern(self) -> bool:
        """Patterns are computed only where they are kept."""
        return Site.ATTN_PATTERN in self.sites

    def __call__(self, site: Site, layer: int, x_btc: Tensor) -> Tensor:
        if site in self.sites:
            self.values[site, layer] = x_btc
        return x_btc


def ablate(layout: Layout, kept_n: Tensor, values_n: Tensor) -> Tap:
    """Mean ablation (§2.2): freeze all nodes outside `kept_n` at their `values_n`, at every position."""
    return on_nodes(layout, lambda x_btc, place: freeze(x_btc, kept_n[place], values_n[place]))


def freeze(x_btc: Tensor, kept_c: Tensor, value_c: Tensor) -> Tensor:
    """`x_btc` with every channel outside `kept_c` at its value in `value_c`.

    `x_btc` must be finite, since 0 · NaN is NaN. The numbers are those of `torch.where`, in a third of its
    time on a CPU.
    """
    return torch.addcmul(value_c.to(x_btc.dtype).masked_fill(kept_c, 0), x_btc, kept_c.to(x_btc.dtype))


def scale_nodes(layout: Layout, gate_n: Tensor, values_n: Tensor) -> Tap:
    """A tap that moves every node to values + gate · (x - values)."""
    return on_nodes(layout, lambda x_btc, place: values_n[place] + gate_n[place] * (x_btc - values_n[place]))


def with_residuals(
    model: Transformer, tokens_bt: Tensor, tap: Tap | None = None, start: Start | None = None
) -> tuple[Tensor, dict[int, Tensor]]:
    """Logits (b, t, v), and boundary → residual stream (b, t, d) there, as `tap`, if any, leaves it."""
    record = Record({Site.RESID})
    logits_btv = model(tokens_bt, chain(tap, record), start=start)
    return logits_btv, {boundary: x_btd for (_, boundary), x_btd in record.values.items()}
