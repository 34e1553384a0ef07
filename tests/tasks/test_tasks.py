"""Every datapoint of every task obeys design.md, under tokenizers trained with and without real source."""

import re
import sysconfig
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest
import torch

from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.data.tinypython import documents
from sparsity_lab.data.tokenizer import Tokenizer, train_bpe
from sparsity_lab.tasks.batch import NotAskable, encode_pairs
from sparsity_lab.tasks.config import TasksConfig
from sparsity_lab.tasks.drawing import make_pairs
from sparsity_lab.tasks.python import TASKS
from sparsity_lab.tasks.task import Kind, Pair, Split, Task

N = 96
SPLITS: tuple[Split, ...] = ("train", "select", "test")
TINY = list(documents(1, 0, 2500))


def _real_source(size: int) -> list[str]:
    texts: list[str] = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        if sum(map(len, texts)) >= size:
            break
        texts.append(path.read_text(encoding="utf-8", errors="replace"))
    return texts


@pytest.fixture(scope="module", params=["alone", "mixed"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    if request.param == "alone":  # the grammar alone has fewer than 2,048 pieces
        return train_bpe(TINY, 1536)
    return train_bpe(TINY + _real_source(sum(map(len, TINY)) // 9), 2048)


@pytest.fixture(scope="module")
def tiny() -> Tokenizer:
    return train_bpe(TINY, 1536)


def test_there_are_the_20_tasks_of_table_1() -> None:
    assert len(TASKS) == 20
    assert all(name == task.name and task.description for name, task in TASKS.items())
    assert {task.kind for task in TASKS.values()} == set(get_args(Kind))


@pytest.mark.parametrize("name", TASKS)
def test_every_datapoint_is_askable(name: str, tokenizer: Tokenizer) -> None:
    task = TASKS[name]
    for split in SPLITS:
        pairs = make_pairs(task, split, N, seed=0)
        batch = encode_pairs(task, pairs, tokenizer)
        assert batch.tokens_bt.shape[0] == 2 * N
        assert batch.tokens_bt.shape[1] <= 120  # a window of the default models holds 128
        assert batch.tokens_bt.dtype == torch.int64
        ends = batch.tokens_bt[torch.arange(2 * N), batch.last_b]
        assert torch.equal(ends[:N], ends[N:]), "neither the bigram table nor the last embedding may decide"
        assert bool((batch.answers_b2[:, 0] != batch.answers_b2[:, 1]).all())
        assert batch.label_b.tolist() == [0] * N + [1] * N
        for b, pair in enumerate(pairs):
            for row, prompt, answer in ((b, pair.positive, 0), (N + b, pair.negative, 1)):
                ids = batch.tokens_bt[row, : int(batch.last_b[row]) + 1].tolist()
                whole = tokenizer.encode(prompt + pair.answers[answer])
                assert whole == [*ids, int(batch.answers_b2[row, answer])]
                assert bool((batch.tokens_bt[row, len(ids) :] == tokenizer.end_of_text).all())


@pytest.mark.parametrize("name", TASKS)
def test_prompts_are_distinct_and_splits_disjoint_whatever_the_seed(name: str) -> None:
    prompts = {
        split: [p for pair in make_pairs(TASKS[name], split, N, seed) for p in (pair.positive, pair.negative)]
        for seed, split in enumerate(SPLITS)
    }
    assert all(max(Counter(found).values()) == 1 for found in prompts.values())
    assert not set(prompts["train"]) & set(prompts["select"])
    assert not set(prompts["train"]) & set(prompts["test"])
    assert not set(prompts["select"]) & set(prompts["test"])


@pytest.mark.parametrize("name", TASKS)
def test_pairs_depend_on_the_seed_alone(name: str) -> None:
    task = TASKS[name]
    assert make_pairs(task, "test", 8, seed=3) == make_pairs(task, "test", 8, seed=3)
    assert make_pairs(task, "test", 8, seed=3) != make_pairs(task, "test", 8, seed=4)
    assert make_pairs(task, "train", 16, seed=3)[:8] == make_pairs(task, "train", 8, seed=3)


@pytest.mark.parametrize("name", TASKS)
def test_a_pair_shares_its_context(name: str) -> None:
    """All lines but those that hold what decides are the same: one, or two where two values change places."""
    most = 2 if TASKS[name].kind == "binding" else 1
    for pair in make_pairs(TASKS[name], "test", 16, seed=0):
        positive, negative = Counter(pair.positive.splitlines()), Counter(pair.negative.splitlines())
        assert sum((positive - negative).values()) <= most
        assert sum((negative - positive).values()) <= most


COMPETITORS = {
    "single_double_quote": ("'", '"'),
    "final_kwarg": ("=None", "):\n"),
    "bracket_brace": ("{", "["),
    "with_as": (" as ", " if "),
    "with_open": (".txt", ".csv"),
    "for_while": ("for ", "while "),
    "fstring_brace": ("{", "print("),
    "if_equals": (" == ", " = "),
    "enumerate_range": ("enumerate(", "range("),
    "var_if": (" == True", " = True"),
    "indent_for": (" for", "# for"),
    "lambda_func": ("lambda ", "def "),
}


@pytest.mark.parametrize("name", COMPETITORS)
def test_what_decides_stands_on_other_lines_too_both_ways_round(name: str) -> None:
    """In many prompts of either answer, an earlier line holds the cue of the other answer."""
    pairs = make_pairs(TASKS[name], "train", 100, seed=0)
    for cue in COMPETITORS[name]:
        contexts = [prompt.rpartition("\n")[0] for pair in pairs for prompt in (pair.positive, pair.negative)]
        if name == "indent_for":  # its prompts end in a newline
            contexts = [context.rpartition("\n")[0] for context in contexts]
        assert sum(cue in f"{context}\n" for context in contexts) > 20, cue


@pytest.mark.parametrize("name", ["set_or_string", "set_or_string_fixedvarname"])
def test_a_set_and_a_string_are_in_scope_in_either_order(name: str) -> None:
    """Both prompts hold the same words; the name's own value decides, wherever it was bound."""
    first = 0
    pairs = make_pairs(TASKS[name], "train", 100, seed=0)
    for pair in pairs:
        assert Counter(re.findall(r"\w+", pair.positive)) == Counter(re.findall(r"\w+", pair.negative))
        variable = pair.positive.split()[-1]
        found = re.findall(r"^ *(\w+) = (set\(\)|''|\"\")$", pair.positive, re.M)
        assert {value == "set()" for _, value in found} == {True, False}
        assert dict(found)[variable] == "set()"
        first += found[0][0] == variable
    assert 25 < first < 75


def test_bracket_counting_asks_two_depths_and_counts_only_what_is_open() -> None:
    pairs = make_pairs(TASKS["bracket_counting"], "train", 100, seed=0)
    for pair in pairs:
        for prompt, answer in zip((pair.positive, pair.negative), pair.answers, strict=True):
            line = prompt.splitlines()[-1]
            assert line.count("[") - line.count("]") == len(answer.strip())
    assert {pair.answers for pair in pairs} == {("]\n", "]]\n"), ("]]\n", "]]]\n")}
    assert sum("]," in pair.positive.splitlines()[-1] for pair in pairs) > 20


def test_the_attribute_asked_for_is_no_matter_of_the_arguments_order() -> None:
    pairs = make_pairs(TASKS["class_init"], "train", 200, seed=0)
    first = sum(
        pair.positive.rindex(f"{pair.answers[0][1:]}", 0, pair.positive.rindex("):"))
        < pair.positive.rindex(f"{pair.answers[1][1:]}", 0, pair.positive.rindex("):"))
        for pair in pairs
    )
    assert 60 < first < 140


def _task(pair: Pair) -> Task:
    return Task("probe", "a wording that breaks a rule", lambda rng: pair)


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (Pair("x = 1", "y = 1", ("\n", "\n")), "both answers are"),
        (Pair("print('red", "f('red", ("')\n)", "')\n")), "tokens"),
        (Pair("if size", "size", (" ==", " =")), "different tokens"),
        (Pair("print('red'", "show('red'", (")\n", "\n")), "merges"),
    ],
)
def test_a_wording_that_breaks_a_rule_is_refused(pair: Pair, reason: str, tiny: Tokenizer) -> None:
    with pytest.raises(NotAskable, match=reason) as caught:
        encode_pairs(_task(pair), [pair], tiny)
    assert caught.value.task == "probe"
    assert reason in caught.value.reason


def test_a_generator_that_runs_dry_is_an_error() -> None:
    with pytest.raises(UserError, match=r"task probe: only [01] different pairs for train, 5 wanted"):
        make_pairs(_task(Pair("a", "b", ("c", "d"))), "train", 5, seed=0)


def test_names_are_checked_and_the_allowed_ones_listed() -> None:
    with pytest.raises(UserError, match=r"tasks\.names.*withas.*with_as"):
        validate(TasksConfig, {"names": ["withas"]}, "tasks")
    assert validate(TasksConfig, {"names": ["with_as"]}).names == ("with_as",)
    assert validate(TasksConfig, {"names": "with_as"}).asked() == ("with_as",)
    assert TasksConfig().asked() == tuple(TASKS)
