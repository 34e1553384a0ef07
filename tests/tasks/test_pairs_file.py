"""Tasks from a file of pairs: read, split as asked, checked, and refused in one line that names the place."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.data.tokenizer import train_bpe
from sparsity_lab.tasks.asked import asked_pairs, pair_counts, task_hash
from sparsity_lab.tasks.batch import NotAskable, encode_pairs
from sparsity_lab.tasks.config import TasksConfig
from sparsity_lab.tasks.pairs_file import read_pairs
from sparsity_lab.tasks.task import Split


def line(i: int, **more: Any) -> dict[str, Any]:
    return {"positive": f"a {i} .", "negative": f"b {i} .", "answers": ["x", "y"], **more}


def write(path: Path, *lines: Any) -> Path:
    texts = [text if isinstance(text, str) else json.dumps(text, ensure_ascii=False) for text in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def config(path: Path, **values: object) -> TasksConfig:
    return validate(TasksConfig, {"path": str(path), **values}, "tasks")


def prompts(config: TasksConfig, split: Split, name: str = "mine") -> list[str]:
    return [pair.positive for pair in asked_pairs(config, name, split)]


def test_a_file_is_a_task_of_its_name(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", *[line(i) for i in range(40)], "")
    assert config(path).asked() == ("mine",)
    assert config(path, names=["mine", "with_as"]).asked() == ("mine", "with_as")
    assert len(read_pairs(path)) == 40


def test_without_splits_half_trains_and_a_quarter_each_selects_and_tests(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", *[line(i) for i in range(40)])
    assert pair_counts(config(path), "mine") == {"train": 20, "select": 10, "test": 10}
    splits = [set(prompts(config(path), split)) for split in get_args(Split)]
    assert len(set.union(*splits)) == 40
    assert [set(prompts(config(path, seed=1), split)) for split in get_args(Split)] != splits
    few = config(path, n_train_pairs=5, n_select_pairs=3, n_test_pairs=2)
    assert pair_counts(few, "mine") == {"train": 5, "select": 3, "test": 2}


def test_splits_are_kept_as_written(tmp_path: Path) -> None:
    splits = ["test", "train", "select", "train", "test"]
    path = write(tmp_path / "mine.jsonl", *[line(i, split=split) for i, split in enumerate(splits)])
    for seed in (0, 1):
        assert prompts(config(path, seed=seed), "train") == ["a 1 .", "a 3 ."]
        assert prompts(config(path, seed=seed), "select") == ["a 2 ."]
        assert prompts(config(path, seed=seed), "test") == ["a 0 .", "a 4 ."]


def test_several_tasks_in_a_file_and_files_beside_modules(tmp_path: Path) -> None:
    write(tmp_path / "two.jsonl", *[line(i, name=name) for i in range(4) for name in ("p", "q")])
    write(tmp_path / "mine.jsonl", *[line(i) for i in range(4)])
    (tmp_path / "own.py").write_text(
        "from sparsity_lab.tasks.task import Pair, Task\n"
        "TASK = Task('own', '', lambda rng: Pair(f'{rng.random()}(', f'{rng.random()}(', ('a', 'b')))\n"
    )
    assert config(tmp_path).asked() == ("mine", "own", "p", "q")


def test_what_a_line_says_about_the_task_is_kept(tmp_path: Path) -> None:
    about = {"description": "who fell", "kind": "look-up", "caveat": "few names", "same_last_token": False}
    path = write(tmp_path / "mine.jsonl", about, *[line(i) for i in range(4)])
    task = config(path).available()["mine"]
    assert (task.description, task.kind, task.same_last_token) == ("who fell", "look-up", False)
    assert task.caveats.startswith("few names; the prompts of a pair may end in different tokens")


def test_the_hash_covers_the_pairs_and_the_waiver(tmp_path: Path) -> None:
    lines = [line(i) for i in range(8)]
    path = write(tmp_path / "mine.jsonl", *lines)
    hashes = [task_hash(config(path), "mine"), task_hash(config(write(path, *lines, "", "")), "mine")]
    assert hashes[0] == hashes[1]  # a blank line asks nothing else
    changed = line(7, answers=["x", "z"])
    hashes.append(task_hash(config(write(path, *lines[:7], changed)), "mine"))
    hashes.append(task_hash(config(write(path, {"same_last_token": False}, *lines)), "mine"))
    assert len(set(hashes)) == 3


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (['{"positive": "a"'], "mine.jsonl:1: not JSON: "),
        (["", "7"], "mine.jsonl:2: '7': allowed: a JSON object a line"),
        ([line(0), {"positive": "a", "negative": "b"}], "mine.jsonl:2.answers: "),
        ([line(0, answers=["x"])], "mine.jsonl:1.answers"),
        ([line(0, answers=["x", 1])], "mine.jsonl:1.answers"),
        (
            [line(0, split="valid")],
            "mine.jsonl:1.split: 'valid': input should be 'train', 'select' or 'test'",
        ),
        ([line(0, colour=1)], "mine.jsonl:1.colour: unknown key; allowed: positive, "),
        (
            [{"same_last_tokn": False}],
            "mine.jsonl:1.same_last_tokn: unknown key; did you mean same_last_token?; allowed: name, ",
        ),
        ([line(0, answers=["x", "x"])], "mine.jsonl:1: both answers are 'x'"),
        ([line(0, negative="a 0 .")], "mine.jsonl:1: both prompts are 'a 0 .'"),
        ([line(0, positive="")], "mine.jsonl:1: prompts: empty text"),
        ([line(0, answers=["x", ""])], "mine.jsonl:1: answers: empty text"),
        (
            ['{"positive": "\\ud800", "negative": "b", "answers": ["x", "y"]}'],
            "mine.jsonl:1: '\\ud800': a lone surrogate",
        ),
        ([line(0), line(1), line(0)], "mine.jsonl:3: the prompt 'a 0 .' stands in line 1 too"),
        ([line(0, split="test"), line(1)], "mine.jsonl:2: task 'mine': allowed: a split in every line"),
        ([line(i, split="test") for i in range(4)], "mine.jsonl: task 'mine': no pair has the split 'train'"),
        ([line(i) for i in range(3)], "mine.jsonl: task 'mine': 3 pairs; at least 4 are needed"),
        ([], "mine.jsonl: no pairs; allowed: "),
        ([{"name": "p"}, *[line(i) for i in range(4)]], "mine.jsonl: task 'p' has no pairs"),
        ([{}, {}, line(0)], "mine.jsonl:2: task 'mine' is described in an earlier line too"),
        ([line(i, name="with_as") for i in range(4)], "task 'with_as': the package has a task of this name"),
        ([line(i, name="../up") for i in range(4)], "task '../up': allowed in a name: "),
    ],
)
def test_a_bad_line_is_told_by_file_and_number(tmp_path: Path, lines: list[Any], expected: str) -> None:
    path = write(tmp_path / "mine.jsonl", *lines)
    with pytest.raises(UserError) as caught:
        config(path)
    assert expected in str(caught.value)
    assert str(caught.value).startswith(f"tasks.path: {tmp_path}")
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_of_another_kind_or_encoding_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UserError, match=r"mine\.txt: allowed: \.py with tasks, \.jsonl with pairs"):
        config(tmp_path / "mine.txt")
    (tmp_path / "mine.jsonl").write_bytes(b'{"positive": "caf\xe9"}')
    with pytest.raises(UserError, match=r"mine\.jsonl: not UTF-8 \(byte 17\)"):
        config(tmp_path / "mine.jsonl")


def test_what_the_tokenizer_does_not_allow_names_the_line(tmp_path: Path) -> None:
    tokenizer = train_bpe(["a b c"], 257)
    path = write(tmp_path / "mine.jsonl", *[line(i, split=get_args(Split)[i % 3]) for i in range(3)], line(
        9, answers=["x", "long"], split="test"
    ))  # fmt: skip
    task = config(path).available()["mine"]
    with pytest.raises(NotAskable, match=r"mine\.jsonl:4: the answer 'long' is 4 tokens"):
        encode_pairs(task, asked_pairs(config(path), "mine", "test"), tokenizer)


def test_the_rule_of_the_same_last_token_can_be_waived(tmp_path: Path) -> None:
    tokenizer = train_bpe(["a b c"], 257)
    ends = [line(i, positive=f"{i}a", negative=f"{i}b") for i in range(4)]
    for waived in (False, True):
        about = {"same_last_token": not waived}
        path = write(tmp_path / "mine.jsonl", about, *ends)
        task, pairs = config(path).available()["mine"], asked_pairs(config(path), "mine", "train")
        if waived:
            assert len(encode_pairs(task, pairs, tokenizer).label_b) == 2 * len(pairs)
            continue
        with pytest.raises(NotAskable, match=r"mine\.jsonl:\d: the prompts of a pair end in different"):
            encode_pairs(task, pairs, tokenizer)
