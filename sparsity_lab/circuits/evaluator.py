"""From learned gates to circuits (Gao et al. 2025, §2.2, App. A.5).

1. order the nodes by tau and bisect for the smallest number whose loss on the selection pairs meets the
   target: "raw", that of the circuit's own logits, or "calibrated", as in the paper, after a scale and a
   shift fitted at each size; with `restore` also when random subsets of the other nodes are restored;
2. polish: the paper's pruning leaves nodes that can go, so drop kept ones, those with the smallest estimated
   effect first, as long as the target is met;
3. report both splits: the selection pairs, which chose the circuit, and the test pairs, unseen so far.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

import torch
from pydantic import PositiveFloat, field_validator
from torch import Tensor

from sparsity_lab.circuits.ablation import ablate
from sparsity_lab.circuits.calibration import IDENTITY, calibrate, score, two_way_loss
from sparsity_lab.circuits.circuit import Calibration, Circuit, Scores
from sparsity_lab.circuits.compaction import compact
from sparsity_lab.circuits.edges import list_edges
from sparsity_lab.circuits.finders.masks import LearnedMasks, MaskConfig, learn_masks
from sparsity_lab.circuits.gates import gate_nodes
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.circuits.restoration import restored_nodes
from sparsity_lab.core.config import Config
from sparsity_lab.core.hashing import derive_seed
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import TaskBatch, logit_difference

Selection = Literal["raw", "calibrated"]
Provenance = dict[str, str | int | float | bool | None]


class PruningConfig(Config):
    """How circuits are found: by learned masks, or by attribution (`attribution.py`), the baseline.

    `target` (nats) is the loss that models are compared at, `targets` give the curve; `retries`: further
    trainings of the masks, with other seeds, where one went astray. `selection`: whether the raw or the
    calibrated loss must meet the target; a scale and a shift can make an answer of a circuit that gives none,
    so that the calibrated loss finds small circuits for nonsense too (`checks/controls.py`).
    """

    masks: MaskConfig
    method: Literal["masks", "gradient", "integrated"] = "masks"
    selection: Selection = "calibrated"
    target: PositiveFloat = 0.15
    targets: tuple[PositiveFloat, ...] = (0.15,)
    polish: bool = True
    retries: int = 2
    seed: int = 0

    @field_validator("targets")
    @classmethod
    def _sorted(cls, targets: tuple[float, ...]) -> tuple[float, ...]:
        if not targets or list(targets) != sorted(set(targets)):
            raise ValueError("must be one or more losses in nats, ascending, each once")
        return targets

    @property
    def all_targets(self) -> tuple[float, ...]:
        """Every target, the main one included, ascending."""
        return tuple(sorted({*self.targets, self.target}))


@dataclass(frozen=True)
class TaskData:
    """The three splits of one task, encoded."""

    train: TaskBatch
    select: TaskBatch
    test: TaskBatch


@dataclass(frozen=True)
class Pruner:
    """A model, the nodes' frozen values and the task: evaluates sets of kept nodes.

    `restored`: subsets of all nodes, boolean (n); a set of kept nodes must meet the target by itself and, on
    average, with what of each subset lies outside it restored.
    """

    model: Transformer
    means_n: Tensor
    data: TaskData
    selection: Selection = "calibrated"
    restored: tuple[Tensor, ...] = ()

    @torch.no_grad()
    def difference(self, kept_n: Tensor, batch: TaskBatch, model: Transformer | None = None) -> Tensor:
        """Two-way logits of the model with all but `kept_n` frozen; `model`: one already narrowed to them."""
        narrow = compact(self.model, kept_n, self.means_n) if model is None else model
        return logit_difference(narrow, batch, ablate(NodeLayout(self.model.config), kept_n, self.means_n))

    def select_loss(self, kept_n: Tensor, model: Transformer | None = None) -> float:
        """Loss on the selection pairs: what has to meet the target."""
        select = self.data.select
        logit_diff_b = self.difference(kept_n, select, model)
        calibration = self.calibration(logit_diff_b)
        loss = score(logit_diff_b, select.label_b, calibration).calibrated_loss
        restored = [
            score(self.difference(kept_n | more_n, select), select.label_b, calibration).calibrated_loss
            for more_n in self.restored
        ]
        return max(loss, sum(restored) / len(restored)) if restored else loss

    def calibration(self, logit_diff_b: Tensor) -> Calibration:
        """What losses are measured under: fitted on the selection pairs, or none for a raw selection."""
        if self.selection == "raw":
            return IDENTITY
        return calibrate(logit_diff_b, self.data.select.label_b)

    def scores(self, kept_n: Tensor) -> tuple[Calibration, Scores, Scores]:
        """The calibration for the selection pairs, and the scores on both splits under it."""
        select_b = self.difference(kept_n, self.data.select)
        return self.scored(select_b, self.difference(kept_n, self.data.test))

    def scored(self, select_b: Tensor, test_b: Tensor) -> tuple[Calibration, Scores, Scores]:
        """The calibration for the selection pairs' two-way logits, and the scores on both splits under it."""
        calibration = self.calibration(select_b)
        return (
            calibration,
            score(select_b, self.data.select.label_b, calibration),
            score(test_b, self.data.test.label_b, calibration),
        )

    def unpruned(self) -> tuple[Scores, Scores]:
        """Scores of the whole model on the selection and test pairs."""
        _, select, test = self.scores(torch.ones_like(self.means_n, dtype=torch.bool))
        return select, test

    def smallest_prefixes(
        self, order_n: Tensor, targets: Iterable[float], guess: int = 1
    ) -> dict[float, Tensor]:
        """The first nodes of `order_n`, as few as bisection finds, for each target that all of them meet.

        `guess`: a number of nodes to start from.
        """

        def kept(size: int) -> Tensor:
            return torch.zeros(len(order_n), dtype=torch.bool).index_fill(0, order_n[:size], True)

        @cache  # the targets try the same sizes
        def loss(size: int) -> float:
            return self.select_loss(kept(size))

        def meets(target: float, size: int) -> bool:
            return loss(size) <= target

        prefixes = {}
        for target in targets:
            size = bisect(len(order_n), partial(meets, target), guess)
            if size is not None:
                prefixes[target] = kept(size)
        return prefixes

    def polish(self, kept_n: Tensor, target: float, rounds: int = 4) -> Tensor:
        """Drop kept nodes, those of least estimated effect first, as many as still meet `target`."""
        for _ in range(rounds):
            fewer_n = self._drop_prefix(kept_n, target)
            if torch.equal(fewer_n, kept_n):
                break
            kept_n = fewer_n
        return kept_n

    def _drop_prefix(self, kept_n: Tensor, target: float) -> Tensor:
        nodes_k = kept_n.nonzero().flatten()
        order_k = nodes_k[self.effects(kept_n)[nodes_k].argsort(stable=True)]
        narrow = compact(self.model, kept_n, self.means_n)

        def without(size: int) -> Tensor:
            return kept_n.index_fill(0, order_k[:size], False)

        too_many = bisect(len(order_k), lambda size: self.select_loss(without(size), narrow) > target)
        return without((too_many or len(order_k)) - 1)

    def effects(self, kept_n: Tensor) -> Tensor:
        """First-order estimate of the rise of the selection loss when a node is frozen (n)."""
        select, layout = self.data.select, NodeLayout(self.model.config)
        tau_n = torch.where(kept_n, 1.0, -1.0).requires_grad_()
        narrow = compact(self.model, kept_n, self.means_n)
        logit_diff_b = logit_difference(narrow, select, gate_nodes(layout, tau_n, self.means_n, 1.0))
        calibration = self.calibration(logit_diff_b.detach())
        loss = two_way_loss(calibration.scale * logit_diff_b + calibration.shift, select.label_b)
        (slope_n,) = torch.autograd.grad(loss, tau_n)
        return -slope_n  # opening a gate lowers the loss by this much per unit


def make_pruner(model: Transformer, means_n: Tensor, data: TaskData, config: PruningConfig) -> Pruner:
    """The pruner that `config` asks for: with fixed restored subsets where masks are trained under such."""
    generator = torch.Generator().manual_seed(derive_seed(config.seed, "restored for selection"))
    restored = [
        restored_nodes(len(means_n), share * config.masks.restore, generator) for share in (0.3, 0.6, 1)
    ]
    return Pruner(model, means_n, data, config.selection, tuple(restored) if config.masks.restore else ())


def bisect(most: int, meets: Callable[[int], bool], guess: int = 1) -> int | None:
    """Smallest size from 1 to `most` that `meets`, if larger sizes do too; None if `most` does not.

    From the guess, sizes are doubled until one meets, or halved until one does not, and what lies between is
    halved then.
    """
    low, high = 1, None  # the answer is at least `low`, and at most `high`
    size = min(max(guess, 1), most)
    while high is None or low < high:
        if meets(size):
            high = size
        elif size == most:
            return None
        else:
            low = size + 1
        if high is None:
            size = min(2 * size, most)
        elif low == 1:
            size = max(1, size // 2)
        else:
            size = (low + high) // 2
    return high


def find_circuits(
    pruner: Pruner, task: str, model_name: str, config: PruningConfig, give_up: float | None = None
) -> list[Circuit]:
    """One circuit for each target that some set of nodes meets, from one training of the masks.

    `pruner` must select as `config` says (`make_pruner`). Training that went astray (a circuit of more than
    half the nodes, or none) is repeated with another seed, at a tighter loss to aim at; the smallest circuit
    of all tries is taken. `give_up`: see `learn_masks`; what was given up has no circuits.
    """
    best: dict[float, tuple[Tensor, LearnedMasks, int]] = {}
    for attempt in range(config.retries + 1):
        aim = config.masks.target / 2**attempt
        masks_config = config.masks.model_copy(update={"target": aim})
        masks = learn_masks(
            pruner.model, pruner.means_n, pruner.data.train, masks_config, config.seed + attempt, give_up
        )
        if len(masks.losses) < masks_config.steps:
            continue
        order_n = masks.tau_n.argsort(descending=True, stable=True)
        guess = int((masks.tau_n > 0).sum())
        for target, kept_n in pruner.smallest_prefixes(order_n, config.all_targets, guess).items():
            if target not in best or kept_n.sum() < best[target][0].sum():
                best[target] = kept_n, masks, attempt
        if config.target in best and best[config.target][0].float().mean() < 0.5:
            break
    circuits = []
    for target, (kept_n, masks, attempt) in sorted(best.items()):
        polished_n = pruner.polish(kept_n, target) if config.polish else kept_n
        provenance: Provenance = {
            "method": "masks",
            "selection": config.selection,
            "restore": config.masks.restore,
            "penalty": config.masks.penalty,
            "k_coef": masks.k_coef,
            "steps": config.masks.steps,
            "attempt": attempt,
            "nodes_before_polish": int(kept_n.sum()),
        }
        circuits.append(make_circuit(pruner, polished_n, task, model_name, target, provenance))
    return circuits


def make_circuit(
    pruner: Pruner,
    kept_n: Tensor,
    task: str,
    model_name: str,
    target: float,
    provenance: Provenance,
) -> Circuit:
    """The record of the circuit that keeps `kept_n`."""
    calibration, select, test = pruner.scores(kept_n)
    return Circuit(
        task=task,
        model=model_name,
        target=target,
        nodes=NodeLayout(pruner.model.config).nodes(kept_n),
        edges=list_edges(pruner.model, kept_n),
        calibration=calibration,
        select=select,
        test=test,
        provenance=provenance,
    )
