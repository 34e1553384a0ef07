"""Subsets of the nodes outside a circuit, restored: what a hardened search must stand.

Ablating many nodes at once lets an optimiser find sets whose errors cancel. Restoring a part of them, at
random or by its harm, breaks such sets, and not a circuit that the whole model uses.
"""

import torch
from torch import Tensor


def restored_nodes(size: int, share: float, generator: torch.Generator) -> Tensor:
    """Each of `size` nodes with probability `share`, boolean (n)."""
    return torch.rand(size, generator=generator) < share


class Restoration:
    """What is restored at each step of mask learning: nothing in even steps, in odd ones a new subset.

    Each node with a probability that is drawn for the step, up to `share`; with `adversarial`, of these only
    nodes whose gates, opened, would have raised the loss in the last step without restoration.
    """

    def __init__(self, share: float, adversarial: bool, size: int, seed: int) -> None:
        self.share, self.adversarial, self.size = share, adversarial, size
        self.generator = torch.Generator().manual_seed(seed)
        self.plain = True
        self.harmful_n: Tensor | None = None

    def draw(self, step: int) -> Tensor | None:
        """The nodes restored in this step, boolean (n); None for none."""
        self.plain = not self.share or step % 2 == 0
        if self.plain:
            return None
        share = self.share * torch.rand((), generator=self.generator).item()
        drawn_n = restored_nodes(self.size, share, self.generator)
        return drawn_n & self.harmful_n if self.adversarial and self.harmful_n is not None else drawn_n

    def note_gradient(self, slope_n: Tensor) -> None:
        """Take note of the loss's slope in every gate."""
        if self.adversarial and self.plain:
            self.harmful_n = slope_n > 0
