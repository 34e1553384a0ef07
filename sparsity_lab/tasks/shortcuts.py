"""Shortcuts: rules without a model that may already answer a task.

A circuit says little about a task that one token of the prompt decides. Two kinds of rule are fitted on the
training pairs and measured on the test pairs:

1. The best rule that sorts prompts by one fact and gives each sort its more frequent answer. The facts are
   "token X occurs", "X stands k tokens from the end", "X occurs last among X and Y", and the prompt's length.
   In a copy task the answers vary, so X may also be an answer of the pair (`shortcut_rules.py`).
2. A logistic regression on the counts of the prompt's tokens (a bag of tokens).

Shape suffixes: b prompts, t positions from the end, v tokens that occur in the training prompts.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import softplus

from sparsity_lab.data.tokenizer import Tokenizer
from sparsity_lab.tasks.batch import TaskBatch
from sparsity_lab.tasks.shortcut_rules import Array, Prompts, accuracy, best_rule, vocabulary_of
from sparsity_lab.tasks.shortcuts_record import Shortcuts

MAX_COUNTED = 1024  # most frequent tokens, which the regression counts
PENALTIES = (1e-3, 1e-2, 1e-1)  # L2 penalties of the regression; the selection pairs choose one


def find_shortcuts(train: TaskBatch, select: TaskBatch, test: TaskBatch, tokenizer: Tokenizer) -> Shortcuts:
    """Fit the best rule and the bag of tokens on `train`, and measure both on `test`.

    "First answer" has two readings: that of the pair's positive prompt, or the one with the smaller token.
    Both are tried, and the one that serves better on `train` (for the bag: on `select`) is reported.
    """
    spelling = _Spelling(tokenizer)
    rules, bags = [], []
    for by_token in (False, True):
        fit, choose, held_out = (_prompts(batch, spelling, by_token) for batch in (train, select, test))
        rule = best_rule(fit, tokenizer)
        rules.append((rule.score, rule.words, accuracy(rule, fit, held_out)))
        bags.append(_bag(fit, choose, held_out))
    _, words, right = max(rules, key=lambda found: found[0])  # the first of equals
    return Shortcuts(
        rule=words,
        rule_accuracy=right,
        bag_accuracy=max(bags, key=lambda found: found[0])[1],
        train_prompts=len(train.label_b),
        test_prompts=len(test.label_b),
    )


class _Spelling:
    """Numbers token ids by their text without the spaces around it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.numbers: dict[str, int] = {}

    def of(self, ids: Array) -> Array:
        unique, inverse = np.unique(ids, return_inverse=True)
        texts = [self.tokenizer.token(int(id)) if id >= 0 else "" for id in unique]
        numbers = [self.numbers.setdefault(text.strip() or text, len(self.numbers)) for text in texts]
        return np.array(numbers)[inverse].reshape(ids.shape)


def _prompts(batch: TaskBatch, spelling: _Spelling, by_token: bool) -> Prompts:
    """Align a batch at its prompts' ends; with `by_token` the first answer has the smaller token."""
    padded_bt, answers_b2, label_b = batch.tokens_bt.numpy(), batch.answers_b2.numpy(), batch.label_b.numpy()
    from_bt = batch.last_b.numpy()[:, None] - np.arange(padded_bt.shape[1])
    tokens_bt = np.where(from_bt >= 0, np.take_along_axis(padded_bt, np.maximum(from_bt, 0), 1), -1)
    if by_token:
        label_b = np.where(answers_b2[:, 0] > answers_b2[:, 1], 1 - label_b, label_b)
        answers_b2 = np.sort(answers_b2, axis=1)
    words_bt, answers_b2 = spelling.of(tokens_bt), spelling.of(answers_b2)
    match_bt = (words_bt == answers_b2[:, :1]) + 2 * (words_bt == answers_b2[:, 1:])
    return Prompts(tokens_bt, label_b, np.where((tokens_bt < 0) | (match_bt == 3), 0, match_bt))


def _bag(train: Prompts, select: Prompts, test: Prompts) -> tuple[float, float]:
    """Accuracy of the logistic regression on `select`, which chooses the penalty, and on `test`."""
    vocabulary = vocabulary_of(train)[:MAX_COUNTED]
    best = -1.0, 0.0
    for penalty in PENALTIES:
        weights_v = _regression(_counts(train, vocabulary), train.label_b, penalty)
        on_select, on_test = (
            float(((_counts(part, vocabulary) @ weights_v > 0) == (part.label_b == 1)).mean())
            for part in (select, test)
        )
        if on_select > best[0]:
            best = on_select, on_test
    return best


def _counts(prompts: Prompts, vocabulary: Array) -> npt.NDArray[np.float64]:
    """Occurrences of each token and of the pair's two answers, and a constant (b, v + 3)."""
    tokens_bt = prompts.tokens_bt
    place = np.full(max(int(vocabulary.max()), int(tokens_bt.max())) + 2, -1)  # index -1 is a short prompt's
    place[vocabulary] = np.arange(len(vocabulary))
    places_bt = place[tokens_bt]
    counts = np.zeros((len(tokens_bt), len(vocabulary) + 3))
    rows, columns = np.nonzero(places_bt >= 0)
    np.add.at(counts, (rows, places_bt[rows, columns]), 1)
    counts[:, -3], counts[:, -2] = ((prompts.match_bt == answer).sum(1) for answer in (1, 2))
    counts[:, -1] = 1
    return counts


def _regression(
    counts_bv: npt.NDArray[np.float64], label_b: Array, penalty: float
) -> npt.NDArray[np.float64]:
    """Weights (v) of the logistic regression for label 1, by L-BFGS."""
    inputs_bv, sign_b = torch.from_numpy(counts_bv), torch.from_numpy(1.0 - 2.0 * label_b)
    weights_v = torch.zeros(counts_bv.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights_v], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = softplus(sign_b * (inputs_bv @ weights_v)).mean() + penalty * weights_v[:-1].pow(2).sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return weights_v.detach().numpy()
