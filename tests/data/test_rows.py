"""Local JSON lines and Parquet: one column, whatever the others hold; messages name file and line."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparsity_lab.core.errors import UserError
from sparsity_lab.data.documents import Document
from sparsity_lab.data.huggingface import HuggingFaceConfig

ROOT = Path(__file__).parents[2]


def documents(path: Path, **changes: Any) -> list[Document]:
    return list(HuggingFaceConfig(name=str(path), **changes).documents())


def texts(path: Path, **changes: Any) -> list[str]:
    return [document.text for document in documents(path, **changes)]


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


CHANGING = {
    "a string after nulls": [
        *[{"text": f"{i}", "meta": None} for i in range(500)],
        {"text": "x", "meta": "late"},
    ],
    "an object after a number": [{"text": "a", "meta": 1}, {"text": "b", "meta": {"a": [1]}}],
    "a list after a string": [{"text": "a", "meta": "1"}, {"meta": [1], "text": "b"}],
    "a key more and a key less": [{"text": "a", "meta": 1}, {"text": "b", "more": 2}, {"text": "c"}],
}


@pytest.mark.parametrize("rows", CHANGING.values(), ids=CHANGING)
def test_columns_that_nobody_wants_may_change(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    expected = [row["text"] for row in rows]
    assert texts(write_lines(tmp_path / "a.jsonl", rows)) == expected
    assert texts(tmp_path) == expected


def test_files_of_a_folder_may_have_other_columns(tmp_path: Path) -> None:
    write_lines(tmp_path / "1.jsonl", [{"text": "a"}])
    write_lines(tmp_path / "2.jsonl", [{"text": "b", "meta": {"more": 1}}])
    assert documents(tmp_path) == [Document("a", "0"), Document("b", "1")]
    for file in tmp_path.iterdir():
        file.unlink()
    pq.write_table(pa.table({"text": ["a"], "meta": [1]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"meta": [["x"]], "text": ["b"]}), tmp_path / "2.parquet")
    assert documents(tmp_path) == [Document("a", "0"), Document("b", "1")]


def test_a_folders_splits_are_the_librarys(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("train-2", "train-1", "sub/more_train", "dev", ".hidden"):
        write_lines(tmp_path / f"{name}.jsonl", [{"text": name, "n": 1}, {"text": f"{name} again", "n": 2}])
    for split in ("train", "validation"):
        stream = datasets.load_dataset(str(tmp_path), split=split, streaming=True)
        assert texts(tmp_path, split=split) == [row["text"] for row in stream]
    with pytest.raises(UserError, match=r"^corpus\.split: 'test': allowed: train, validation$"):
        texts(tmp_path, split="test")


def test_the_ways_to_write_rows(tmp_path: Path) -> None:
    rows = [{"text": "one"}, {"text": ""}, {"text": "caf\u00e9 \u2028 \U0001f642"}]
    data = "\r\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode("utf-8-sig")
    (tmp_path / "a.jsonl").write_bytes(data)
    (tmp_path / "b.json").write_bytes(data)
    (tmp_path / "c.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(data))
    (tmp_path / "e.ndjson").write_bytes(data)
    table = pa.table({"text": pa.array([row["text"] for row in rows]).dictionary_encode()})
    pq.write_table(table, tmp_path / "f.parquet", row_group_size=1)
    for path in sorted(tmp_path.iterdir()):
        assert documents(path) == [Document("one", "0"), Document("caf\u00e9 \u2028 \U0001f642", "2")], (
            path.name
        )


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{}", r"corpus\.text_column: 'text': .*a\.jsonl:3 has no such key; allowed: $"),
        ('{"body": 1}', r"corpus\.text_column: 'text': .*a\.jsonl:3 has no such key; allowed: body$"),
        ('{"\\u0097": 1}', r"a\.jsonl:3 has no such key; allowed: \\x97$"),
        ('{"text": null}', r"corpus\.text_column: 'text': .*a\.jsonl:3 is null, not text$"),
        ('{"text": 5}', r"corpus\.text_column: 'text': .*a\.jsonl:3 is int, not text$"),
        (
            '{"text": "\\ud800"}',
            r"corpus\.text_column: 'text': .*a\.jsonl:3 holds a lone surrogate at position 0",
        ),
        ('{"text": "cut', r"corpus\.name: .*a\.jsonl:3: not JSON \(Unterminated string"),
        ("[1]", r"corpus\.name: .*a\.jsonl:3: not a JSON object$"),
        ("[" * 5000, r"corpus\.name: .*a\.jsonl:3: not JSON \("),
        ("1" * 5000, r"corpus\.name: .*a\.jsonl:3: not JSON \("),
    ],
)
def test_the_line_that_is_wrong_is_named(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n\n' + line, encoding="utf-8")
    for where in (path, tmp_path):
        with pytest.raises(UserError, match=told) as error:
            texts(where)
        assert "\n" not in str(error.value)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one"}\n{"text": "caf\xe9"}\n')
    with pytest.raises(UserError, match=r"^corpus\.name: .*a\.jsonl:2: not UTF-8 \(byte 13\)$"):
        texts(tmp_path / "a.jsonl")
    whole = gzip.compress(json.dumps({"text": os.urandom(5000).hex()}).encode())
    (tmp_path / "b.jsonl.gz").write_bytes(whole[:-1000])
    with pytest.raises(UserError, match=r"^corpus\.name: .*b\.jsonl\.gz: can't be read: EOFError: "):
        texts(tmp_path / "b.jsonl.gz")
    (tmp_path / "c.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(
        UserError, match=r"^corpus\.name: .*c\.parquet: can't be read: ArrowInvalid: "
    ) as error:
        texts(tmp_path / "c.parquet")
    assert "\n" not in str(error.value)


def test_the_parquet_row_that_is_wrong_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", None, "b"], "n": [1, 2, 3]}), tmp_path / "a.parquet")
    with pytest.raises(
        UserError, match=r"corpus\.text_column: 'text': .*a\.parquet: row 1 is null, not text"
    ):
        texts(tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"corpus\.text_column: 'body': allowed: n, text"):
        texts(tmp_path / "a.parquet", text_column="body")


def test_json_lines_need_no_library_and_keep_the_console_clean(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl", [{"text": "one"}])
    (tmp_path / "README.md").write_text("no card\n")
    code = (
        "import sys; from sparsity_lab.data.huggingface import HuggingFaceConfig\n"
        "for name in sys.argv[1:]:\n"
        "    print(len(list(HuggingFaceConfig(name=name).documents())), 'datasets' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(file), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("1 False\n1 True\n", "")
