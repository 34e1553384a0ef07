"""Messages name the key that was typed: each begins with a key of the config, or with a path."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from sparsity_lab.config import RunConfig

ROOM = Path(__file__).parents[2] / "sparsity_lab" / "data"
PLACES = {"path", "folder", "where"}  # placeholders of files; whoever has them has the path that was typed
CALLS = {"UserError", "foreign"}


def keys_of(cls: Any) -> Iterator[str]:
    """Every key below a config class, as it is typed."""
    for name, field in getattr(cls, "model_fields", {}).items():
        yield name
        for member in members(field.annotation):
            yield from (f"{name}.{key}" for key in keys_of(member))


def members(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from members(part)


def messages() -> list[tuple[str, str]]:
    """Where each message is written, and its beginning: text, or a placeholder as `{expression}`."""
    found = []
    for path in sorted(ROOM.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS):
                continue
            text = node.args[0]
            parts = text.values if isinstance(text, ast.JoinedStr) else [text]
            whole = "".join(
                str(part.value) if isinstance(part, ast.Constant) else f"{{{ast.unparse(part)}}}"
                for part in parts
            )
            found.append((f"{path.name}:{node.lineno}", whole))
    return found


KEYS = set(keys_of(RunConfig))
MESSAGES = messages()


def test_the_walks_find_keys_and_messages() -> None:
    assert {"seed", "model.n_ctx", "corpus.text_column", "corpus.validation_share", "tokenizer.path"} <= KEYS
    assert "n_ctx" not in KEYS
    assert len(MESSAGES) > 40


@pytest.mark.parametrize(("place", "message"), MESSAGES, ids=[place for place, _ in MESSAGES])
def test_a_message_begins_with_a_key_that_can_be_typed(place: str, message: str) -> None:
    if message.startswith("{"):
        assert re.match(r"\{+([a-z_]+)[/ }(]", message.replace("{f'{", "{")), message
        expression = message[1:].split("}")[0]
        assert any(name in expression for name in PLACES), f"{place}: begins with {expression}"
    elif word := re.match(r"([\w.]+):", message):
        assert word[1] in KEYS, f"{place}: {word[1]} is no key of the config"
