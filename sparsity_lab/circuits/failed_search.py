"""Signs that a search for circuits has failed: it found sets that are far larger than needed. Needs no torch.

Learned masks can end in a bad local minimum. Most signs come from a task's own circuits (`doubt`), one from
the model's circuits for other tasks (`out_of_line`). The thresholds lie well outside the range of searches
that succeeded (docs/closed_circuits.md).
"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

FAR_BELOW = 0.5  # a selection loss below this fraction of its target
STEEP = 5  # times the nodes of the next looser target
FAR_ABOVE = 8  # times the median number of nodes of the model's circuits for other tasks
FEW = 20  # nodes; a set as small as this is not doubted
FEWEST_OTHERS = 4  # circuits of other tasks, for a median


class Size(NamedTuple):
    """Number of nodes and edges of the set found for one target, and its selection loss in nats."""

    nodes: int
    edges: int
    loss: float


def doubt(sizes: Mapping[float, Size], targets: Sequence[float], all_nodes: int) -> str | None:
    """Return why the sets found so far may be the result of a failed search, in a few words; None if not.

    `sizes` holds the set of each target that was met. `targets` begins with the main target. `all_nodes` is
    the model's number of nodes.
    """
    if targets[0] not in sizes:
        return f"no set of nodes reaches {targets[0]:g} nats"
    met = sorted(sizes.items())
    for index, (target, size) in enumerate(met):
        if size.nodes <= FEW:
            continue
        if size.nodes >= all_nodes / 2:
            return f"{size.nodes} of {all_nodes} nodes at {target:g} nats"
        if size.loss < FAR_BELOW * target:
            return f"loss {size.loss:.3f} at a target of {target:g} nats"
        if index + 1 < len(met):
            looser, smaller = met[index + 1]
            if size.nodes > STEEP * max(smaller.nodes, FEW):
                return f"{size.nodes} nodes at {target:g} nats, {smaller.nodes} at {looser:g}"
    return None


def out_of_line(nodes: Mapping[str, int]) -> list[str]:
    """Return the tasks whose circuits have far more nodes than the model's circuits for other tasks."""
    found = []
    for task, size in nodes.items():
        others = [other for name, other in nodes.items() if name != task]
        if len(others) >= FEWEST_OTHERS and size > max(FEW, FAR_ABOVE * median(others)):
            found.append(task)
    return found
