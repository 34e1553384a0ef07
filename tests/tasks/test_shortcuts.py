"""Shortcuts: each kind of rule is found where it is planted, and nothing is found where nothing decides."""

import random
from collections.abc import Callable

import pytest

from sparsity_lab.data.tokenizer import Tokenizer, train_bpe
from sparsity_lab.tasks.batch import encode_pairs
from sparsity_lab.tasks.shortcuts import find_shortcuts
from sparsity_lab.tasks.shortcuts_record import Shortcuts
from sparsity_lab.tasks.task import Pair, Task

Make = Callable[[random.Random], Pair]


@pytest.fixture(scope="module")
def letters() -> Tokenizer:
    """A tokenizer whose tokens are the letters; the texts of these tests hold no word of two letters."""
    return train_bpe(["a b c"], 257)


def filler(rng: random.Random, n: int = 8, of: str = "klmnop") -> str:
    return "".join(rng.choice(of) for _ in range(n))


def found(make: Make, tokenizer: Tokenizer) -> Shortcuts:
    task, rng = Task("probe", "", make), random.Random(0)
    train, select, test = [
        encode_pairs(task, [make(rng) for _ in range(n)], tokenizer) for n in (300, 64, 128)
    ]
    return find_shortcuts(train, select, test, tokenizer)


def occurs(rng: random.Random) -> Pair:
    text, at = filler(rng), rng.randrange(8)
    return Pair(f"{text[:at]}x{text[at:]}.", f"{text[:at]}k{text[at:]}.", ("1", "2"))


def stands(rng: random.Random) -> Pair:
    """`x` stands third or fourth from the end. Both letters stand elsewhere too: presence tells nothing."""
    head = filler(rng, 4, "klxy")
    return Pair(f"{head}xy..", f"{head}yx..", ("1", "2"))


def long(rng: random.Random) -> Pair:
    text = filler(rng, 12)
    n = rng.randrange(5)
    return Pair(f"{text[: 1 + n]}.", f"{text[: 7 + n]}.", ("1", "2"))


def last(rng: random.Random) -> Pair:
    """Which of `x` and `y` comes last, with fillers of every length between."""
    a, b, c = (filler(rng, rng.randrange(1, 6)) for _ in range(3))
    return Pair(f"{a}x{b}y{c}.", f"{a}y{b}x{c}.", ("1", "2"))


def copied(rng: random.Random) -> Pair:
    """The answer stands six from the end, before both answers in any order; letters are drawn anew."""
    a, b = rng.sample("abcdefgh", 2)
    tail = "".join(rng.sample((a, b), 2))
    return Pair(f"{b}{a}:{a}-{tail}?.", f"{b}{a}:{b}-{tail}?.", (a, b))


def parity(rng: random.Random) -> Pair:
    """An even or odd number of `x` at places drawn anew: no single token, place or count decides."""
    n = 2 * rng.randrange(1, 4)
    texts = []
    for count in (n, n + rng.choice((-1, 1))):
        text = list("x" * count + filler(rng, 8 - count))
        rng.shuffle(text)
        texts.append("".join(text) + ".")
    return Pair(texts[0], texts[1], ("1", "2"))


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (occurs, "'x' occurs"),
        (stands, " from the end"),
        (long, "at least 8 tokens long"),
        (last, "occurs last among"),
        (copied, "the answer that stands 6 from the end"),
    ],
)
def test_a_planted_rule_is_found_and_named(make: Make, rule: str, letters: Tokenizer) -> None:
    shortcuts = found(make, letters)
    assert shortcuts.rule_accuracy == 1
    assert rule in shortcuts.rule
    assert (shortcuts.train_prompts, shortcuts.test_prompts) == (600, 256)


def test_the_bag_of_tokens_counts(letters: Tokenizer) -> None:
    """More `x` than `y`: no single rule, but the counts decide."""

    def more(rng: random.Random) -> Pair:
        n = rng.randrange(1, 4)
        texts = []
        for x, y in ((n + 1, n), (n, n + 1)):
            text = list("x" * x + "y" * y + filler(rng, 6))
            rng.shuffle(text)
            texts.append("".join(text) + ".")
        return Pair(texts[0], texts[1], ("1", "2"))

    shortcuts = found(more, letters)
    assert shortcuts.bag_accuracy > 0.97
    assert shortcuts.rule_accuracy < 0.8


def test_order_is_nothing_to_a_bag(letters: Tokenizer) -> None:
    assert found(last, letters).bag_accuracy == 0.5


def test_a_task_without_shortcut_stays_near_chance(letters: Tokenizer) -> None:
    shortcuts = found(parity, letters)
    assert shortcuts.rule_accuracy < 0.65
    assert shortcuts.bag_accuracy < 0.65


def test_roles_drawn_at_random_do_not_hide_a_rule(letters: Tokenizer) -> None:
    """The answer `1` belongs to `x`, whichever prompt of the pair is called the positive one."""

    def either(rng: random.Random) -> Pair:
        pair = occurs(rng)
        if rng.random() < 0.5:
            return pair
        return Pair(pair.negative, pair.positive, (pair.answers[1], pair.answers[0]))

    assert found(either, letters).rule_accuracy == 1
