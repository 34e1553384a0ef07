"""The activations of one forward pass, by site and layer."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from sparsity_lab.core.errors import UserError
from sparsity_lab.model.sites import Site


@dataclass(frozen=True, repr=False)
class Cache(Mapping[tuple[str, int], Tensor]):
    """Activations by (site, layer): (t, channels) for one text, (b, t, channels) for several.

    At "attn_pattern" they are probabilities (heads, query, key); what is missing to 1 goes to the sink. At
    "resid" the second key is a boundary, 0 to 2 · n_layer: before each sublayer and before the unembedding.
    `tokens` are the texts' tokens as strings. `logits` are (t, v) or (b, t, v).
    """

    activations: Mapping[tuple[Site, int], Tensor]
    logits: Tensor
    tokens: list[str] | list[list[str]]

    def __getitem__(self, key: tuple[str, int]) -> Tensor:
        try:
            return self.activations[Site(key[0]), key[1]]
        except (KeyError, ValueError, TypeError, IndexError):
            there = ", ".join(f"({site.value!r}, {layer})" for site, layer in self.activations)
            raise UserError(f"cache: {key!r}: not in this cache; there: {there}") from None

    def __contains__(self, key: object) -> bool:
        return key in self.activations  # a Site equals its name

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter([(site.value, layer) for site, layer in self.activations])

    def __len__(self) -> int:
        return len(self.activations)

    def __repr__(self) -> str:
        lines = [
            f"  {site.value!r}, {layer}: {tuple(x.shape)}" for (site, layer), x in self.activations.items()
        ]
        return "\n".join(["Cache:", *lines])
