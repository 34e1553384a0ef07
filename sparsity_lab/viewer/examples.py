"""Collect examples for a task's circuits: activations, effects of single nodes, and attention patterns.

1. The whole model runs on test prompts and on pretraining text. The values of all circuits' kept nodes are
   recorded, together with the texts that have the highest and lowest values.
2. Each circuit runs on the same prompts, and again with each of its nodes ablated in turn.
3. The weights around the nodes are collected (`node_weights.py`).

Shape suffixes: b rows, t tokens, n kept nodes, h heads, k d_head, q a query's position.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sparsity_lab.circuits.circuit import Circuit
from sparsity_lab.circuits.closing import close
from sparsity_lab.circuits.compaction import compact
from sparsity_lab.circuits.evaluator import score
from sparsity_lab.circuits.leave_one_out import differences_without_each
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.data.tokenizer import Tokenizer
from sparsity_lab.model.sites import HEAD_SITES, Site, Tap
from sparsity_lab.model.taps import Record, ablate, chain, on_nodes
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import TaskBatch, first_pairs, logit_difference, rows_of
from sparsity_lab.tasks.task import Task
from sparsity_lab.viewer.examples_record import (
    CircuitExamples,
    Examples,
    Excerpt,
    Head,
    NodeExamples,
    NodeInCircuit,
    Prompt,
    digits,
)
from sparsity_lab.viewer.node_weights import (
    connections,
    deciding_tokens,
    embedded,
    residual_channels,
    unembedded,
)

PAIRS = 32  # test pairs on which nodes are recorded
DROPPED_PAIRS = 4  # pairs on which a circuit runs without each of its nodes
SHOWN_PAIRS = 2  # the shortest pairs, shown token by token
BEFORE, AFTER = 16, 7  # tokens of an excerpt before and after its extreme
EXCERPTS = 3  # per node and extreme
TOKENS = 6  # most common deciding tokens whose embeddings are shown
MAX_DROPPED = 64  # larger circuits skip leave-one-out ablation


@torch.no_grad()
def collect_examples(
    task: Task,
    model: Transformer,
    means_n: Tensor,
    circuits: Sequence[Circuit],
    test: TaskBatch,
    windows_bt: Tensor,
    tokenizer: Tokenizer,
) -> Examples:
    """Collect the page data for one or more circuits of one task; `windows_bt` is pretraining text."""
    layout, texts = NodeLayout(model.config), _Texts(tokenizer)
    batch = first_pairs(test, PAIRS)
    shown = rows_of(batch, _shortest_pairs(batch, SHOWN_PAIRS))
    kept_n = layout.mask({node for circuit in circuits for node in circuit.nodes})
    on_task, on_text = _Recording(layout, kept_n), _Recording(layout, kept_n)
    on_shown = _Recording(layout, kept_n, patterns=True)
    model(batch.tokens_bt, on_task.tap)
    model(windows_bt, on_text.tap)
    shown_b2 = _answer_logits(model, shown, on_shown.tap)
    prompts = [_row(batch, b) for b in range(len(batch.last_b))]
    extremes = [
        texts.extremes(on_task.values_btn, prompts),
        texts.extremes(on_text.values_btn, list(windows_bt)),
    ]
    wires = connections(model, kept_n)
    channels = residual_channels(model, kept_n)
    tokens = deciding_tokens(batch, tokenizer.end_of_text)[:TOKENS]
    first, second = (unembedded(model, token, channels, tokenizer) for token in shown.answers_b2[0].tolist())
    return Examples(
        task=task.name,
        description="; ".join(text for text in (task.description, task.caveats) if text),
        model=circuits[0].model,
        d_head=model.config.d_head,
        prompts=tuple(
            Prompt(
                text=texts.row(_row(shown, b)),
                answers=(
                    tokenizer.token(int(shown.answers_b2[b, 0])),
                    tokenizer.token(int(shown.answers_b2[b, 1])),
                ),
                right=int(shown.label_b[b]),
                logits=_both(shown_b2[b]),
            )
            for b in range(len(shown.last_b))
        ),
        nodes=tuple(
            NodeExamples(
                node=node,
                mean=digits(mean),
                inputs=wires[node][0],
                outputs=wires[node][1],
                task_highest=of_task[0],
                task_lowest=of_task[1],
                text_highest=of_text[0],
                text_lowest=of_text[1],
            )
            for node, mean, of_task, of_text in zip(
                layout.nodes(kept_n), means_n[kept_n].tolist(), *extremes, strict=True
            )
        ),
        heads=_heads(model, on_shown, kept_n, shown),
        circuits=tuple(_in_circuit(model, means_n, circuit, batch, shown) for circuit in circuits),
        tokens=tuple(embedded(model, token, channels, tokenizer) for token in tokens),
        answers=(first, second),
        same_answers=bool((batch.answers_b2 == shown.answers_b2[0]).all()),
        vocabulary=tuple(texts.vocabulary),
        texts=tuple(texts.rows),
    )


def _in_circuit(
    model: Transformer, means_n: Tensor, circuit: Circuit, batch: TaskBatch, shown: TaskBatch
) -> CircuitExamples:
    layout = NodeLayout(model.config)
    kept_n = layout.mask(circuit.nodes)
    alone = close(model, kept_n) if circuit.closed else model
    narrow = compact(alone, kept_n, means_n)
    frozen = ablate(layout, kept_n, means_n)
    on_batch = _Recording(layout, kept_n, frozen)
    on_shown = _Recording(layout, kept_n, frozen, patterns=True)
    alone(batch.tokens_bt, on_batch.tap)
    logits_b2 = _answer_logits(alone, shown, on_shown.tap)
    ends_bn = on_batch.values_btn[torch.arange(len(batch.last_b)), batch.last_b]
    at_end = [ends_bn[batch.label_b == label].mean(0).tolist() for label in (0, 1)]
    values_btn = on_shown.values_btn

    few = first_pairs(batch, DROPPED_PAIRS)

    def loss(logit_diff_b: Tensor) -> float:
        return score(logit_diff_b, few.label_b, circuit.calibration).selection_loss

    effects: list[float | None] = [None] * len(circuit.nodes)
    if len(effects) <= MAX_DROPPED:
        whole = loss(logit_difference(narrow, few, frozen))
        without_kb = differences_without_each(model, kept_n, means_n, few, circuit.closed)
        effects = [digits(loss(without_b) - whole) for without_b in without_kb]
    by_node = {
        node: NodeInCircuit(
            effect=effects[i],
            at_end=(digits(at_end[0][i]), digits(at_end[1][i])),
            values=tuple(_rounded(values_btn[b, : last + 1, i]) for b, last in enumerate(shown.last_b)),
        )
        for i, node in enumerate(layout.nodes(kept_n))
    }
    return CircuitExamples(
        target=circuit.target,
        nodes=tuple(by_node[node] for node in circuit.nodes),
        heads=_heads(model, on_shown, kept_n, shown),
        logits=tuple(_both(row) for row in logits_b2),
    )


class _Recording:
    """Records the kept nodes' values and the attention patterns of a forward pass, after the tap `inner`."""

    def __init__(
        self, layout: NodeLayout, kept_n: Tensor, inner: Tap | None = None, patterns: bool = False
    ) -> None:
        self.kept_n = kept_n
        self.parts: dict[int, Tensor] = {}  # by start index in the layout's order
        self.patterns = Record({Site.ATTN_PATTERN})
        self.tap = chain(inner, on_nodes(layout, self._keep), self.patterns if patterns else None)

    def _keep(self, x_btc: Tensor, place: slice) -> Tensor:
        self.parts[place.start] = x_btc[..., self.kept_n[place]].float()
        return x_btc

    @property
    def values_btn(self) -> Tensor:
        """The kept nodes' values, in the layout's order."""
        return torch.cat([self.parts[start] for start in sorted(self.parts)], -1)


@dataclass
class _Texts:
    """Deduplicated rows of tokens, stored as indices into a vocabulary of strings."""

    tokenizer: Tokenizer
    vocabulary: dict[str, int] = field(default_factory=dict)
    rows: dict[tuple[int, ...], int] = field(default_factory=dict)

    def row(self, tokens_t: Tensor) -> int:
        """Return the index of the row with these tokens; adds the row if it is new."""
        strings = [self.tokenizer.token(token) for token in tokens_t.tolist()]
        row = tuple(self.vocabulary.setdefault(token, len(self.vocabulary)) for token in strings)
        return self.rows.setdefault(row, len(self.rows))

    def extremes(
        self, values_btn: Tensor, rows: list[Tensor]
    ) -> list[tuple[tuple[Excerpt, ...], tuple[Excerpt, ...]]]:
        """Return, for each node, excerpts of the rows where it is highest and where it is lowest."""
        inside_bt = torch.zeros(values_btn.shape[:2], dtype=torch.bool)
        for b, row in enumerate(rows):
            inside_bt[b, : len(row)] = True
        sides = []
        for sign in (1, -1):
            signed_btn = torch.where(inside_bt[..., None], sign * values_btn, float("-inf"))
            peak_bn, at_bn = signed_btn.max(1)
            order_bn = peak_bn.argsort(dim=0, descending=True, stable=True)[:EXCERPTS]
            sides.append(
                [
                    tuple(
                        self._excerpt(rows[b], values_btn[b, :, n], int(at_bn[b, n]))
                        for b in order_bn[:, n].tolist()
                        if peak_bn[b, n] != 0
                    )
                    for n in range(values_btn.shape[-1])
                ]
            )
        return list(zip(*sides, strict=True))

    def _excerpt(self, tokens_t: Tensor, value_t: Tensor, at: int) -> Excerpt:
        start, stop = max(0, at - BEFORE), min(len(tokens_t), at + AFTER + 1)
        return Excerpt(text=self.row(tokens_t[start:stop]), values=_rounded(value_t[start:stop]))


def _heads(model: Transformer, recording: _Recording, kept_n: Tensor, shown: TaskBatch) -> tuple[Head, ...]:
    """Return the attention patterns, on each prompt, of all heads with a kept channel."""
    slices, d_head, heads = NodeLayout(model.config).slices, model.config.d_head, []
    for layer in range(model.config.n_layer):
        pattern_bhqt = recording.patterns.values[Site.ATTN_PATTERN, layer]
        kept_h = torch.stack([kept_n[slices[site, layer]].unflatten(0, (-1, d_head)) for site in HEAD_SITES])
        for head in kept_h.any(-1).any(0).nonzero().flatten().tolist():
            patterns = tuple(
                tuple(
                    tuple(round(p, 3) for p in pattern_bhqt[b, head, q, : q + 1].tolist())
                    for q in range(int(last) + 1)
                )
                for b, last in enumerate(shown.last_b)
            )
            heads.append(Head(layer=layer, head=head, patterns=patterns))
    return tuple(heads)


def _shortest_pairs(batch: TaskBatch, pairs: int) -> Tensor:
    """Return the rows of the shortest pairs: positive, negative, positive, ..."""
    half = len(batch.label_b) // 2
    length_p = torch.maximum(batch.last_b[:half], batch.last_b[half:])
    first_p = length_p.argsort(stable=True)[:pairs]
    return torch.stack([first_p, first_p + half], 1).flatten()


def _row(batch: TaskBatch, b: int) -> Tensor:
    """Return a prompt's tokens without padding."""
    return batch.tokens_bt[b, : int(batch.last_b[b]) + 1]


def _answer_logits(model: Transformer, batch: TaskBatch, tap: Tap) -> Tensor:
    """Return both answers' logits at each prompt's end; the tap sees every position."""
    rows_b = torch.arange(len(batch.last_b))
    return model(batch.tokens_bt, tap)[rows_b, batch.last_b].gather(1, batch.answers_b2)


def _both(logits_2: Tensor) -> tuple[float, float]:
    return digits(logits_2[0].item()), digits(logits_2[1].item())


def _rounded(values_t: Tensor) -> tuple[float, ...]:
    return tuple(digits(value) for value in values_t.tolist())
