"""The same search where there is nothing to explain: the strongest objection to a finder, tested.

- weights: the entries of every weight tensor in random places, so that their number and scale stay;
- answers: the two answers replaced by two random tokens;
- labels: which prompt of a pair is the positive one is decided by a coin.

If the search finds circuits for these as small as the real one, the real one shows nothing. Each control may
take as many tries as the real search took: its starts, and its further searches after one that may have
failed.

Where the raw loss selects, a try of mask learning is given up as failed if its loss is still above `GIVE_UP`
after a quarter of the steps, or above twice that, which is chance, after an eighth. Neither limit is ever
below what meets the target. Under the calibrated loss masks that are no better may still give a circuit, so
they are all trained to the end.
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
from sparsity_lab.evidence.circuit_under_test import CHANCE_LOSS, CircuitUnderTest, count, rule
from sparsity_lab.evidence.record import Check, Verdict
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import TaskBatch

MIN_CONTROL_RATIO = 4  # as many times the real circuit's edges a control must need
GIVE_UP = CHANCE_LOSS / 2  # nats; the circuit's `limit` if that is larger


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
    subject: CircuitUnderTest,
    shuffled: tuple[Transformer, Tensor],
    data: TaskData,
    finder: FinderConfig,
    pruning: PruningConfig,
    seed: int,
) -> Check:
    """Edges that the controls need at the circuit's target, against the circuit's own.

    `finder` and `pruning` are those of the circuit's search; `shuffled`: the shuffled model and its means.
    """
    verdict: Verdict
    edges = len(subject.circuit.edges)
    retries = int(subject.circuit.provenance.get("retries") or 0)
    alike = pruning.model_copy(
        update={"targets": (pruning.target,), "relative_targets": (), "edges": "all", "tokens": "all"}
        | {"retries": retries}
    )
    give_up = max(GIVE_UP, subject.limit) if pruning.selection == "raw" else None
    finder = finder.for_controls(give_up)
    values, ratios, without = [count("edges of the circuit", edges, "edges")], dict[str, float](), list[str]()
    for name, other, its_means_n, its_data in controlled(
        subject.model, subject.means_n, shuffled, data, seed
    ):
        evaluator = make_evaluator(other, its_means_n, its_data, finder, alike)
        found = find_circuits(evaluator, name, "control", finder, alike)
        if found.circuits:
            size = len(found.circuits[0].edges)
            values.append(count(f"edges with {name}", size, "edges"))
            ratios[name] = max(1, size) / max(1, edges)
        else:
            without.append(name)
        values.append(count(f"tries with {name}", pruning.starts + found.retries, "tries"))
    values.append(count("controls without any circuit", len(without), "controls"))
    if ratios:
        values.append(count("least ratio of a control's edges to these", min(ratios.values()), "times"))
    if not ratios or min(ratios.values()) >= MIN_CONTROL_RATIO:
        verdict = "for"
    else:
        verdict = "mixed" if min(ratios.values()) > 1 else "against"
    told = [f"no circuit with {' and '.join(without)}"] if without else []
    told += [f"one of {ratio:.1f} times the edges with {name}" for name, ratio in ratios.items()]
    most = pruning.starts + retries
    tries = "1 try" if most == 1 else f"up to {most} tries"
    conditions = rule(
        f"in each control no circuit, or one of at least {MIN_CONTROL_RATIO} times the edges",
        "the smallest has more edges than the circuit, but not that many",
        "one has no more edges than the circuit",
    )
    return Check(
        name="controls",
        verdict=verdict,
        values=tuple(values),
        sentence=f"The same search, with {tries}, finds {', '.join(told)}.",
        rule=conditions,
    )
