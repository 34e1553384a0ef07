"""Each kind of corpus: what it reads, what it drops, what names it, and what it says to bad input."""

import json
import os
import sys
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pytest
from pydantic import BaseModel

from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json
from sparsity_lab.core.hashing import content_hash
from sparsity_lab.core.paths import UserPath
from sparsity_lab.data import corpora, python_source
from sparsity_lab.data.corpora import CorpusConfig, TinyPythonConfig, mix, synthetic
from sparsity_lab.data.documents import Corpus, Document, at_most, digest
from sparsity_lab.data.folder import FolderConfig, pieces
from sparsity_lab.data.huggingface import HuggingFaceConfig
from sparsity_lab.data.prepare import corpus_folder, read_documents
from sparsity_lab.data.python_source import Package, PythonSourceConfig, installed, inventory, source_files

SOURCE = 'def area(width, height):\n    """The area of a box."""\n    return width * height\n\n\nBOX = area\n'


class Wrapped(BaseModel):
    """Stands for the run's config, which holds the union."""

    corpus: CorpusConfig


def texts(corpus: Corpus) -> list[str]:
    return [document.text for document in corpus.documents()]


# --- the union


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"kind": "tinypython", "megabytes": 1}, TinyPythonConfig),
        ({"kind": "python_source", "packages": ["python"]}, PythonSourceConfig),
        ({"kind": "folder", "path": "x"}, FolderConfig),
        ({"kind": "huggingface", "name": "x"}, HuggingFaceConfig),
    ],
)
def test_kind_decides_the_config(values: dict[str, Any], kind: type) -> None:
    assert type(validate(Wrapped, {"corpus": values}).corpus) is kind


def test_an_unknown_kind_is_refused_with_the_allowed_ones() -> None:
    with pytest.raises(UserError, match=r"'tinypython'.*'huggingface'"):
        validate(Wrapped, {"corpus": {"kind": "web"}})


# --- tinypython


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 and later, when threads run
def test_workers_do_not_change_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpora, "CHUNK", 16)
    alone = list(islice(synthetic(3, workers=1), 100))
    assert [document.source for document in alone] == [str(i) for i in range(100)]
    several = synthetic(3, workers=3)
    assert list(islice(several, 100)) == alone


def test_seed_changes_the_stream() -> None:
    assert list(islice(synthetic(0, 1), 5)) != list(islice(synthetic(1, 1), 5))


def test_mix_keeps_the_proportion_of_bytes_all_along() -> None:
    written = (Document("s" * 100, "s") for _ in range(10_000))
    real = (Document("r" * 300, "r") for _ in range(10_000))
    mixed = list(mix(written, real, 0.25, 100_000))
    for count in (100, len(mixed)):
        total = sum(len(document.text) for document in mixed[:count])
        share = sum(len(document.text) for document in mixed[:count] if document.source == "r") / total
        assert share == pytest.approx(0.25, abs=300 / total)
    assert 100_000 <= sum(len(document.text) for document in mixed) < 100_300


def test_mix_without_enough_real_source_says_so() -> None:
    written = (Document("s" * 100, "s") for _ in range(1000))
    with pytest.raises(UserError, match=r"corpus.real_fraction: 0.5: corpus.real_packages have"):
        list(mix(written, [Document("r" * 100, "r")], 0.5, 10_000))


def test_tinypython_holds_both_components() -> None:
    sources = [document.source for document in TinyPythonConfig(megabytes=0.2, real_fraction=0.3).documents()]
    assert any(source.startswith("python/") for source in sources)
    assert "0" in sources


def test_tinypython_without_real_source_does_not_depend_on_the_interpreter() -> None:
    config = TinyPythonConfig(megabytes=0.02, real_fraction=0.0)
    assert "inventory" not in config.identity()
    assert all(document.source.isdigit() for document in config.documents())


def test_another_grammar_is_another_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TinyPythonConfig(real_fraction=0.0)
    before = content_hash(config.identity())
    monkeypatch.setattr(corpora.tinypython, "documents", lambda seed, start, count: iter(["x = 1\n"]))
    assert content_hash(config.identity()) != before


# --- python_source


def package(tmp_path: Path, files: dict[str, bytes], version: str = "1.0") -> Package:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    return Package("box", version, [(name, tmp_path / name) for name in sorted(files)])


def test_source_rules(tmp_path: Path) -> None:
    files = {
        "kept.py": SOURCE.encode(),
        "again.py": SOURCE.replace("\n", "\r\n").encode(),  # the same text
        "latin.py": SOURCE.encode() + "# caf\u00e9\n".encode("latin-1"),
        "empty.py": b"",
        "generated.py": b"# Generated by a tool. DO NOT EDIT.\n" + SOURCE.encode(),
        "minified.py": SOURCE.encode() + b"data = '" + b"x" * 500 + b"'\n",
        "wide.py": b"\n".join(b"name = " + b"x" * 100 for _ in range(20)),
        "table.py": SOURCE.encode() + b"\n".join(b"1234567, 1234567," for _ in range(100)),
        "mentions.py": SOURCE.encode() + b"\n" * 10 + b"# the file generated by a tool\n",
    }
    found = {document.source for document in source_files([package(tmp_path, files)])}
    assert found == {"box/again.py", "box/mentions.py"}  # of equal contents the first by name


def test_source_comes_in_the_order_of_its_hashes(tmp_path: Path) -> None:
    files = {f"{i}.py": SOURCE.encode() + f"# {i}\n".encode() for i in range(20)}
    found = [digest(document.text) for document in source_files([package(tmp_path, files)])]
    assert found == sorted(found)
    assert len(found) == 20


def test_inventory_names_versions_and_enters_the_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = package(tmp_path, {"a.py": b"12345"}), package(tmp_path, {"a.py": b"12345"}, "1.1")
    assert inventory([old]) == [{"name": "box", "version": "1.0", "files": 1, "bytes": 5}]
    hashes = set()
    for found in (old, new):
        monkeypatch.setattr(python_source, "installed", lambda names, found=found: [found])
        hashes.add(content_hash(PythonSourceConfig().identity()))
    assert len(hashes) == 2


def test_installed_finds_the_library_and_packages_but_not_this_project() -> None:
    found = {package.name: package for package in installed()}
    assert "json/decoder.py" in dict(found["python"].files)
    assert not any(name.startswith(("test/", "site-packages/")) for name, _ in found["python"].files)
    assert "pydantic/main.py" in dict(found["pydantic"].files)
    assert "sparsity-lab" not in found
    assert [package.name for package in installed(("python", "Pydantic"))] == ["python", "pydantic"]


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(UserError, match=r"corpus.packages: 'no-such-thing': not installed"):
        PythonSourceConfig(packages=("python", "no-such-thing")).identity()


def test_max_megabytes_bounds_the_source() -> None:
    found = texts(PythonSourceConfig(packages=("pydantic",), max_megabytes=0.05))
    assert (
        sum(len(text.encode()) for text in found[:-1]) < 50_000 <= sum(len(text.encode()) for text in found)
    )


def test_at_most_stops_after_the_size_is_reached() -> None:
    assert len(list(at_most([Document("abcd", "")] * 10, 9))) == 3


# --- folder


def test_folder_reads_what_the_patterns_name(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "one.txt").write_text("one", encoding="utf-8")
    (tmp_path / "a.txt").write_text("caf\u00e9", encoding="utf-8")
    (tmp_path / "c.md").write_text("no", encoding="utf-8")
    (tmp_path / ".hidden.txt").write_text("no", encoding="utf-8")
    assert list(FolderConfig(path=UserPath(tmp_path), patterns=("**/*.txt",)).documents()) == [
        Document("caf\u00e9", "a.txt"),
        Document("one", "b/one.txt"),
    ]


def not_utf8(folder: Path) -> Path:
    """A file of folder whose name is no UTF-8; the test is skipped where no file can be named so."""
    path = folder / os.fsdecode(b"caf\xe9.py")
    try:
        path.write_text(SOURCE, encoding="utf-8")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    return path


def test_a_file_name_that_is_not_utf8_is_escaped(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    not_utf8(tmp_path / "texts")
    (tmp_path / "texts" / "caf\u00e9.txt").write_text("one", encoding="utf-8")
    config = FolderConfig(path=UserPath(tmp_path / "texts"))
    names = ["caf\u00e9.txt", "caf\\xe9.py"]
    assert sorted(document.source for document in config.documents()) == sorted(names)
    assert sorted(file[0] for file in config.identity()["files"]) == sorted(names)
    corpus = corpus_folder(config, tmp_path / "root")
    found = [
        document.source for split in ("train", "validation") for document in read_documents(corpus, split)
    ]
    assert sorted(found) == sorted(names)


def test_a_package_with_such_a_name_is_a_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = not_utf8(tmp_path)
    (tmp_path / "b.py").write_text(f"{SOURCE}# b\n")
    box = Package("box", "1.0", [(path.name, path), ("b.py", tmp_path / "b.py")])
    monkeypatch.setattr(python_source, "installed", lambda names: [box])
    corpus = corpus_folder(PythonSourceConfig(), tmp_path / "root")
    found = {
        document.source for split in ("train", "validation") for document in read_documents(corpus, split)
    }
    assert found == {"box/caf\\xe9.py", "box/b.py"}


def test_such_a_name_is_told_and_identifies_a_dataset(tmp_path: Path) -> None:
    path = not_utf8(tmp_path)
    path.write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match=r"caf\\xe9\.py: not UTF-8 \(byte 3\)"):
        list(FolderConfig(path=UserPath(tmp_path)).documents())
    assert HuggingFaceConfig(name=str(tmp_path)).identity()["files"][0][0] == "caf\\xe9.py"


def test_folder_is_named_by_its_content_not_its_place(tmp_path: Path) -> None:
    configs = []
    for place in ("x", "y"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.txt").write_text("one", encoding="utf-8")
        configs.append(FolderConfig(path=UserPath(tmp_path / place)))
    assert configs[0].identity() == configs[1].identity()
    (tmp_path / "y" / "a.txt").write_text("two", encoding="utf-8")  # same name, same size
    assert configs[0].identity() != configs[1].identity()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"no file matches \*\*/\*"),
        ({"a.bin": b"ab\0c"}, "a.bin: a binary file"),
        ({"a.txt": b"caf\xe9"}, r"a.txt: not UTF-8 \(byte 3\)"),
    ],
)
def test_bad_folders_get_one_clear_line(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    with pytest.raises(UserError, match=message) as error:
        corpus_folder(FolderConfig(path=UserPath(folder)), tmp_path / "root")
    assert "\n" not in str(error.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"corpus.path: .*nowhere: not a folder"):
        FolderConfig(path=UserPath(tmp_path / "nowhere")).identity()


def test_an_impossible_pattern_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"corpus.patterns: /etc"):
        FolderConfig(path=UserPath(tmp_path), patterns=("/etc/*",)).identity()


@pytest.mark.parametrize("text", ["", "a\n\nb\nc\n", "x" * 35, "one\ntwo\n\nthree\nfour\n" * 5, "\n\n\n" * 9])
def test_pieces_are_short_and_join_to_the_text(text: str) -> None:
    found = list(pieces(text, 10))
    assert "".join(found) == text
    assert all(0 < len(piece) <= 10 for piece in found)


def test_pieces_prefer_blank_lines() -> None:
    assert list(pieces("aa\n\nbb\ncc\n", 9)) == ["aa\n\n", "bb\ncc\n"]


# --- huggingface, on local datasets


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return [{"text": f"document {i}", "other": i} for i in range(6)] + [{"text": "", "other": 6}]


def test_json_lines_folder_and_file(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    file = tmp_path / "set" / "train.jsonl"
    file.parent.mkdir()
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    expected = [f"document {i}" for i in range(6)]
    assert texts(HuggingFaceConfig(name=str(file.parent))) == expected
    assert texts(HuggingFaceConfig(name=str(file))) == expected
    assert texts(HuggingFaceConfig(name=str(file), max_documents=2)) == expected[:2]
    assert texts(HuggingFaceConfig(name=str(file), max_megabytes=1e-5)) == expected[:1]


def test_saved_dataset_and_its_splits(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    saved = datasets.Dataset.from_list(rows)
    saved.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": saved, "dev": saved.select([3])}).save_to_disk(str(tmp_path / "two"))
    assert len(texts(HuggingFaceConfig(name=str(tmp_path / "one")))) == 6
    assert texts(HuggingFaceConfig(name=str(tmp_path / "two"), split="dev")) == ["document 3"]
    with pytest.raises(UserError, match=r"corpus.split: 'test': allowed: train, dev"):
        texts(HuggingFaceConfig(name=str(tmp_path / "two"), split="test"))


def test_parquet_is_named_by_its_content(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    (tmp_path / "set").mkdir()
    config = HuggingFaceConfig(name=str(tmp_path / "set"))
    datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / "set" / "train.parquet"))
    before = config.identity()
    assert len(texts(config)) == 6
    datasets.Dataset.from_list(rows[:3]).to_parquet(str(tmp_path / "set" / "train.parquet"))
    assert config.identity() != before


def test_wrong_columns_and_splits_are_named(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / "train.parquet"))
    with pytest.raises(UserError, match=r"corpus.text_column: 'body': allowed: other, text"):
        texts(HuggingFaceConfig(name=str(tmp_path), text_column="body"))
    with pytest.raises(
        UserError, match=r"corpus.text_column: 'other': .*train.parquet: row 0 is int, not text"
    ):
        texts(HuggingFaceConfig(name=str(tmp_path), text_column="other"))
    with pytest.raises(UserError, match=r"corpus.split: 'dev': allowed: train"):
        texts(HuggingFaceConfig(name=str(tmp_path), split="dev"))


def test_an_empty_folder_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"can't be read as a dataset") as error:
        texts(HuggingFaceConfig(name=str(tmp_path)))
    assert "\n" not in str(error.value)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'sparsity_lab\[huggingface\]'"):
        texts(HuggingFaceConfig(name="any"))


def test_a_csv_goes_through_the_library(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,other\none,1\ntwo,2\n")
    assert texts(HuggingFaceConfig(name=str(tmp_path / "a.csv"))) == ["one", "two"]


@pytest.mark.parametrize(
    "error", [TypeError("Couldn't cast\n string to null"), NotImplementedError("nested")]
)
def test_whatever_the_library_raises_is_one_whole_line(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*args: Any, **more: Any) -> Any:
        yield {"text": "one"}
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(UserError) as told:
        texts(HuggingFaceConfig(name="some/name"))
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    assert str(told.value) == f"corpus.name: some/name: can't be read as a dataset: {reason}"


# --- the stage


def split_of(folder: Path) -> tuple[set[str], set[str]]:
    train, validation = (
        {document.text for document in read_documents(folder, split)} for split in ("train", "validation")
    )
    return train, validation


def write_documents(folder: Path, documents: list[str]) -> FolderConfig:
    folder.mkdir()
    for i, text in enumerate(documents):
        (folder / f"{i:04}.txt").write_text(text, encoding="utf-8")
    return FolderConfig(path=UserPath(folder), validation_share=0.3)


def test_each_document_once_and_on_one_side_whatever_the_order(tmp_path: Path) -> None:
    documents = [f"document {i}\n" for i in range(200)]
    first = corpus_folder(write_documents(tmp_path / "a", documents), tmp_path / "root")
    train, validation = split_of(first)
    assert train | validation == set(documents)
    assert not train & validation
    assert 58 <= len(validation) <= 62
    # another order, each twice, and a blank one: the same split
    again = [*reversed(documents), *documents, "  \n"]
    second = corpus_folder(write_documents(tmp_path / "b", again), tmp_path / "root")
    assert split_of(second) == (train, validation)
    assert sum(1 for split in ("train", "validation") for _ in read_documents(second, split)) == 200


def test_the_inventory_stays_with_the_corpus(tmp_path: Path) -> None:
    config = PythonSourceConfig(packages=("pydantic",), max_megabytes=0.05)
    folder = corpus_folder(config, tmp_path)
    assert folder.parent == tmp_path / "corpora"
    (kept,) = read_json(folder / "about.json")["inputs"]["inventory"]
    assert kept["name"] == "pydantic"
    assert kept["version"] == metadata.version("pydantic")


def test_a_finished_corpus_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_documents(tmp_path / "a", ["one", "two", "three"])
    folder = corpus_folder(config, tmp_path / "root")
    monkeypatch.setattr(FolderConfig, "documents", lambda self: pytest.fail("read again"))
    assert corpus_folder(config, tmp_path / "root") == folder


def test_one_document_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"corpus: 1 documents; at least 2"):
        corpus_folder(write_documents(tmp_path / "a", ["same", "same"]), tmp_path / "root")
