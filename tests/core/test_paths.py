"""Every path in a config: as it was written in records and hashes, absolute where files are opened."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from sparsity_lab.config import RunConfig
from sparsity_lab.core.config import Config, validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.hashing import content_hash
from sparsity_lab.core.paths import NameOrPath, UserPath, relative_to


class Holder(Config):
    path: UserPath
    other: UserPath | None = None
    name: NameOrPath = "a"


def test_a_path_is_absolute_and_shown_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for written, absolute in (
        ("runs", tmp_path / "runs"),
        ("~/runs", tmp_path / "home" / "runs"),
        ("~", tmp_path / "home"),
        ("./~", tmp_path / "~"),
        ("/there", Path("/there")),
        (".", tmp_path),
    ):
        path = validate(Holder, {"path": written}).path
        assert (str(path), Path(path), path.absolute) == (written, absolute, absolute)


def test_a_relative_path_stays_what_it_was_when_the_working_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "job").mkdir()
    monkeypatch.chdir(tmp_path)
    before = UserPath("runs")
    monkeypatch.chdir(tmp_path / "job")
    assert Path(before) == tmp_path / "runs"
    assert Path(pickle.loads(pickle.dumps(before))) == tmp_path / "runs"
    with relative_to(tmp_path):
        assert Path(UserPath("runs")) == tmp_path / "runs"
    assert Path(UserPath("runs")) == tmp_path / "job" / "runs"


def test_a_dumped_config_has_paths_as_they_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = set()
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        hashes.add(content_hash(validate(Holder, {"path": "runs"})))
    assert hashes == {content_hash({"path": "runs", "other": None, "name": "a"})}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("", "path: '': a path must not be empty; the folder of the command is ."),
        ("  ", "path: '  ': a path must not be empty; the folder of the command is ."),
        ("None", "path: 'None': must be a path; a folder of this name is ./None"),
        (None, "path: None: must be a path, as text"),
        (3, "path: 3: must be a path, as text"),
        (
            "~nobody-of-this-name/x",
            "path: '~nobody-of-this-name/x': ~nobody-of-this-name is no user's home here",
        ),
        ("a\0b", "path: 'a\\x00b': a path must not contain a NUL character"),
    ],
)
def test_what_is_no_path_is_refused_in_one_line(written: Any, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        validate(Holder, {"path": written})
    assert str(caught.value) == expected
    if written is not None:
        for key in ("other", "name") if isinstance(written, str) else ("other",):
            with pytest.raises(UserError) as caught:
                validate(Holder, {"path": "x", key: written})
            assert str(caught.value) == expected.replace("path:", f"{key}:", 1)


def fields(cls: Any) -> Iterator[tuple[type[BaseModel], str, Any]]:
    """Every field of a config class and of the classes in it."""
    if isinstance(cls, type) and issubclass(cls, BaseModel):
        for name, field in cls.model_fields.items():
            yield cls, name, field.annotation
            yield from fields(field.annotation)
    for part in get_args(cls):
        yield from fields(part)


def test_every_path_of_the_runs_config_has_this_type() -> None:
    names = {"path", "root", "folder", "vocab_bpe", "encoder_json"}
    found = [(cls, name, kind) for cls, name, kind in fields(RunConfig) if name in names]
    assert {name for _, name, _ in found} == names
    assert len(found) >= 9
    for cls, name, kind in found:
        assert UserPath in (kind, *get_args(kind)), f"{cls.__module__}.{name}"
