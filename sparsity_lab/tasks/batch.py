"""Pairs of a task as rows of tokens, checked one by one, sampled, and answered by a model.

Tokenisation decides what can be asked (Gao et al. 2025, §A.7): `encode_pairs` checks every datapoint, and
refuses the task rather than ask something that the model has never seen.

Shape suffixes: b rows (2 x pairs), t tokens, p pairs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sparsity_lab.core.errors import UserError
from sparsity_lab.data.tokenizer import Tokenizer
from sparsity_lab.model.sites import Start, Tap
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.task import Pair, Task


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


class NotAskable(UserError):
    """Under this tokenizer the task can't be asked; `task` names it, `reason` says why."""

    def __init__(self, task: str, reason: str) -> None:
        super().__init__(f"task {task} is not askable under this tokenizer: {reason}")
        self.task = task
        self.reason = reason


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
        at = f"{pair.place}: " if pair.place else ""
        if not all(prompts):
            raise NotAskable(task.name, f"{at}a prompt is empty")
        answers.append(
            [
                _answer_id(task, tokenizer, prompt, ids, answer, at)
                for prompt, ids, answer in zip(
                    (pair.positive, pair.negative), prompts, pair.answers, strict=True
                )
            ]
        )
        if answers[-1][0] == answers[-1][1]:
            raise NotAskable(task.name, f"{at}both answers are {pair.answers[0]!r}")
        if task.same_last_token and prompts[0][-1] != prompts[1][-1]:
            ends = " and ".join(repr(tokenizer.token(ids[-1])) for ids in prompts)
            raise NotAskable(task.name, f"{at}the prompts of a pair end in different tokens, {ends}")
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


def _answer_id(task: Task, tokenizer: Tokenizer, prompt: str, ids: list[int], answer: str, at: str) -> int:
    together = tokenizer.encode(prompt + answer)
    if together[: len(ids)] != ids:
        raise NotAskable(
            task.name, f"{at}the answer {answer!r} merges with the end of its prompt, {prompt[-20:]!r}"
        )
    if len(together) != len(ids) + 1:
        pieces = [tokenizer.token(id) for id in together[len(ids) :]]
        raise NotAskable(task.name, f"{at}the answer {answer!r} is {len(pieces)} tokens, {pieces}")
    return together[-1]


def logit_difference(model: Transformer, batch: TaskBatch, tap: Tap | None = None, rows: int = 64) -> Tensor:
    """Logit of the pair's first answer minus that of the second at each prompt's end, (b)."""
    whole_pairs = bool(getattr(model, "whole_pairs", False))  # a model that compares a pair's two prompts
    return by_length(batch, rows, lambda part: logit_difference_at_end(model, part, tap), whole_pairs)


def by_length(
    batch: TaskBatch, rows: int, compute: Callable[[TaskBatch], Tensor], whole_pairs: bool = False
) -> Tensor:
    """What `compute` gives for all rows, (..., b), a part at a time and in the batch's own order.

    Rows of similar length are computed together, `rows` at a time, so that little is spent on padding.
    With `whole_pairs`, the two rows of a pair are computed together, and every part is a batch of pairs.
    """
    if whole_pairs:
        length_p = torch.stack(batch.last_b.chunk(2)).amax(0)
        pairs = length_p.argsort(stable=True).split(max(1, rows // 2))
        chunks = tuple(torch.cat([chunk_p, chunk_p + len(length_p)]) for chunk_p in pairs)
    else:
        chunks = batch.last_b.argsort(stable=True).split(rows)
    parts = [compute(without_padding(rows_of(batch, chunk))) for chunk in chunks]
    return torch.cat(parts, -1)[..., torch.cat(chunks).argsort()]


def logit_difference_at_end(
    model: Transformer, batch: TaskBatch, tap: Tap | None = None, start: Start | None = None
) -> Tensor:
    """`logit_difference` of rows that are computed together; `start`: as in the forward pass."""
    logits_b2 = model(batch.tokens_bt, tap, position_b=batch.last_b, start=start).gather(1, batch.answers_b2)
    return logits_b2[:, 0] - logits_b2[:, 1]


class PairSampler:
    """Draws whole pairs at random, those of one draw of similar length: every pair once, then all again."""

    def __init__(self, batch: TaskBatch, pairs: int, generator: torch.Generator) -> None:
        self.batch, self.generator = batch, generator
        length_p = torch.stack(batch.last_b.chunk(2)).amax(0)
        self.buckets = length_p.argsort(stable=True).split(pairs * 8)
        self.pairs = pairs
        self.queue: list[Tensor] = []

    def draw(self) -> TaskBatch:
        """The next pairs, as 2 · pairs rows."""
        if not self.queue:
            for bucket_p in self.buckets:
                shuffled_p = bucket_p[torch.randperm(len(bucket_p), generator=self.generator)]
                self.queue += list(shuffled_p.split(self.pairs))
            order = torch.randperm(len(self.queue), generator=self.generator).tolist()
            self.queue = [self.queue[index] for index in order]
        first_p = self.queue.pop()
        return rows_of(self.batch, torch.cat([first_p, first_p + len(self.batch.label_b) // 2]))


def rows_of(batch: TaskBatch, rows_b: Tensor) -> TaskBatch:
    """Some rows of a batch."""
    return TaskBatch(
        batch.tokens_bt[rows_b], batch.last_b[rows_b], batch.answers_b2[rows_b], batch.label_b[rows_b]
    )


def without_padding(batch: TaskBatch) -> TaskBatch:
    """The batch without the columns that are padding in every row."""
    return replace(batch, tokens_bt=batch.tokens_bt[:, : int(batch.last_b.max()) + 1])


def first_pairs(batch: TaskBatch, pairs: int) -> TaskBatch:
    """The first `pairs` pairs of a batch, or all if they are fewer."""
    half = len(batch.label_b) // 2
    first_p = torch.arange(min(pairs, half))
    return rows_of(batch, torch.cat([first_p, first_p + half]))
