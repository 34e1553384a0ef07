"""The same search where there is nothing to explain: the strongest objection to a finder, tested.

- weights: the entries of every weight tensor in random places, so that their number and scale stay;
- answers: the two answers replaced by two random tokens;
- labels: which prompt of a pair is the positive one is decided by a coin.

If the search finds circuits for these as small as the real one, the real one shows nothing. Where the raw
loss selects, learned masks that are no better than chance after an eighth of the steps, or whose loss is
still above `GIVE_UP` after a quarter, are given up as failed. Under the calibrated loss such masks may still
give a circuit, so they are all trained to the end.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from sparsity_lab.circuits.config import PruningConfig
from sparsity_lab.circuits.evaluator import TaskData
from sparsity_lab.circuits.finders import FinderConfig
from sparsity_lab.circuits.search import find_circuits, make_evaluator
from sparsity_lab.core.hashing import derive_seed
from sparsity_lab.evidence.circuit_under_test import CHANCE_LOSS, count
from sparsity_lab.evidence.record import Check, Verdict
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import TaskBatch

MIN_CONTROL_RATIO = 4  # as many times the real circuit's edges a control must need
GIVE_UP = CHANCE_LOSS / 2


@torch.no_grad()
def shuffled_weights(model: Transformer, seed: int) -> Transformer:
    """`model` with the entries of every weight matrix, bias and embedding in random places."""
    shuffled = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(derive_seed(seed, "control weights"))
    for weight, _ in shuffled.sparse_weights().values():
        order = torch.randperm(weight.numel(), generator=generator)
        weight.copy_(weight.flatten()[order].view_as(weight))
    return shuffled


def random_answers(data: TaskData, vocab_size: int, seed: int) -> TaskData:
    """The task with two random tokens for answers, the same for all pairs."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "control answers"))
    ids_2 = torch.randperm(vocab_size, generator=generator)[:2]

    def change(batch: TaskBatch) -> TaskBatch:
        return replace(batch, answers_b2=ids_2.expand(len(batch.label_b), 2))

    return TaskData(change(data.train), change(data.select), change(data.test))


def shuffled_labels(data: TaskData, seed: int) -> TaskData:
    """The task with the roles of a pair's two prompts exchanged in half of the pairs, at random."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "control labels"))

    def change(batch: TaskBatch) -> TaskBatch:
        swapped_p = torch.rand(len(batch.label_b) // 2, generator=generator) < 0.5
        rows_p = torch.arange(len(swapped_p))
        first_p = torch.where(swapped_p, rows_p + len(rows_p), rows_p)
        rows_b = torch.cat([first_p, (first_p + len(rows_p)) % len(batch.label_b)])
        return replace(batch, tokens_bt=batch.tokens_bt[rows_b], last_b=batch.last_b[rows_b])

    return TaskData(change(data.train), change(data.select), change(data.test))


def controlled(
    model: Transformer, means_n: Tensor, shuffled: tuple[Transformer, Tensor], data: TaskData, seed: int
) -> Iterator[tuple[str, Transformer, Tensor, TaskData]]:
    """Name, model, means and pairs of each control; `shuffled`: the shuffled model and its means."""
    yield "random weights", *shuffled, data
    yield "random answers", model, means_n, random_answers(data, model.vocab_size, seed)
    yield "shuffled labels", model, means_n, shuffled_labels(data, seed)


def controls(
    model: Transformer,
    means_n: Tensor,
    shuffled: tuple[Transformer, Tensor],
    data: TaskData,
    finder: FinderConfig,
    pruning: PruningConfig,
    edges: int,
    seed: int,
) -> Check:
    """Edges that the controls need, against the `edges` of the real circuit at the main target."""
    verdict: Verdict
    once = pruning.model_copy(
        update={"targets": (pruning.target,), "relative_targets": (), "edges": "all", "tokens": "all"}
        | {"retries": 0}
    )
    finder = finder.for_controls(GIVE_UP if pruning.selection == "raw" else None)
    values, ratios = [count("edges of the circuit", edges, "edges")], {}
    for name, other, its_means_n, its_data in controlled(model, means_n, shuffled, data, seed):
        evaluator = make_evaluator(other, its_means_n, its_data, finder, once)
        found = find_circuits(evaluator, name, "control", finder, once).circuits
        if found:
            values.append(count(f"edges with {name}", len(found[0].edges), "edges"))
            ratios[name] = max(1, len(found[0].edges)) / max(1, edges)
    failed = 3 - len(ratios)
    values.append(count("controls without any circuit", failed, "controls"))
    if ratios:
        values.append(count("least ratio of a control's edges to these", min(ratios.values()), "times"))
    small = sorted(name for name, ratio in ratios.items() if ratio < MIN_CONTROL_RATIO)
    if not ratios:
        verdict, sentence = "for", "The same search finds nothing where there is nothing to find."
    elif not small:
        verdict = "for"
        times = min(ratios.values())
        sentence = f"Where there is nothing to find the search needs at least {times:.0f} times the edges."
    elif min(ratios.values()) > 1:
        verdict = "mixed"
        sentence = (
            f"The search finds a circuit of only {min(ratios.values()):.1f} times the edges "
            f"with {' and '.join(small)} too."
        )
    else:
        verdict = "against"
        sentence = f"The search finds a circuit no larger with {' and '.join(small)}: this one shows little."
    return Check(name="controls", verdict=verdict, values=tuple(values), sentence=sentence)
