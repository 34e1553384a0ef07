"""What a model is asked: a task by name, or pairs of your own, encoded by the model's tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, get_args

import torch
from torch import Tensor

from sparsity_lab.circuits.circuit import Circuit
from sparsity_lab.circuits.evaluator import TaskData
from sparsity_lab.circuits.frozen import frozen_values
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.circuits.standalone import MEANS, PAIRS, load_means, load_pairs
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.extension import file_hash
from sparsity_lab.core.run_folder import CIRCUITS
from sparsity_lab.data.tokenizer import Tokenizer
from sparsity_lab.stages.opened import Folder
from sparsity_lab.tasks.asked import asked_pairs
from sparsity_lab.tasks.batch import TaskBatch, encode_pairs
from sparsity_lab.tasks.config import TasksConfig
from sparsity_lab.tasks.drawing import make_pairs
from sparsity_lab.tasks.fixed_pairs import task_of_pairs
from sparsity_lab.tasks.pairs_file import LEAST
from sparsity_lab.tasks.task import Pair, Split, Task

OwnPair: TypeAlias = Pair | tuple[str, str, tuple[str, str]]
Question: TypeAlias = str | Task | Sequence[OwnPair]
"""A task's name, a task, or pairs: `Pair`s, or tuples (prompt, other prompt, (answer, other answer))."""
OWN = "own pairs"
BESIDE_WHOLE = "found beside the whole model's run (pruning.ablation=other_prompt or freeze_norm)"


@dataclass(frozen=True)
class Asked:
    """A question's task, its test pairs, and all its pairs encoded."""

    task: Task
    test_pairs: Sequence[Pair]
    data: TaskData


@dataclass(frozen=True)
class Questions:
    """Encodes questions for the model of a folder."""

    folder: Folder

    @property
    def config(self) -> TasksConfig:
        """The tasks that have names, and how many pairs each split has: the run's, or the defaults."""
        return TasksConfig() if self.folder.config is None else self.folder.config.tasks

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer.

        Raises:
            UserError: the folder has none.
        """
        if self.folder.tokenizer is None:
            raise UserError(f"{self.folder.path}: no tokenizer; give token ids, or load a run or an export")
        return self.folder.tokenizer

    def ask(self, question: Question) -> Asked:
        """Encode a question for finding a circuit.

        Your own pairs are divided at random: half train, a quarter select, a quarter test.

        Raises:
            UserError: there is no such task, the pairs are too few, or the tokenizer does not allow them.
        """
        task = self._task(question)
        pairs = {split: self._pairs(task, split) for split in get_args(Split)}
        batches = {split: encode_pairs(task, some, self.tokenizer) for split, some in pairs.items()}
        data = TaskData(train=batches["train"], select=batches["select"], test=batches["test"])
        for batch in batches.values():
            self._check_length(batch)
        return Asked(task, pairs["test"], data)

    def frozen(self, circuit: Circuit, question: Question | None = None) -> Tensor:
        """Return the values at which the nodes outside a circuit are frozen (n), as in its search.

        They lie beside a circuit of the opened folder. If another circuit was searched with the means over
        prompts, they are the means over those of `question`, or of its own task.

        Raises:
            UserError: the folder has no means, the circuit's task has no name here, or the circuit needs more
                than values: the whole model's run.
        """
        if circuit.needs_whole_run:
            raise UserError(f"{circuit.task}: a circuit {BESIDE_WHOLE}; allowed: evaluate, or show")
        return self.values(circuit, question)

    def values(self, circuit: Circuit, question: Question | None = None) -> Tensor:
        """Return the same values for any circuit, to be used with `as_searched`.

        Raises:
            UserError: the folder has no means, or the circuit's task has no name here.
        """
        beside = self.folder.path / CIRCUITS / circuit.task / MEANS
        if circuit.frozen and beside.exists() and file_hash(beside, "circuit") == circuit.frozen.sha256:
            return load_means(beside, self.folder.model.config)
        ablation: Any = circuit.provenance.get("ablation", "mean")
        if ablation == "other_prompt":
            return torch.zeros(NodeLayout(self.folder.model.config).size)
        if ablation == "mean":
            return self.folder.means_n
        asked = self.ask(circuit.task if question is None else question)
        return frozen_values(ablation, self.folder.model, self.folder.means_n, asked.data.train)

    def batch(self, question: Question) -> TaskBatch:
        """Encode a task's test pairs, or all of your own pairs.

        In an export, a task's test pairs are those that lie beside its circuits.

        Raises:
            UserError: there is no such task, or the tokenizer does not allow the pairs.
        """
        batch = self._batch(question)
        self._check_length(batch)
        return batch

    def _batch(self, question: Question) -> TaskBatch:
        if isinstance(question, str) and self.folder.config is None:
            stored = self.folder.path / CIRCUITS / question / PAIRS
            if stored.exists():
                return load_pairs(stored, self.folder.model.vocab_size)["test"]
        if isinstance(question, str | Task):
            task = self._task(question)
            return encode_pairs(task, self._pairs(task, "test"), self.tokenizer)
        return encode_pairs(own_task(question, least=1), _listed(question), self.tokenizer)

    def _check_length(self, batch: TaskBatch) -> None:
        longest, config = batch.tokens_bt.shape[1], self.folder.model.config
        if config.limits_length and longest > config.n_ctx:
            raise UserError(
                f"pairs: prompts of {longest} tokens: too long; this model's n_ctx is {config.n_ctx}"
            )

    def _task(self, question: Question) -> Task:
        if isinstance(question, Task):
            return question
        if not isinstance(question, str):
            pairs = _listed(question)
            if len(set(pairs)) < len(pairs):  # else a test pair may have trained the circuit
                again = next(pair for pair in pairs if pairs.count(pair) > 1)
                raise UserError(
                    f"pairs: {again.positive!r} and {again.negative!r} more than once; allowed: once"
                )
            return own_task(pairs)
        available = self.config.available()
        if question == OWN:
            raise UserError(
                f"{OWN}: the circuit was found for pairs of your own; give them: (circuit, pairs)"
            )
        if question not in available:
            raise UserError(f"task {question!r}: unknown; allowed: {', '.join(available)}, or pairs")
        return available[question]

    def _pairs(self, task: Task, split: Split) -> Sequence[Pair]:
        if self.config.available().get(task.name) is task:
            return asked_pairs(self.config, task.name, split)
        return make_pairs(task, split, self.config.n_pairs(split), self.config.seed)


def own_task(pairs: Sequence[OwnPair], least: int = LEAST) -> Task:
    """Make a task of a list of pairs.

    Raises:
        UserError: there are fewer than `least`, or one is not a pair.
    """
    listed = _listed(pairs)
    if len(listed) < least:
        raise UserError(f"pairs: {len(listed)}: at least {least} are needed")
    return task_of_pairs(OWN, [(pair, None) for pair in listed])


def _listed(question: Sequence[OwnPair]) -> list[Pair]:
    if not isinstance(question, Sequence) or (len(question) == 3 and isinstance(question[0], str)):
        raise UserError(f"pairs: {question!r}: allowed: a task's name, a task, or a list of pairs")
    return [_pair(pair) for pair in question]


def _pair(given: object) -> Pair:
    match given:
        case Pair():
            pair = given
        case (str(positive), str(negative), (str(first), str(second))):
            pair = Pair(positive, negative, (first, second))
        case _:
            allowed = "a Pair, or a tuple (prompt, other prompt, (answer, other answer))"
            raise UserError(f"pairs: {given!r}: allowed: {allowed}")
    for what, texts in (("prompts", (pair.positive, pair.negative)), ("answers", pair.answers)):
        if texts[0] == texts[1]:
            raise UserError(f"pairs: both {what} are {texts[0]!r}; allowed: two different {what}")
    return pair
