"""What every check is given: a circuit, the model it is part of, the task's pairs and some text.

Also the two losses by which checks judge. Both depend on the circuit's target and on chance:
- A variant still meets the target if its loss is at most `CircuitUnderTest.limit`, which is the target plus
  `margin`. Where the whole model's loss is above the target, the margin is added to that loss instead.
- A variant no longer answers if its loss is above `halfway` from the target to chance.
Below chance alone is never enough for a verdict that speaks for a circuit.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sparsity_lab.circuits.circuit import Circuit, Scores
from sparsity_lab.circuits.closing import close
from sparsity_lab.circuits.compaction import compact
from sparsity_lab.circuits.difference import circuit_difference
from sparsity_lab.circuits.evaluator import IDENTITY, calibrate, score
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.evidence.record import Measured
from sparsity_lab.model.sites import Tap
from sparsity_lab.model.taps import chain, on_nodes
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import TaskBatch, logit_difference

CHANCE_LOSS = 0.6931471805599453  # ln 2: the two-way loss of a coin


@dataclass(frozen=True)
class CircuitUnderTest:
    """`test`: pairs that had no part in finding the circuit; `text_bt`: windows of pretraining text.

    `means_n` are the values that nodes outside the circuit are frozen at.
    """

    model: Transformer
    means_n: Tensor
    circuit: Circuit
    train: TaskBatch
    test: TaskBatch
    text_bt: Tensor

    @cached_property
    def layout(self) -> NodeLayout:
        """The flat order of the model's nodes."""
        return NodeLayout(self.model.config)

    @cached_property
    def kept_n(self) -> Tensor:
        """The circuit's nodes, boolean (n)."""
        return self.layout.mask(self.circuit.nodes)

    @property
    def margin(self) -> float:
        """Half the target, or a quarter of the way from the target to chance if that is less; in nats."""
        target = self.circuit.target
        return min(target / 2, max(0.0, CHANCE_LOSS - target) / 4)

    @property
    def limit(self) -> float:
        """The largest loss, in nats, that still meets the target."""
        return self.circuit.target + self.margin

    def limit_beside(self, whole: float) -> float:
        """Return `limit`, or the margin above the whole model's loss `whole` if that exceeds the target."""
        return max(self.circuit.target, whole) + self.margin

    @property
    def halfway(self) -> float:
        """The loss halfway from the target to chance, in nats; the target if that is above chance."""
        return self.circuit.target + max(0.0, CHANCE_LOSS - self.circuit.target) / 2

    @cached_property
    def alone(self) -> Transformer:
        """The model that the circuit runs in: closed if the circuit is (`circuits/closing.py`)."""
        return close(self.model, self.kept_n) if self.circuit.closed else self.model

    @cached_property
    def narrow(self) -> Transformer:
        """The same without the inputs that the circuit freezes at their means."""
        return compact(self.alone, self.kept_n, self.means_n)

    def kept_difference(
        self, kept_n: Tensor, values_n: Tensor | None = None, closed: bool | None = None
    ) -> Tensor:
        """Logit differences on the test pairs, all but `kept_n` frozen at their means or at `values_n`.

        `closed` is the circuit's own unless it is given.
        """
        values_n = self.means_n if values_n is None else values_n
        closed = self.circuit.closed if closed is None else closed
        return circuit_difference(self.model, kept_n, values_n, self.test, closed)

    def scores(self, logit_diff_b: Tensor) -> Scores:
        """Scores on the test pairs, under the circuit's own calibration."""
        return score(logit_diff_b, self.test.label_b, self.circuit.calibration)

    def refitted_loss(self, logit_diff_b: Tensor) -> float:
        """Loss on the test pairs, after a scale and shift fitted to them if the circuit has such at all."""
        is_fitted = self.circuit.provenance.get("selection") == "calibrated"
        calibration = calibrate(logit_diff_b, self.test.label_b) if is_fitted else IDENTITY
        return score(logit_diff_b, self.test.label_b, calibration).selection_loss

    @cached_property
    def unpruned_b(self) -> Tensor:
        """Logit differences of the whole model on the test pairs."""
        with torch.no_grad():
            return logit_difference(self.model, self.test)

    @cached_property
    def circuit_b(self) -> Tensor:
        """Logit differences of the circuit on the test pairs."""
        return self.kept_difference(self.kept_n)

    @cached_property
    def task_activations(self) -> Tensor:
        """Values of all nodes in the whole model at each token of the test prompts (p, n)."""
        time = torch.arange(self.test.tokens_bt.shape[1])
        return activations(self.model, self.test.tokens_bt)[time <= self.test.last_b[:, None]]

    @cached_property
    def text_activations(self) -> Tensor:
        """Values of all nodes in the whole model at each position of the text (p, n)."""
        return activations(self.model, self.text_bt).flatten(0, 1)


@torch.no_grad()
def activations(model: Transformer, tokens_bt: Tensor, tap: Tap | None = None, rows: int = 32) -> Tensor:
    """Values of all nodes, after `tap` if there is one, in flat order (b, t, n)."""
    layout = NodeLayout(model.config)
    found_btn = torch.empty(*tokens_bt.shape, layout.size)

    def keep(x_btc: Tensor, place: slice) -> Tensor:
        part_btn[..., place] = x_btc
        return x_btc

    for first in range(0, len(tokens_bt), rows):
        part_btn = found_btn[first : first + rows]
        model(tokens_bt[first : first + rows], chain(tap, on_nodes(layout, keep)))
    return found_btn


def nats(name: str, value: float) -> Measured:
    """A loss or a difference of losses."""
    return Measured(name=name, value=float(value), unit="nats")


def fraction(name: str, value: float) -> Measured:
    """A share of something, 0 to 1."""
    return Measured(name=name, value=float(value), unit="fraction")


def count(name: str, value: float, unit: str) -> Measured:
    """A number of nodes, edges, tokens."""
    return Measured(name=name, value=float(value), unit=unit)


def rule(speaks_for: str, mixed: str, against: str) -> str:
    """Put the conditions of the three verdicts into one line."""
    return f"for: {speaks_for}; mixed: {mixed}; against: {against}"
