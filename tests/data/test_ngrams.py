"""N-gram baselines: probabilities worked by hand, and what counting can and cannot know."""

import math
from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest

from sparsity_lab.core.metrics import NGRAMS
from sparsity_lab.data.ngrams import ngram_losses


def slow(tokens: list[int], history: list[int], target: int, vocab_size: int) -> float:
    """Witten-Bell as its formula reads, with the whole `history` as context."""
    shorter = 1 / vocab_size if not history else 0.0
    if history:
        shorter = slow(tokens, history[1:], target, vocab_size)
    n = len(history)
    follows = Counter(tokens[i + n] for i in range(len(tokens) - n) if tokens[i : i + n] == history)
    total, distinct = sum(follows.values()), len(follows)
    return (follows[target] + distinct * shorter) / (total + distinct) if total else shorter


def losses_of(tokens: list[int], windows: list[list[int]], vocab_size: int) -> npt.NDArray[np.float64]:
    return ngram_losses(np.array(tokens, np.uint16), np.array(windows), vocab_size)


def test_by_hand() -> None:
    """Tokens 0 1 0 1 2 of a vocabulary of 4."""
    unigram, bigram, *_ = np.exp(-losses_of([0, 1, 0, 1, 2], [[0, 1], [1, 3], [3, 0]], 4))
    assert unigram[0] == pytest.approx((2 + 3 / 4) / 8)  # 1 occurs twice of five; three kinds
    assert unigram[1] == pytest.approx((0 + 3 / 4) / 8)
    assert bigram[0] == pytest.approx((2 + 1 * (2.75 / 8)) / 3)  # 0 is followed by 1 twice
    assert bigram[1] == pytest.approx((0 + 2 * (0.75 / 8)) / 4)  # 1 is followed by 0 and by 2
    assert bigram[2] == pytest.approx(2.75 / 8)  # 3 was not seen: the shorter history's estimate


def test_agrees_with_the_formula_at_every_order_and_position() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 4, 300).tolist()
    windows = rng.integers(0, 5, (6, 7)).tolist()  # 4 is never seen in training
    found = losses_of(tokens, windows, 5)
    assert found.shape == (4, 6, 6)
    for n in NGRAMS:
        for w, window in enumerate(windows):
            for t in range(6):
                history = window[max(0, t - n + 2) : t + 1] if n > 1 else []
                expected = -math.log(slow(tokens, history, window[t + 1], 5))
                assert found[n - 1, w, t] == pytest.approx(expected), (n, w, t)


def test_probabilities_of_all_tokens_add_up_to_one() -> None:
    tokens = np.random.default_rng(1).integers(0, 6, 500)
    windows = np.stack([np.array([1, 2, 3, 4, target]) for target in range(6)])
    found = ngram_losses(tokens, windows, 6)[:, :, -1]
    np.testing.assert_allclose(np.exp(-found).sum(1), 1)


def test_longer_histories_know_what_shorter_ones_cannot() -> None:
    """Three tokens decide the next one: a pattern that repeats with period 8."""
    pattern = [0, 0, 0, 1, 0, 1, 1, 1]  # each run of three occurs once
    tokens = pattern * 200
    by_order = losses_of(tokens, [tokens[:41]], 2).mean((1, 2))
    assert by_order[3] < 0.1 < 0.3 < by_order[2]
    assert by_order[0] == pytest.approx(math.log(2), abs=1e-3)


def test_a_vocabulary_of_200_000_does_not_overflow() -> None:
    tokens = np.array([199_999, 199_998, 199_997, 199_996] * 50, np.uint32)
    assert ngram_losses(tokens, tokens[None, :20].astype(np.int64), 200_000)[3, 0, 4:].max() < 0.5


def test_very_short_training_text() -> None:
    assert np.isfinite(losses_of([1, 2], [[1, 2, 1, 2, 1]], 3)).all()
