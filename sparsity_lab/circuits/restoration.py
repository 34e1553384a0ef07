"""Restoration: random subsets of the ablated nodes are unfrozen, to harden the search for a circuit.

When many nodes are ablated at once, an optimiser can find sets whose errors cancel. Restoring some ablated
nodes breaks such sets. It does not break a circuit that the whole model uses.
"""

import torch
from torch import Tensor


def restored_nodes(size: int, share: float, generator: torch.Generator) -> Tensor:
    """Draw each of `size` nodes with probability `share`, boolean (n)."""
    return torch.rand(size, generator=generator) < share


class Restoration:
    """Draws the nodes to restore at each step of mask learning.

    Even steps restore nothing. Odd steps restore a new random subset, whose probability per node is drawn
    uniformly from 0 to `share`. With `adversarial`, the subset only contains nodes whose gates had a positive
    loss gradient in the last step without restoration: opening them would have raised the loss.
    """

    def __init__(self, share: float, adversarial: bool, size: int, seed: int) -> None:
        self.share, self.adversarial, self.size = share, adversarial, size
        self.generator = torch.Generator().manual_seed(seed)
        self.plain = True
        self.harmful_n: Tensor | None = None

    def draw(self, step: int) -> Tensor | None:
        """Draw the nodes to restore in this step, boolean (n); None restores nothing."""
        self.plain = not self.share or step % 2 == 0
        if self.plain:
            return None
        share = self.share * torch.rand((), generator=self.generator).item()
        drawn_n = restored_nodes(self.size, share, self.generator)
        return drawn_n & self.harmful_n if self.adversarial and self.harmful_n is not None else drawn_n

    def note_gradient(self, slope_n: Tensor) -> None:
        """Remember the loss gradient of every gate, for adversarial restoration."""
        if self.adversarial and self.plain:
            self.harmful_n = slope_n > 0
