"""A task: a binary choice of the next token, asked by pairs of prompts that differ only in what decides it.

(Gao et al. 2025, Table 1.) Whether a prompt belongs to training, selection or test of masks is read off
the prompt itself, and a pair is asked where both belong, so the three never overlap, whatever the seed.
Tokenisation decides what can be asked (§A.7): `encode_pairs` checks every datapoint, and refuses the task
rather than ask something that the model has never seen.

Shape suffixes: b rows (2 x pairs), t tokens.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from pydantic import Field, field_validator
from torch import Tensor

from sparsity_lab.core.base import Config, UserError, derive_seed
from sparsity_lab.data.tokenizer import Tokenizer

Split = Literal["train", "select", "test"]
_SHARES: tuple[Split, ...] = ("train", "train", "select", "test")
_ATTEMPTS = 64  # draws for each pair asked for; one in sixteen is a pair of a smaller split


@dataclass(frozen=True)
class Pair:
    """Two prompts that differ only in what decides the answer, and each one's right answer."""

    positive: str
    negative: str
    answers: tuple[str, str]


@dataclass(frozen=True)
class Task:
    """A question: `make` writes one pair. `caveat`: how the wording departs from Table 1."""

    name: str
    description: str
    make: Callable[[random.Random], Pair]
    caveat: str = ""


@dataclass(frozen=True)
class TaskBatch:
    """n pairs as 2n rows, the positives first, then the negatives in the same order.

    tokens_bt: int64, padded on the right with the end-of-text token (no position looks ahead).
    last_b: index of each prompt's last token.
    answers_b2: ids of the pair's two answers; column 0 is right for a positive row, 1 for a negative.
    label_b: the right column, 0 or 1.
    """

    tokens_bt: Tensor
    last_b: Tensor
    answers_b2: Tensor
    label_b: Tensor


class TasksConfig(Config):
    """Which tasks are asked, and how many pairs train the masks, select the circuit's size and test it."""

    names: Literal["all"] | tuple[str, ...] = "all"
    n_train_pairs: int = Field(default=2048, ge=1)
    n_select_pairs: int = Field(default=256, ge=1)
    n_test_pairs: int = Field(default=256, ge=1)
    seed: int = Field(default=0, ge=0)

    @field_validator("names")
    @classmethod
    def _known(cls, names: str | tuple[str, ...]) -> str | tuple[str, ...]:
        from sparsity_lab.tasks.python import TASKS  # the tasks import this module

        unknown = [name for name in names if name not in TASKS] if isinstance(names, tuple) else []
        if unknown or not names:
            raise ValueError(f"unknown or no task {unknown}; allowed: all, or some of {', '.join(TASKS)}")
        return names


class NotAskable(UserError):
    """Under this tokenizer the task can't be asked; `task` names it, `reason` says why."""

    def __init__(self, task: str, reason: str) -> None:
        super().__init__(f"task {task} is not askable under this tokenizer: {reason}")
        self.task = task
        self.reason = reason


def make_pairs(task: Task, split: Split, n: int, seed: int) -> list[Pair]:
    """The first n pairs of the split that the seed draws, no prompt twice.

    Raises:
        UserError: unknown split, or the generator does not have that many.
    """
    if split not in get_args(Split):
        raise UserError(f"split: {split!r}: allowed: {', '.join(get_args(Split))}")
    rng = random.Random(derive_seed(seed, "pairs", task.name, split))
    pairs: list[Pair] = []
    seen: set[str] = set()
    for pair in _draw(task, rng, _ATTEMPTS * n):
        if len(pairs) == n:
            break
        prompts = {pair.positive, pair.negative}
        if all(_split_of(prompt) == split for prompt in prompts) and not seen & prompts:
            pairs.append(pair)
            seen |= prompts
    if len(pairs) < n:
        raise UserError(f"task {task.name}: only {len(pairs)} different pairs for {split}, {n} wanted")
    return pairs


def _draw(task: Task, rng: random.Random, attempts: int) -> Iterator[Pair]:
    for _ in range(attempts + 1):
        yield task.make(rng)


def _split_of(prompt: str) -> Split:
    return _SHARES[derive_seed(0, prompt) % len(_SHARES)]


def encode_pairs(task: Task, pairs: Sequence[Pair], tokenizer: Tokenizer) -> TaskBatch:
    """Token ids of the pairs, each datapoint checked.

    Raises:
        NotAskable: an answer is not one token of its own after its prompt, both answers are the same token,
            or the prompts of a pair end in different tokens.
    """
    rows: tuple[list[list[int]], list[list[int]]] = ([], [])
    answers = []
    for pair in pairs:
        prompts = (tokenizer.encode(pair.positive), tokenizer.encode(pair.negative))
        answers.append(
            [
                _answer_id(task, tokenizer, prompt, ids, answer)
                for prompt, ids, answer in zip(
                    (pair.positive, pair.negative), prompts, pair.answers, strict=True
                )
            ]
        )
        if answers[-1][0] == answers[-1][1]:
            raise NotAskable(task.name, f"both answers are {pair.answers[0]!r}")
        if prompts[0][-1] != prompts[1][-1]:
            ends = " and ".join(repr(tokenizer.token(ids[-1])) for ids in prompts)
            raise NotAskable(task.name, f"the prompts of a pair end in different tokens, {ends}")
        for row, ids in zip(rows, prompts, strict=True):
            row.append(ids)
    both = rows[0] + rows[1]
    tokens_bt = torch.full((len(both), max(map(len, both), default=0)), tokenizer.end_of_text)
    for b, ids in enumerate(both):
        tokens_bt[b, : len(ids)] = torch.tensor(ids)
    return TaskBatch(
        tokens_bt=tokens_bt,
        last_b=torch.tensor([len(ids) - 1 for ids in both]),
        answers_b2=torch.tensor(answers + answers),
        label_b=torch.tensor([0, 1]).repeat_interleave(len(pairs)),
    )


def _answer_id(task: Task, tokenizer: Tokenizer, prompt: str, ids: list[int], answer: str) -> int:
    together = tokenizer.encode(prompt + answer)
    if together[: len(ids)] != ids:
        raise NotAskable(
            task.name, f"the answer {answer!r} merges with the end of its prompt, {prompt[-20:]!r}"
        )
    if len(together) != len(ids) + 1:
        pieces = [tokenizer.token(id) for id in together[len(ids) :]]
        raise NotAskable(task.name, f"the answer {answer!r} is {len(pieces)} tokens, {pieces}")
    return together[-1]
