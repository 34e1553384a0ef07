"""N-gram models by counting, as a baseline for the losses of trained models.

Interpolated with Witten-Bell smoothing (Witten & Bell 1991): for a history h with C(h) continuations, T(h) of
them distinct,

    p(w | h) = (c(h, w) + T(h) p(w | h without its first token)) / (C(h) + T(h)),

down to the uniform distribution over the vocabulary. An unseen history passes on the shorter one's estimate.
Documents follow each other in the packed tokens, so n-grams cross the end-of-text token, as windows do.

Shapes: w windows, t positions, c = t + 1 tokens of a window.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sparsity_lab.data.packed import Tokens

ORDERS = (1, 2, 3, 4)
MAX_TOKENS = 10_000_000  # counting sorts them, in about 1 GiB
Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Table:
    """The n-grams of one order. An n-gram's id is its place in the sorted `keys`.

    A key is the id of the n-gram's history times the vocabulary size, plus the last token. `continuations`
    and `distinct` are C(h) and T(h) by the history's id.
    """

    keys: Ids
    counts: Ids
    continuations: Floats
    distinct: Floats

    def find(self, key: Ids) -> Ids:
        """Return the ids of n-grams, -1 where one was not seen."""
        if not len(self.keys):
            return np.full(key.shape, -1)
        at = np.searchsorted(self.keys, key).clip(max=len(self.keys) - 1)
        return np.where(self.keys[at] == key, at, -1)


def ngram_losses(tokens: Tokens, windows_wc: Ids, vocab_size: int) -> Floats:
    """Return the loss in nats of each target under each of ORDERS, trained on `tokens`: (order, w, t).

    A window's first targets have shorter histories: as for a model, nothing before the window is known.
    """
    tables = _count(tokens.astype(np.int64), vocab_size)
    target_wt = windows_wc[:, 1:]
    p_wt = np.full(target_wt.shape, 1 / vocab_size)
    losses = np.empty((len(ORDERS), *target_wt.shape))
    for n, table in zip(ORDERS, tables, strict=True):
        first = max(n - 2, 0)  # the first position with n - 1 tokens up to it
        if first < target_wt.shape[1] and len(table.keys):
            history = _histories(windows_wc, n, tables, vocab_size)
            known, at = history >= 0, history.clip(min=0)
            found = table.find(at * vocab_size + target_wt[:, first:])
            count = np.where(known & (found >= 0), table.counts[found.clip(min=0)], 0)
            total, distinct = table.continuations[at], table.distinct[at]
            shorter = p_wt[:, first:]
            seen = known & (total > 0)
            mixed = (count + distinct * shorter) / np.maximum(total + distinct, 1)
            p_wt[:, first:] = np.where(seen, mixed, shorter)
        losses[n - 1] = -np.log(p_wt)
    return losses


def _count(tokens: Ids, vocab_size: int) -> list[_Table]:
    """Count the n-grams of each of ORDERS."""
    tables = []
    ids, histories = np.zeros(len(tokens), np.int64), 1  # of the empty history, which is the only one
    for n in ORDERS:
        length = max(len(tokens) - n + 1, 0)
        keys = ids[:length] * vocab_size + tokens[n - 1 :]
        unique, ids, counts = np.unique(keys, return_inverse=True, return_counts=True)
        history = unique // vocab_size
        tables.append(
            _Table(
                keys=unique,
                counts=counts,
                continuations=np.bincount(history, counts, histories).astype(float),
                distinct=np.bincount(history, minlength=histories).astype(float),
            )
        )
        histories = len(unique)
    return tables


def _histories(windows_wc: Ids, n: int, tables: list[_Table], vocab_size: int) -> Ids:
    """Return the ids of the n - 1 tokens before each target, -1 if unseen; from position n - 2 on."""
    width = windows_wc.shape[1] - 1 - max(n - 2, 0)
    ids = np.zeros((len(windows_wc), width), np.int64)
    for i in range(n - 1):
        found = tables[i].find(ids.clip(min=0) * vocab_size + windows_wc[:, i : i + width])
        ids = np.where(ids >= 0, found, -1)
    return ids
