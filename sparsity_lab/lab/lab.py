"""The Python door: `load` a trained model, look inside it, find its circuits, and show them.

lab = sparsity_lab.load("runs/single/RUN")
lab.next_tokens("for item in")
lab.ablate((0, "mlp_neuron", 12)).logits("for item in")
circuit = lab.find_circuit("for_while")
lab.evaluate(circuit), lab.show(circuit)
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from sparsity_lab.circuits.beside_whole import as_searched
from sparsity_lab.circuits.circuit import Circuit, Scores, TargetKind, load_circuit
from sparsity_lab.circuits.config import PruningConfig
from sparsity_lab.circuits.evaluator import CircuitEvaluator, TaskData, score
from sparsity_lab.circuits.finders import FINDERS, FinderConfig
from sparsity_lab.circuits.finders.masks import Config as MasksConfig
from sparsity_lab.circuits.search import find_circuits, make_evaluator, unsearched
from sparsity_lab.config import RunConfig
from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.run_folder import CIRCUITS, circuit_files
from sparsity_lab.evidence.checks import check_circuit
from sparsity_lab.evidence.config import EvidenceConfig
from sparsity_lab.evidence.record import Evidence
from sparsity_lab.kernels.machine import prepare_processor
from sparsity_lab.lab.intervened import Intervened
from sparsity_lab.lab.page import Page
from sparsity_lab.lab.questions import Question, Questions
from sparsity_lab.model.checkpoints import count_weights
from sparsity_lab.results.frames import to_frame
from sparsity_lab.results.record import RunRecord
from sparsity_lab.results.runs import read_all
from sparsity_lab.stages.evidence import shared_inputs
from sparsity_lab.stages.examples import TEXT_TOKENS
from sparsity_lab.stages.opened import open_folder
from sparsity_lab.viewer.examples import collect_examples
from sparsity_lab.viewer.examples_record import MAX_NODES
from sparsity_lab.viewer.page import make_view

if TYPE_CHECKING:
    import pandas as pd


log = logging.getLogger(__name__)

AnyCircuit: TypeAlias = Circuit | str | Path
"""A circuit, the name of a task of which the opened folder has a circuit, or the path of a circuit's file."""


def load(path: str | Path) -> "Lab":
    """Open a run's folder, an export, or a model's folder.

    A run's own `kernels` and `threads` (at most this machine's) then hold for the whole process, so that a
    circuit's scores are those of the record. For other folders, kernels are on and all cores are used.

    Raises:
        UserError: there is no model in the folder, or a file is damaged or of an older version.
    """
    folder = open_folder(_path(path))
    prepare_processor(*folder.threads_and_kernels)
    return Lab(folder=folder, questions=Questions(folder))


def runs(path: str | Path = "runs") -> "pd.DataFrame":
    """Read all finished runs below a folder, such as `runs/SWEEP`: one row per run × task × target.

    Raises:
        UserError: there is no such folder or no finished run in it, or a record is unreadable.
    """
    found = read_all(_path(path))
    if not found:
        raise UserError(f"{path}: no finished run below this folder")
    return to_frame([record for _, record in found])


def _path(path: object) -> Path:
    if not isinstance(path, str | Path):
        raise UserError(f"path: {type(path).__name__}: allowed: a folder's path")
    return Path(path).expanduser()


@dataclass(frozen=True, kw_only=True, repr=False)
class Lab(Intervened):
    """A trained model with all that is known about it."""

    def __repr__(self) -> str:
        shape = self.model.config
        size = f"d_model {shape.d_model}, {shape.n_layer} layers, {self.model.vocab_size} tokens"
        asked = f"; circuits: {', '.join(self.tasks)}" if self.tasks else ""
        return f"{self.folder.path}: {size}{asked}"

    @property
    def config(self) -> RunConfig | None:
        """The run's config; None unless a run was loaded."""
        return self.folder.config

    @property
    def record(self) -> RunRecord | None:
        """The run's record; None unless a run was loaded."""
        return self.folder.record

    @cached_property
    def tasks(self) -> list[str]:
        """The tasks of which the folder has a circuit."""
        folders = sorted((self.folder.path / CIRCUITS).glob("*"))
        return [folder.name for folder in folders if circuit_files(folder)]

    def circuit(self, task: str, target: float | None = None, kind: TargetKind = "absolute") -> Circuit:
        """Read the circuit of a task, at `target` nats or the run's main target; in an export, the lowest.

        With `kind` relative, `target` is what is added to the whole model's own loss.

        Raises:
            UserError: the run has no such circuit.
        """
        if target is not None and not isinstance(target, int | float):
            raise UserError(f"target: {target!r}: allowed: a loss in nats")
        if task not in self.tasks:
            there = ", ".join(self.tasks) or "none"
            raise UserError(f"{self.folder.path}: no circuit of {task!r}; there: {there}")
        circuits = map(load_circuit, circuit_files(self.folder.path / CIRCUITS / task))
        found = {circuit.asked: circuit for circuit in circuits if circuit.target_kind == kind}
        main = self.config.pruning.target if self.config is not None else min(found, default=0.15)
        wanted = main if target is None else target
        if wanted not in found:
            there = ", ".join(f"{value:g}" for value in found) or "none"
            more = " above the whole model's loss" * (kind == "relative")
            raise UserError(f"{task}: no circuit at {wanted:g} nats{more}; there: {there}")
        return found[wanted]

    def find_circuit(
        self,
        question: Question,
        finder: str | None = None,
        target: float | None = None,
        pruning: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Circuit:
        """Find the circuit that answers a task or pairs of your own.

        `finder` names a kind, with its `options`; the run's own finder, or learned masks, is the default.
        `target` is in nats, the run's own or 0.15 by default. A warning tells if the circuit misses it on
        the test pairs, which did not choose it. `pruning` gives other settings of the config group of this
        name, such as {"closed": False, "edges": "prune"}.

        Raises:
            UserError: the finder or the question is not allowed, the model has not learned to answer or needs
                no node for it, or no set of nodes meets the target.
        """
        settings, chosen = self._pruning(target, pruning or {}), self._finder(finder, options)
        asked = self.questions.ask(question)
        evaluator = make_evaluator(self.model, self.means, asked.data, chosen, settings)
        unpruned, _ = evaluator.unpruned()
        if why := unsearched(evaluator, unpruned, settings.target):
            raise UserError(f"{asked.task.name}: {why.status.replace('_', ' ')}: {why.reason}")
        found = find_circuits(evaluator, asked.task.name, str(self.folder.path), chosen, settings)
        for circuit in found.circuits:
            if (circuit.target, circuit.target_kind) == (settings.target, "absolute"):
                if circuit.test.selection_loss > circuit.target:
                    log.warning(
                        "%s: the circuit meets %g nats on %d selection pairs; on %d test pairs it has %.3f: "
                        "more pairs would choose better",
                        *(asked.task.name, circuit.target, len(asked.data.select.label_b) // 2),
                        *(len(asked.test_pairs), circuit.test.selection_loss),
                    )
                return circuit.model_copy(update={"model_hash": self.folder.model_hash})
        raise UserError(f"{asked.task.name}: no set of nodes reaches {settings.target:g} nats")

    def evaluate(self, circuit: AnyCircuit, pairs: Question | None = None) -> Scores:
        """Score a circuit, everything else frozen at its mean, on pairs or on its own task's test pairs.

        All edges between its nodes and all tokens count, also those that edge or token pruning dropped.

        Raises:
            UserError: the circuit is not of this model, or the pairs cannot be asked of it.
        """
        circuit = self._circuit(circuit)
        batch = self.questions.batch(circuit.task if pairs is None else pairs)
        kept_n = self.mask(circuit)
        data = TaskData(batch, batch, batch)
        evaluator = CircuitEvaluator(
            as_searched(self.model, circuit),
            self.questions.values(circuit, pairs),
            data,
            "raw",
            closed=circuit.closed,
        )
        return score(evaluator.logit_difference(kept_n, batch), batch.label_b, circuit.calibration)

    def evidence(self, circuit: AnyCircuit, question: Question | None = None, **options: Any) -> Evidence:
        """Make the checks for and against a circuit; `options` are those of the `evidence` config group.

        The controls repeat the run's own search, so they are left out for a circuit of another finder.

        Raises:
            UserError: the circuit is not of this model, an option or the question is not allowed, or the
                folder has no text.
        """
        circuit = self._circuit(circuit)
        self.mask(circuit)
        finder = self._finder(None, {})
        if circuit.provenance.get("method") != finder.label:
            options = {**options, "controls": False}
        searched = ("selection", "ablation", "tied_query_key", "starts", "exchanges")
        as_found = {key: circuit.provenance[key] for key in searched if key in circuit.provenance}
        asked = self.questions.ask(circuit.task if question is None else question)
        config = validate(EvidenceConfig, self._evidence_config().model_dump() | options, "evidence")
        return check_circuit(
            circuit=circuit,
            circuit_file="",
            model=self.model,
            means_n=self.questions.frozen(circuit, question),
            task=asked.task,
            data=asked.data,
            test_pairs=asked.test_pairs,
            shared_inputs=shared_inputs(self.model, self.folder.text, self.tokenizer, config),
            finder=finder,
            pruning=self._pruning(circuit.target, as_found | {"closed": circuit.closed}),
            config=config,
        )

    def show(
        self, circuit: AnyCircuit, question: Question | None = None, evidence: Evidence | None = None
    ) -> Page:
        """Draw a circuit as its page. A notebook shows it; `.save(path)` writes it as one HTML file.

        The page has the nodes' activations and effects if the folder has text (`docs/python.md`), and if the
        circuit does not need the whole model's run.

        Raises:
            UserError: the question is not allowed.
        """
        circuit = self._circuit(circuit)
        self.mask(circuit)
        asked = self.questions.ask(circuit.task if question is None else question)
        examples = None
        if self.folder.has_text and len(circuit.nodes) <= MAX_NODES and not circuit.needs_whole_run:
            text_bt = torch.cat(list(self.folder.text))
            text_bt = text_bt[: max(1, TEXT_TOKENS // text_bt.shape[1])]
            frozen_n = self.questions.frozen(circuit, question)
            examples = collect_examples(
                asked.task, self.model, frozen_n, [circuit], asked.data.test, text_bt, self.tokenizer
            )
        whole = None  # a calibrated loss is no measure for the whole model's raw one
        if circuit.provenance.get("selection") != "calibrated":
            whole = self.score(circuit.task if question is None else asked.test_pairs)
        about = {"name": self.folder.path.name, "sweep": None, "loss": None, "commit": None}
        weights, nonzeros = count_weights(self.model)
        view = make_view(
            task=circuit.task,
            about=about | {"weights": weights, "nonzeros": nonzeros},
            target=circuit.target,
            unpruned=whole,
            circuits=[circuit],
            examples=examples,
            evidence=evidence,
            d_head=self.model.config.d_head,
        )
        return Page(view, f"{circuit.task}, {len(circuit.nodes)} nodes, {len(circuit.edges)} edges")

    def _circuit(self, given: AnyCircuit) -> Circuit:
        """Return a circuit that is given as such, as the name of a task, or as the path of a file."""
        if isinstance(given, Circuit):
            return given
        if not isinstance(given, str | Path):
            raise UserError(
                f"circuit: {type(given).__name__}: allowed: a Circuit, a task's name, a file's path"
            )
        return self.circuit(str(given)) if str(given) in self.tasks else load_circuit(given)

    def _pruning(self, target: float | None, changes: Mapping[str, Any]) -> PruningConfig:
        own = PruningConfig() if self.config is None else self.config.pruning
        main = own.target if target is None else target
        values = own.model_dump(mode="json") | {"target": main, "targets": [main]}
        values |= {"relative_targets": []} | dict(changes)
        return validate(PruningConfig, values, "pruning")

    def _finder(self, kind: str | None, options: dict[str, Any]) -> FinderConfig:
        own = MasksConfig() if self.config is None else self.config.finder
        if kind is None or kind == own.kind:
            return validate(type(own), own.model_dump(mode="json") | options, "finder")
        kinds = {config.model_fields["kind"].default: config for config in FINDERS}
        if kind not in kinds:
            hint = f"; a target is given by name: target={kind!r}" if isinstance(kind, int | float) else ""
            raise UserError(f"finder: {kind!r}: allowed: {', '.join(kinds)}{hint}")
        return validate(kinds[kind], {"kind": kind, **options}, "finder")

    def _evidence_config(self) -> EvidenceConfig:
        return EvidenceConfig() if self.config is None else self.config.evidence
