"""The pairs that a circuit or ranking from a file is scored on: those beside it, or a file of the user's."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparsity_lab.circuits.circuit import Circuit
from sparsity_lab.circuits.standalone import PAIRS_AS_TEXT, beside, load_pairs
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.hashing import derive_seed
from sparsity_lab.stages.opened import Folder
from sparsity_lab.tasks.batch import TaskBatch, encode_pairs
from sparsity_lab.tasks.fixed_pairs import task_of_pairs
from sparsity_lab.tasks.pairs_file import PairInFile, read_pairs
from sparsity_lab.tasks.task import Pair


@dataclass(frozen=True)
class Question:
    """The pairs that a circuit is asked, encoded.

    `scored`: those that a circuit's losses are measured on. `select` chooses among the sizes of a ranking and
    trains what a check trains; `test`, which shares no pair with it, scores both. `texts` are the test pairs
    as text; empty if unknown. `note`: how pairs without a split were divided.
    """

    scored: TaskBatch
    select: TaskBatch
    test: TaskBatch
    texts: tuple[Pair, ...]
    note: str = ""


def question_beside(circuit: Circuit, path: Path, opened: Folder) -> Question | None:
    """Read the pairs beside the circuit in the file at `path`; None if it names none.

    Raises:
        UserError: a file is damaged, or lacks the test pairs.
    """
    found = beside(circuit, path, "pairs")
    if found is None:
        return None
    batches = load_pairs(found, opened.model.vocab_size)
    if "test" not in batches:
        raise UserError(f"{found}: missing: test.tokens")
    texts = found.with_name(PAIRS_AS_TEXT)
    listed = read_pairs(texts) if texts.exists() else []
    test = batches["test"]
    return Question(test, batches.get("select", test), test, tuple(map(_pair, _of(listed, "test"))))


def question_in(path: Path, circuit: Circuit | None, opened: Folder) -> Question:
    """Read the pairs of a user's file; of several tasks, those of the circuit's.

    The pairs marked "test" are scored, and those marked "select", or else "train", choose and train. A file
    without such other pairs is divided at random into two halves. Nothing is chosen for a circuit, so its
    losses are measured on both halves.

    Raises:
        UserError: the file cannot be read, has no pairs of the circuit's task or none to test, or some with
            and some without a split; or the model's tokenizer is missing or does not allow a pair.
    """
    key, listed, tokenizer = f"--pairs {path}", read_pairs(path), opened.tokenizer
    names = sorted({pair.name or path.stem for pair in listed})
    if len(names) > 1:
        wanted = None if circuit is None else circuit.task
        if wanted not in names:
            raise UserError(f"{key}: tasks {', '.join(names)}; allowed: one, or the circuit's")
        listed = [pair for pair in listed if (pair.name or path.stem) == wanted]
    if tokenizer is None:
        raise UserError(f"{key}: {opened.path} has no tokenizer")
    has_splits = any(pair.split for pair in listed)
    if has_splits and not all(pair.split for pair in listed):
        raise UserError(f"{key}: allowed: a split in every line of a task, or in none")
    scored = _of(listed, "test") if has_splits else listed
    if not scored:
        raise UserError(f"{key}: no pair has the split 'test'")
    select, test, note = _of(listed, "select") or _of(listed, "train"), scored, ""
    if not select:
        select, test, note = _halves(scored)
    task = task_of_pairs(path.stem, [(_pair(pair), None) for pair in listed], same_last_token=False)
    asked, chosen_on, tested = (
        encode_pairs(task, [_pair(pair) for pair in part], tokenizer) for part in (scored, select, test)
    )
    return Question(asked, chosen_on, tested, tuple(map(_pair, test)), note)


def _of(listed: Sequence[PairInFile], split: str) -> list[PairInFile]:
    return [pair for pair in listed if pair.split == split]


def _pair(line: PairInFile) -> Pair:
    return Pair(line.positive, line.negative, line.answers)


def _halves(listed: Sequence[PairInFile]) -> tuple[list[PairInFile], list[PairInFile], str]:
    """Divide pairs at random, always alike, into those that choose and train and those that test."""
    pairs = list(listed)
    if len(pairs) == 1:
        return pairs, pairs, "there is one pair: it chooses a ranking's size, trains checks, and is scored"
    random.Random(derive_seed(0, "halves of scored pairs")).shuffle(pairs)
    half = len(pairs) // 2
    return (
        pairs[:half],
        pairs[half:],
        f"the pairs are not split into select and test: {half} chosen at random choose a ranking's size and "
        f"train checks; the other {len(pairs) - half} score them",
    )
