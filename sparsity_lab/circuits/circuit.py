"""The record of a circuit: the kept nodes and edges of one model for one task.

A node is one channel of one site in one layer. An edge is one nonzero weight between two kept nodes
(Gao et al. 2025, §2.2). Every finder returns this record, and every check and plot reads it. It is stored as
plain JSON and can be read without torch.
"""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from sparsity_lab.core.config import Config, validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json, write_json


class Node(Config):
    """Channel `channel` of `site` in layer `layer` (0-based)."""

    layer: int
    site: str
    channel: int


class Edge(Config):
    """The nonzero entry `weight` of the matrix that reads `source` and writes `target`."""

    source: Node
    target: Node
    weight: float


class Scores(Config):
    """Losses and accuracy on one set of pairs. The losses are in nats, over the two answers only.

    `raw_loss` and `accuracy` use the raw logits. `selection_loss` is the loss that `pruning.selection` names:
    either the raw loss again, or the loss after the circuit's own scale and shift. The latter can hide that
    the circuit misranks the answers. The accuracy is null for circuits from files that do not give it.
    """

    raw_loss: float
    selection_loss: float
    accuracy: float | None

    @model_validator(mode="before")
    @classmethod
    def _older_names(cls, values: Any) -> Any:
        """Accept the names that older files give the two losses."""
        if isinstance(values, dict) and values.keys() == {"loss", "calibrated_loss", "accuracy"}:
            raw, selection = values["loss"], values["calibrated_loss"]
            return {"raw_loss": raw, "selection_loss": selection, "accuracy": values["accuracy"]}
        return values


class Calibration(Config):
    """An affine map of the logit difference d: scale · d + shift (App. A.5)."""

    scale: float
    shift: float


class PrunedEdges(Config):
    """The edges left after edge pruning, and the scores of the circuit with these edges alone.

    A dropped edge passes the mean of its source instead of its value.
    """

    edges: tuple[Edge, ...]
    calibration: Calibration
    select: Scores
    test: Scores


class PrunedTokens(Config):
    """The tokens whose embeddings are left after token pruning, and the scores with these and all edges.

    A dropped token has the mean embedding of the vocabulary, or zero with ablation zero.
    """

    tokens: tuple[int, ...]
    calibration: Calibration
    select: Scores
    test: Scores


class Beside(Config):
    """A file in the same folder as the circuit's own, with its SHA-256 in hex."""

    file: str = Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")
    sha256: str


TargetKind = Literal["absolute", "relative"]


class Targeted(Config):
    """The loss that a circuit has to meet on the selection pairs.

    `target` is this loss in nats, for both kinds of target. An absolute target is the same for every model. A
    relative target is the whole model's own selection loss plus `excess` nats; `excess` is None if the target
    is absolute.
    """

    target: float
    target_kind: TargetKind = "absolute"
    excess: float | None = None

    @model_validator(mode="after")
    def _kind_fits(self) -> Self:
        if (self.target_kind == "relative") != (self.excess is not None):
            raise ValueError("excess: belongs to target_kind relative, and to no other")
        return self

    @property
    def asked(self) -> float:
        """The number that the config asks for: the target itself, or the excess of a relative one."""
        return self.target if self.excess is None else self.excess


class Circuit(Targeted):
    """A part of a model that solves a task while every other node is frozen at its mean.

    `edges` holds all nonzero weights between kept nodes, and the scores are measured with all of them.
    `pruned` is set if edges were pruned too (`pruning.edges: prune`); older files lack it.
    `tokens` is set if token embeddings were pruned (`pruning.tokens: prune`).
    `closed`: in all scores, weights into dropped nodes are zero (`closing.py`); false in older files.
    `edges_only`: the test scores with these weights at zero, whether the circuit is closed or not.

    With the model, these are enough to compute the losses again (`standalone.py`, `docs/recompute.py`).
    Older files and circuits from elsewhere lack them. `model_hash`: of the model's two files. `task_hash`: of
    the task's words and all its pairs. `frozen`: the values at which dropped nodes are frozen. `pairs`: the
    pairs of `select` and `test`, as tokens.
    """

    task: str
    model: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    calibration: Calibration
    select: Scores
    test: Scores
    provenance: dict[str, str | int | float | bool | None]
    pruned: PrunedEdges | None = None
    tokens: PrunedTokens | None = None
    model_hash: str | None = None
    task_hash: str | None = None
    frozen: Beside | None = None
    pairs: Beside | None = None
    closed: bool = False
    edges_only: Scores | None = None

    def __repr__(self) -> str:
        nodes, edges = self.counts
        right = "" if self.test.accuracy is None else f", {self.test.accuracy:.0%} right"
        return (
            f"Circuit of {self.task} at {self.target:g} nats: {nodes} nodes, {edges} edges; on test pairs "
            f"{self.test.selection_loss:.3f} nats{right}"
        )

    __str__ = __repr__

    @property
    def needs_whole_run(self) -> bool:
        """Whether its losses need the whole model's run on the same pairs (`beside_whole.py`)."""
        return bool(self.provenance.get("freeze_norm")) or self.provenance.get("ablation") == "other_prompt"

    @property
    def counts(self) -> tuple[int, int]:
        """Number of nodes and number of edges."""
        return len(self.nodes), len(self.edges)

    @property
    def pruned_edges(self) -> int | None:
        """Number of edges after edge pruning; None if edges were not pruned."""
        return None if self.pruned is None else len(self.pruned.edges)


def save_circuit(circuit: Circuit, path: str | Path) -> None:
    """Write `circuit` as JSON."""
    write_json(Path(path).expanduser(), circuit)


def load_circuit(path: str | Path) -> Circuit:
    """Read a circuit.

    Raises:
        UserError: the file is missing or is not a circuit.
    """
    if not isinstance(path, str | Path):
        raise UserError(f"path: {type(path).__name__}: allowed: the path of a circuit's file")
    return validate(Circuit, read_json(Path(path).expanduser()), str(path))
