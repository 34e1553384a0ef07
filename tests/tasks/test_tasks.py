"""Every datapoint of every task obeys design.md, under tokenizers trained with and without real source."""

import sysconfig
from collections import Counter
from pathlib import Path

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
from sparsity_lab.tasks.task import Pair, Split, Task

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
    if request.param == "alone":  # the language has no 2,048 pieces
        return train_bpe(TINY, 768)
    return train_bpe(TINY + _real_source(sum(map(len, TINY)) // 9), 2048)


@pytest.fixture(scope="module")
def tiny() -> Tokenizer:
    return train_bpe(TINY, 768)


def test_there_are_the_20_tasks_of_table_1() -> None:
    assert len(TASKS) == 20
    assert all(name == task.name and task.description for name, task in TASKS.items())


@pytest.mark.parametrize("name", TASKS)
def test_every_datapoint_is_askable(name: str, tokenizer: Tokenizer) -> None:
    task = TASKS[name]
    for split in SPLITS:
        pairs = make_pairs(task, split, N, seed=0)
        batch = encode_pairs(task, pairs, tokenizer)
        assert batch.tokens_bt.shape[0] == 2 * N
        assert batch.tokens_bt.shape[1] <= 96
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
    """All lines but those that hold what decides are the same."""
    for pair in make_pairs(TASKS[name], "test", 16, seed=0):
        positive, negative = Counter(pair.positive.splitlines()), Counter(pair.negative.splitlines())
        assert sum((positive - negative).values()) <= 1
        assert sum((negative - positive).values()) <= 1


def test_the_attribute_asked_for_is_no_matter_of_the_arguments_order() -> None:
    pairs = make_pairs(TASKS["class_init"], "train", 200, seed=0)
    first = sum(f"(self,{pair.answers[0]}," in pair.positive for pair in pairs)
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
