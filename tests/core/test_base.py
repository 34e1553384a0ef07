"""The base: errors that say what is allowed, hashes and seeds that stay, files that are whole or absent."""

from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import field_validator

from sparsity_lab.core.config import Config, validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json, write_json, write_text
from sparsity_lab.core.hashing import content_hash, derive_seed


class Inner(Config):
    width: int = 1
    kind: Literal["wide", "narrow"] = "wide"


class Outer(Config):
    seed: int
    inner: Inner = Inner()
    sizes: tuple[int, ...] | None = ()
    ends: tuple[int, int] = (0, 1)
    name: str = ""
    share: float = 0.5
    names: Literal["all"] | tuple[str, ...] = "all"

    @field_validator("share")
    @classmethod
    def _share(cls, share: float) -> float:
        if share > 1:
            raise ValueError("Must be at most 1")
        return share


def message(values: Any, where: str = "") -> str:
    with pytest.raises(UserError) as caught:
        validate(Outer, values, where)
    return str(caught.value)


def test_valid_values_become_a_config() -> None:
    config = validate(Outer, {"seed": 3, "inner": {"width": 2}, "sizes": [1, 2], "share": 1})
    assert config == Outer(seed=3, inner=Inner(width=2), sizes=(1, 2), share=1.0)


def test_integers_may_be_spelt_as_floats_and_a_single_item_as_a_list() -> None:
    config = validate(Outer, {"seed": 1e6, "inner": {"width": 2.0}, "sizes": 3.0, "ends": [1e1, 20]})
    assert config == Outer(seed=1_000_000, inner=Inner(width=2), sizes=(3,), ends=(10, 20))
    assert isinstance(config.seed, int)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"seed": 1, "sede": 2},
            "sede: unknown key; did you mean seed?; allowed: seed, inner, sizes, ends, name, share, names",
        ),
        (
            {"seed": 1, "inner": {"widht": 2}},
            "inner.widht: unknown key; did you mean width?; allowed: width, kind",
        ),
        ({}, "seed: missing"),
        ({"seed": "one"}, "seed: 'one': input should be a valid integer"),
        ({"seed": 1.5}, "seed: 1.5: input should be a valid integer"),
        ({"seed": 1e300}, "seed: 1e+300: input should be a valid integer"),
        ({"seed": True}, "seed: True: input should be a valid integer"),
        ({"seed": 1, "sizes": [1, "x"]}, "sizes.1: 'x': input should be a valid integer"),
        ({"seed": 1, "sizes": {"a": 1}}, "sizes: must be a list, as [a, b]"),
        ({"seed": 1, "sizes": True}, "sizes: True: must be a list, as [a, b]"),
        ({"seed": 1, "ends": 3}, "ends: 3: must be a list, as [a, b]"),
        ({"seed": 1, "sizes": "x"}, "sizes.0: 'x': input should be a valid integer"),
        ({"seed": 1, "name": 7}, "name: 7: must be text; to give a number as text: 'name=\"7\"'"),
        ({"seed": 1, "inner": {"kind": "tall"}}, "inner.kind: 'tall': input should be 'wide' or 'narrow'"),
        ({"seed": 1, "names": True}, "names: True: input should be 'all', or must be a list, as [a, b]"),
        ({"seed": 1, "names": {}}, "names: input should be 'all', or must be a list, as [a, b]"),
        (
            {"seed": 1, "names": ["a", 5]},
            "names.1: 5: must be text; to give a number as text: 'names=[\"5\"]'",
        ),
        (
            {"seed": 1, "names": -0.5},
            "names.0: -0.5: must be text; to give a number as text: 'names=[\"-0.5\"]'",
        ),
        ({"seed": 1, "share": 2.0}, "share: 2.0: must be at most 1"),
        ({"seed": 1, "share": float("nan")}, "share: nan: input should be a finite number"),
    ],
)
def test_an_error_is_one_line_with_key_value_and_what_is_allowed(values: Any, expected: str) -> None:
    assert message(values) == expected


def test_every_error_is_told_with_where_it_was() -> None:
    lines = message({"inner": {"width": "a", "depth": 1}, "share": 7.0}, "file.json").splitlines()
    assert lines == [
        "file.json.seed: missing",
        "file.json.inner.width: 'a': input should be a valid integer",
        "file.json.inner.depth: unknown key; allowed: width, kind",
        "file.json.share: 7.0: must be at most 1",
    ]


def test_what_json_cannot_say_is_refused() -> None:
    assert message({"seed": object()}, "here").startswith("here: Object of type object")


def test_configs_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Inner().width = 2


def test_content_hash_is_a_function_of_the_json_alone() -> None:
    assert content_hash({"a": 1, "b": [1, 2]}, "x") == content_hash({"b": (1, 2), "a": 1}, "x")
    assert content_hash(Inner()) == content_hash({"kind": "wide", "width": 1})
    # may change only if every finished folder may be made anew
    assert content_hash({"a": 1}) == "b713f6d2a989"
    different = [{"a": 1}, {"a": 2}, {"a": 1.5}, {"a": "1"}, {"b": 1}, [{"a": 1}]]
    assert len({content_hash(value) for value in different}) == len(different)


def test_seeds_are_stable_positive_and_differ_by_name_and_seed() -> None:
    assert derive_seed(0, "batches") == derive_seed(0, "batches")
    seeds = {derive_seed(seed, name, index) for seed in range(20) for name in "ab" for index in range(20)}
    assert len(seeds) == 800
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, "23") != derive_seed(12, "3") != derive_seed(1, "2", "3")


def test_json_round_trip_and_its_errors(tmp_path: Path) -> None:
    write_json(tmp_path / "deep" / "a.json", Outer(seed=1))
    assert validate(Outer, read_json(tmp_path / "deep" / "a.json")) == Outer(seed=1)
    with pytest.raises(UserError, match=r"b\.json: no such file"):
        read_json(tmp_path / "b.json")
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(UserError, match=r"c\.json: not readable as JSON"):
        read_json(tmp_path / "c.json")
    (tmp_path / "d.json").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"d\.json: not readable as JSON"):
        read_json(tmp_path / "d.json")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "e.json", float("nan"))
    assert not (tmp_path / "e.json").exists()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \ud800")
    assert path.read_text() == "old"
    write_text(path, "new")
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == ["a.txt"]
    assert path.read_text() == "new"


def test_what_a_killed_write_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".a[1].txt.0a1b2c3d.tmp").write_text("half")
    write_text(tmp_path / "a[1].txt", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a[1].txt"]
