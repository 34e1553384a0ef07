"""A sparsity method from outside the package: found by its path, checked before any work, trained with."""

from pathlib import Path

import pytest
from micro import SMALL, write_tokens_folder
from twelve_steps import METHOD_FILE, STEPS, new_module

from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.paths import UserPath
from sparsity_lab.data.datamodule import TokenDataModule
from sparsity_lab.training.fit import fit
from sparsity_lab.training.sparsity.file import Config

START = "from sparsity_lab.training.sparsity.sparsifier import SparsifierConfig\n"


def test_a_method_from_a_file_trains(tmp_path: Path) -> None:
    copy = tmp_path / "mine.py"
    copy.write_text(METHOD_FILE.read_text())
    values = {"kind": "file", "path": str(copy), "options": {"share": 0.25, "at_step": 7}}
    module = new_module(validate(Config, values, "sparsity"))
    tokens = write_tokens_folder(tmp_path / "tokens")
    data = TokenDataModule(tokens, SMALL.n_ctx, 8, module.n_steps, 7, 16)
    fit(module, data, tmp_path / "out", [], "test")
    for name, (weight, _) in module.model.sparse_weights().items():
        assert weight.count_nonzero() == round(0.25 * weight.numel()), name
    assert [module.sparsifier.kept_fraction(step) for step in (0, 6, 7, STEPS)] == [1.0, 1.0, 0.25, 0.25]


def test_the_identity_is_the_content_and_all_options_not_the_place(tmp_path: Path) -> None:
    one, other = tmp_path / "one.py", tmp_path / "other place.py"
    for path in (one, other):
        path.write_text(METHOD_FILE.read_text())
    first = Config(path=UserPath(one), options={"share": 0.5}).identity()
    assert first["options"] == {"kind": "one_shot", "share": 0.5, "at_step": 4}
    assert Config(path=UserPath(other), options={"share": 0.5, "at_step": 4}).identity() == first
    assert Config(path=UserPath(one), options={"share": 0.4}).identity() != first
    other.write_text(METHOD_FILE.read_text() + "\n# changed\n")
    assert Config(path=UserPath(other), options={"share": 0.5}).identity() != first
    assert hash(Config(path=UserPath(one), options={"share": 0.5}))  # as any frozen config
    assert Config(path=UserPath(other), options={"share": 0.5}).label == "other_place-one_shot"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("make = None", r"must define Config, a subclass of SparsifierConfig$"),
        ("class Config: pass", r"must define Config, a subclass of SparsifierConfig$"),
        (
            START + "class Config(SparsifierConfig): pass",
            r"must define make\(config, model, n_steps, seed\)$",
        ),
        ("1 / 0", r"ZeroDivisionError: division by zero$"),
        ("def", r"SyntaxError: .*"),
    ],
)
def test_a_file_that_is_no_method_is_told_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"^sparsity.path: .*wrong.py: {told}") as caught:
        validate(Config, {"kind": "file", "path": str(path)}, "sparsity")
    assert "\n" not in str(caught.value)


def test_options_are_told_by_their_names() -> None:
    with pytest.raises(UserError) as caught:
        validate(Config, {"kind": "file", "path": str(METHOD_FILE), "options": {"at_step": "x"}}, "sparsity")
    lines = str(caught.value).splitlines()
    assert lines[0] == "sparsity.options.share: missing"
    assert lines[1].startswith("sparsity.options.at_step: 'x': input should be a valid integer")
