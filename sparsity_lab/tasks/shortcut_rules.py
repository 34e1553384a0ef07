"""The best rule that sorts prompts by one fact about their tokens and gives each sort its usual answer.

Shape suffixes: b prompts, t positions from the end, v tokens that occur in the training prompts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sparsity_lab.data.tokenizer import Tokenizer

MAX_PAIRED = 256  # most frequent tokens, which "occurs last among" compares two by two
ABSENT = 2**31 - 1
Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Prompts:
    """Prompts aligned at their ends.

    Column 0 of `tokens_bt` is the last token, and -1 fills short prompts. `label_b` is 0 where the first of
    the two answers is right, else 1. `match_bt` is 1 where a token spells the first answer, 2 where it spells
    the second, 0 elsewhere; spaces around a token are ignored.
    """

    tokens_bt: Array
    label_b: Array
    match_bt: Array

    @property
    def length_b(self) -> Array:
        """Number of tokens of each prompt."""
        return (self.tokens_bt >= 0).sum(1)


class Rule(NamedTuple):
    """A rule: `sort` maps prompts to small integers (b). `score` is its accuracy on the training prompts."""

    score: float
    words: str
    sort: Callable[[Prompts], Array]


def best_rule(train: Prompts, tokenizer: Tokenizer) -> Rule:
    """Return the rule that is right most often on `train`; of equally good ones the simplest."""
    vocabulary = vocabulary_of(train)
    simple = (
        _occurs(train, vocabulary, tokenizer),
        _stands(train, vocabulary, tokenizer),
        _length(train),
        *_answers(train),
    )
    best = max(simple, key=lambda rule: rule.score)
    if best.score == 1:
        return best  # the slow comparison of pairs of tokens cannot improve on it
    return max(best, _occurs_last(train, vocabulary[:MAX_PAIRED], tokenizer), key=lambda rule: rule.score)


def vocabulary_of(prompts: Prompts) -> Array:
    """The tokens of the prompts (v), those that occur in most prompts first."""
    present = [np.unique(tokens_t[tokens_t >= 0]) for tokens_t in prompts.tokens_bt]
    tokens, counts = np.unique(np.concatenate(present), return_counts=True)
    return tokens[np.argsort(-counts, kind="stable")]


def _nearest(prompts: Prompts, vocabulary: Array) -> npt.NDArray[np.int32]:
    """Distance from the end of each token's last occurrence (b, v); ABSENT where there is none."""
    rows, width = prompts.tokens_bt.shape
    place = np.full(max(int(vocabulary.max(initial=0)), int(prompts.tokens_bt.max())) + 2, -1)
    place[vocabulary] = np.arange(len(vocabulary))
    nearest_bv = np.full((rows, len(vocabulary)), ABSENT, np.int32)
    for k in reversed(range(width)):  # nearer occurrences overwrite those farther away
        column_b = place[prompts.tokens_bt[:, k]]
        here = np.flatnonzero(column_b >= 0)
        nearest_bv[here, column_b[here]] = k
    return nearest_bv


def _scores(state_bv: npt.NDArray[np.bool_], label_b: Array) -> npt.NDArray[np.float64]:
    """Accuracy (v) of sorting by each column of `state_bv`, each sort having its more frequent answer."""
    inside = [state_bv[label_b == label].sum(0) for label in (0, 1)]
    outside = [(label_b == label).sum() - inside[label] for label in (0, 1)]
    right_v: npt.NDArray[np.float64] = (np.maximum(*inside) + np.maximum(*outside)) / len(label_b)
    return right_v


def _score(sort_b: Array, label_b: Array) -> float:
    table = np.bincount(2 * sort_b + label_b, minlength=2 * int(sort_b.max()) + 2).reshape(-1, 2)
    return float(table.max(1).sum() / len(label_b))


def accuracy(rule: Rule, train: Prompts, test: Prompts) -> float:
    """Accuracy on `test` of the answers fitted on `train`; a sort unknown there gets the first answer."""
    here_b, there_b = rule.sort(train), rule.sort(test)
    sorts = max(int(here_b.max()), int(there_b.max())) + 1
    table = np.bincount(2 * here_b + train.label_b, minlength=2 * sorts).reshape(-1, 2)
    return float((table.argmax(1)[there_b] == test.label_b).mean())


def _occurs(train: Prompts, vocabulary: Array, tokenizer: Tokenizer) -> Rule:
    scores_v = _scores(_nearest(train, vocabulary) < ABSENT, train.label_b)
    token = int(vocabulary[scores_v.argmax()])
    return Rule(
        float(scores_v.max()),
        f"{tokenizer.token(token)!r} occurs",
        lambda prompts: (prompts.tokens_bt == token).any(1).astype(np.int64),
    )


def _stands(train: Prompts, vocabulary: Array, tokenizer: Tokenizer) -> Rule:
    best = Rule(-1.0, "", lambda prompts: prompts.label_b)
    for k in range(train.tokens_bt.shape[1]):
        tokens_b = train.tokens_bt[:, k]
        present = np.unique(tokens_b[tokens_b >= 0])
        scores_v = _scores(tokens_b[:, None] == present, train.label_b)
        if scores_v.max() > best.score:
            token = int(present[scores_v.argmax()])
            words = f"{tokenizer.token(token)!r} stands {k + 1} from the end"
            best = Rule(float(scores_v.max()), words, _sort_by_place(k, token))
    return best


def _sort_by_place(k: int, token: int) -> Callable[[Prompts], Array]:
    return lambda prompts: (_column(prompts.tokens_bt, k, -1) == token).astype(np.int64)


def _column(array_bt: Array, k: int, default: int) -> Array:
    return array_bt[:, k] if k < array_bt.shape[1] else np.full(len(array_bt), default)


def _length(train: Prompts) -> Rule:
    lengths = np.unique(train.length_b)
    exact_v = _scores(train.length_b[:, None] == lengths, train.label_b)
    least_v = _scores(train.length_b[:, None] >= lengths, train.label_b)
    n, m = int(lengths[exact_v.argmax()]), int(lengths[least_v.argmax()])
    if exact_v.max() >= least_v.max():
        return Rule(float(exact_v.max()), f"{n} tokens long", lambda p: (p.length_b == n).astype(np.int64))
    return Rule(
        float(least_v.max()), f"at least {m} tokens long", lambda p: (p.length_b >= m).astype(np.int64)
    )


def _occurs_last(train: Prompts, vocabulary: Array, tokenizer: Tokenizer) -> Rule:
    """Sorts: 1 where X is the last of the two, 2 where Y is, 0 where neither occurs."""
    nearest_vb, label_b = np.ascontiguousarray(_nearest(train, vocabulary).T), train.label_b
    order_b = np.argsort(label_b, kind="stable")
    nearest_vb, n_zeros = nearest_vb[:, order_b], int((label_b == 0).sum())
    best = -1.0, 0, 0
    for x in range(len(vocabulary)):
        right_v = np.zeros(len(vocabulary), np.int64)
        for compare in (np.less, np.greater, np.equal):
            sorted_vb = compare(nearest_vb[x], nearest_vb)
            counts = [np.count_nonzero(part, axis=1) for part in np.split(sorted_vb, [n_zeros], axis=1)]
            right_v += np.maximum(*counts)
        score = float(right_v.max() / len(label_b))
        if score > best[0]:
            best = score, x, int(right_v.argmax())
    pair = vocabulary[[best[1], best[2]]]
    first, second = (repr(tokenizer.token(int(token))) for token in pair)

    def sort(prompts: Prompts) -> Array:
        x_b, y_b = _nearest(prompts, pair).T if best[1] != best[2] else (np.zeros(len(prompts.label_b)),) * 2
        return np.where(x_b < y_b, 1, np.where(x_b > y_b, 2, 0))

    return Rule(best[0], f"{first} occurs last among {first} and {second}", sort)


def _answers(train: Prompts) -> list[Rule]:
    """The rules in which X is one of the pair's own two answers."""

    def occurs(prompts: Prompts) -> Array:
        return (prompts.match_bt == 1).any(1) + 2 * (prompts.match_bt == 2).any(1)

    def last(prompts: Prompts) -> Array:
        column_b = (prompts.match_bt != 0).argmax(1)
        return np.take_along_axis(prompts.match_bt, column_b[:, None], 1)[:, 0]

    def stands(k: int) -> Callable[[Prompts], Array]:
        return lambda prompts: _column(prompts.match_bt, k, 0)

    sorts: list[tuple[str, Callable[[Prompts], Array]]] = [
        ("an answer occurs", occurs),
        ("the answer that occurs last", last),
    ]
    for k in range(train.tokens_bt.shape[1]):
        sorts.append((f"the answer that stands {k + 1} from the end", stands(k)))
    return [Rule(_score(sort(train), train.label_b), words, sort) for words, sort in sorts]
