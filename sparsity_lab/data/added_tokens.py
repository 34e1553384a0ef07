"""Split a text at the added tokens of a `tokenizer.json`, before the rest is split and merged.

The search follows the library `tokenizers`. A first pass finds the tokens with `normalized: false`, a second
those with `normalized: true` in the remaining text. Each pass takes the leftmost, then the longest match.
Special tokens take part in the search, but inside a text they are ordinary text (see `tokenizer.py`).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import ConfigDict, Field

from sparsity_lab.core.config import Config, validate
from sparsity_lab.core.errors import UserError

CONSUMING = ("lstrip", "rstrip", "single_word")


class AddedToken(Config):
    """One added token."""

    content: str
    id: int = Field(ge=0)
    special: bool = False
    normalized: bool = False


class _Listed(AddedToken):
    """An entry of `added_tokens`. Unknown keys of later versions are ignored."""

    model_config = ConfigDict(extra="ignore")

    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


class _List(Config):
    added_tokens: tuple[_Listed, ...]


def read_added_tokens(listed: Any, where: str) -> tuple[AddedToken, ...]:
    """Parse the `added_tokens` of a `tokenizer.json`.

    Raises:
        UserError: the list is malformed, or a non-special token strips adjacent blanks or matches whole words
            only, so that `decode(encode(text)) == text` would not hold.
    """
    found = validate(_List, {"added_tokens": listed}, where).added_tokens
    for token in found:
        refused = [name for name in CONSUMING if getattr(token, name)]
        if refused and not token.special:
            raise UserError(
                f"{where}: added token {token.content!r}: {refused[0]}: true: allowed: false, "
                "unless the token is special"
            )
    return tuple(
        AddedToken(content=token.content, id=token.id, special=token.special, normalized=token.normalized)
        for token in found
        if token.content
    )


@dataclass(frozen=True)
class AddedTokens:
    """All added tokens of a tokenizer; at least one is not special."""

    tokens: tuple[AddedToken, ...]

    def split(self, text: str) -> Iterator[str | int]:
        """Yield the ids of added tokens and the text between them."""
        for part in _split(text, *self._passes[0]):
            if isinstance(part, int):
                yield part
            else:
                yield from _split(part, *self._passes[1])

    @cached_property
    def _passes(self) -> tuple["_Pass", "_Pass"]:
        return _pass(self.tokens, normalized=False), _pass(self.tokens, normalized=True)


_Pass = tuple[re.Pattern[str] | None, dict[str, AddedToken]]


def _pass(tokens: tuple[AddedToken, ...], normalized: bool) -> _Pass:
    by_content = {token.content: token for token in tokens if token.normalized is normalized}
    if all(token.special for token in by_content.values()):
        return None, {}
    longest_first = sorted(by_content, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))), by_content


def _split(text: str, pattern: re.Pattern[str] | None, tokens: dict[str, AddedToken]) -> Iterator[str | int]:
    start = 0
    for match in pattern.finditer(text) if pattern else ():
        token = tokens[match.group()]
        if token.special:
            continue
        if start < match.start():
            yield text[start : match.start()]
        yield token.id
        start = match.end()
    if start < len(text):
        yield text[start:]
