"""Does the circuit answer the same question in other contexts?

The task's own test pairs are asked again after lines of real source instead of the grammar's, after a longer
context, and with identifiers that the tasks never use. Such a pair is asked only if the tokenizer allows it.
"""

import builtins
import keyword
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch

from sparsity_lab.circuits.difference import circuit_difference
from sparsity_lab.circuits.evaluator import score
from sparsity_lab.core.hashing import derive_seed
from sparsity_lab.data.python.lexicon import ACCUMULATORS, COLLECTIONS, FUNCTIONS, NAMES
from sparsity_lab.data.python.lines import plain_lines
from sparsity_lab.data.python.pen import Pen
from sparsity_lab.data.tokenizer import Tokenizer
from sparsity_lab.evidence.circuit_under_test import CircuitUnderTest, nats, rule
from sparsity_lab.evidence.record import Check, Measured, Verdict
from sparsity_lab.tasks.batch import NotAskable, TaskBatch, encode_pairs, logit_difference
from sparsity_lab.tasks.task import Pair, Task

FEWEST = 8  # pairs, below which nothing is said
_WORD = re.compile(r"[A-Za-z_]+")


def generalisation(
    subject: CircuitUnderTest,
    task: Task,
    pairs: Sequence[Pair],
    tokenizer: Tokenizer,
    real_lines: Sequence[str],
    seed: int,
) -> Check:
    """Selection loss of the circuit, and the whole model's loss, on each kind of changed prompt.

    `real_lines`: short pieces of real source, whole lines. The calibration stays the circuit's own.
    """
    verdict: Verdict
    rng = random.Random(derive_seed(seed, "generalisation", task.name))
    renaming = other_identifiers(tokenizer, rng)
    changes: dict[str, Callable[[str], str]] = {"other identifiers": lambda text: rename(text, renaming)}
    kinds = {kind: [rewrite(pair, change) for pair in pairs] for kind, change in changes.items()}
    kinds["a longer context"] = [put_before(pair, plain_lines(Pen(rng), "", 6, 10)) for pair in pairs]
    if real_lines:
        kinds["real source before it"] = [put_before(pair, rng.choice(real_lines)) for pair in pairs]
    values: list[Measured] = []
    held, lost = list[str](), list[str]()
    for kind, changed in kinds.items():
        batch = askable(task, changed, tokenizer, subject.model.config.n_ctx)
        if batch is None:
            continue
        whole, alone = losses(subject, batch)
        values += [nats(f"circuit, {kind}", alone), nats(f"whole model, {kind}", whole)]
        if whole <= subject.limit:
            (held if alone <= subject.limit_beside(whole) else lost).append(kind)
    if not held and not lost:
        why = "the whole model does not answer there either" if values else "the tokenizer doesn't allow it"
        return Check(
            name="generalisation",
            verdict="not_measured",
            values=tuple(values),
            sentence=f"Prompts of other kinds say nothing of the circuit: {why}.",
        )
    if not lost:
        verdict, sentence = "for", f"It answers in other surroundings too: {', '.join(held)}."
    elif held:
        verdict = "mixed"
        sentence = f"It answers as well with {', '.join(held)}, not with {', '.join(lost)}."
    else:
        verdict = "against"
        sentence = f"It does not answer as well with {', '.join(lost)}; the whole model does."
    conditions = rule(
        f"on each kind of prompt that the whole model answers (at most {subject.limit:.3f} nats), the "
        f"circuit's loss is at most {subject.margin:.3g} nats above the target, or above the whole model's "
        "loss there if that is larger",
        "on some of these kinds",
        "on none",
    )
    return Check(
        name="generalisation", verdict=verdict, values=tuple(values), sentence=sentence, rule=conditions
    )


@torch.no_grad()
def losses(subject: CircuitUnderTest, batch: TaskBatch) -> tuple[float, float]:
    """Raw loss of the whole model and selection loss of the circuit on `batch`."""
    whole_b = logit_difference(subject.model, batch)
    circuit_b = circuit_difference(
        subject.model, subject.kept_n, subject.means_n, batch, compacted=subject.narrow
    )
    calibration = subject.circuit.calibration
    return (
        score(whole_b, batch.label_b, calibration).raw_loss,
        score(circuit_b, batch.label_b, calibration).selection_loss,
    )


def askable(task: Task, pairs: Iterable[Pair], tokenizer: Tokenizer, longest: int) -> TaskBatch | None:
    """The pairs that the tokenizer allows and `longest` tokens hold, encoded; None if they are too few."""
    fine = []
    for pair in pairs:
        try:
            if encode_pairs(task, [pair], tokenizer).tokens_bt.shape[1] <= longest:
                fine.append(pair)
        except NotAskable:
            continue
    return encode_pairs(task, fine, tokenizer) if len(fine) >= FEWEST else None


def put_before(pair: Pair, lines: str) -> Pair:
    """The pair after further lines."""
    return rewrite(pair, lambda prompt: lines + prompt, answers=False)


def rewrite(pair: Pair, change: Callable[[str], str], answers: bool = True) -> Pair:
    """The pair with its prompts, and its answers where they hold words, changed."""
    first, second = pair.answers
    return replace(
        pair,
        positive=change(pair.positive),
        negative=change(pair.negative),
        answers=(change(first), change(second)) if answers else pair.answers,
    )


def rename(text: str, renaming: dict[str, str]) -> str:
    """`text` with whole words replaced."""
    return _WORD.sub(lambda word: renaming.get(word[0], word[0]), text)


def other_identifiers(tokenizer: Tokenizer, rng: random.Random) -> dict[str, str]:
    """For each name and function of the lexicon another one, a single token after a space."""
    known = {*NAMES, *COLLECTIONS, *ACCUMULATORS, *FUNCTIONS}
    words = sorted(
        {
            word
            for id in range(tokenizer.vocab_size)
            if (word := tokenizer.token(id)).isascii() and word.isalpha() and word.islower() and len(word) > 3
        }
    )
    single = [
        word
        for word in words
        if word not in known
        and not keyword.iskeyword(word)
        and not hasattr(builtins, word)
        and len(tokenizer.encode(f" {word}")) == 1
    ]
    if not single:
        return {}
    return {name: rng.choice(single) for name in sorted(known)}
