"""Byte-pair encodings: trained here on the corpus, named by tiktoken, or read from GPT-2 style files.

All of them end as a `tiktoken.Encoding` behind one small class. Special tokens inside a text are ordinary
text, so `decode(encode(text)) == text` for every valid Unicode string. A tokenizer is saved as plain JSON
beside the data it encoded: pattern, special tokens, each token's rank, its bytes as Latin-1 characters.
"""

import logging
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import tiktoken

from sparsity_lab.core.config import Config, validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json, write_json

END_OF_TEXT = "<|endoftext|>"
PATTERN = r"[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
RELEASED_PATTERN = (  # openai/circuit_sparsity's own, for its `vocab.bpe` and `encoder.json`
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

LONG_BLANK = 100_000  # characters; in a longer blank the pattern's look-ahead overflows tiktoken's stack
_LONG_BLANK = re.compile(rf"\s{{{LONG_BLANK}}}")


class _Saved(Config):
    version: Literal[1] = 1
    pattern: str
    special_tokens: dict[str, int]
    ranks: dict[str, int]


@dataclass(frozen=True)
class Tokenizer:
    """An encoding and its end-of-text token."""

    encoding: tiktoken.Encoding

    @property
    def vocab_size(self) -> int:
        """One more than the largest id (an encoding may leave ids below it unused)."""
        return int(self.encoding.max_token_value) + 1

    @property
    def end_of_text(self) -> int:
        """Id of the token between documents."""
        return int(self.encoding.encode_single_token(END_OF_TEXT))

    def encode(self, text: str) -> list[int]:
        """Ids of a text.

        Raises:
            UserError: the text holds a lone surrogate, which has no bytes in UTF-8.
        """
        _check_unicode(text)
        if len(text) < LONG_BLANK:
            return self.encoding.encode_ordinary(text)
        cuts = [0, *(blank.end() for blank in _LONG_BLANK.finditer(text)), len(text)]
        return [id for start, end in pairwise(cuts) for id in self.encoding.encode_ordinary(text[start:end])]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, on a thread for every core."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # tiktoken releases the interpreter's lock
            return list(pool.map(self.encode, texts))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; bytes that are no UTF-8 (a sequence cut within a character) become U+FFFD.

        Raises:
            UserError: an id is not in the vocabulary.
        """
        return b"".join(self._bytes(id) for id in ids).decode("utf-8", errors="replace")

    def token(self, id: int) -> str:
        """One token for display: bytes that are no UTF-8 are shown as `\\xNN`."""
        return self._bytes(id).decode("utf-8", errors="backslashreplace")

    def save(self, path: Path) -> None:
        """Write the tokenizer as JSON."""
        ranks = {token.decode("latin-1"): id for token, id in self.encoding._mergeable_ranks.items()}
        specials = dict(self.encoding._special_tokens)
        write_json(path, _Saved(pattern=self.encoding._pat_str, special_tokens=specials, ranks=ranks))

    def _bytes(self, id: int) -> bytes:
        try:
            return self.encoding.decode_single_token_bytes(int(id))
        except (KeyError, OverflowError):
            raise UserError(f"token id {id}: not in the vocabulary of {self.vocab_size}") from None


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn merges until there are `vocab_size` entries; `<|endoftext|>` is the last of them.

    Raises:
        UserError: the texts are too few to learn as many.
    """
    import rustbpe

    logging.getLogger("rustbpe").setLevel(logging.WARNING)  # else a line for every hundredth merge
    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(iter(texts), vocab_size - 1, pattern=PATTERN)
    ranks = {bytes(token): id for token, id in trainer.get_mergeable_ranks()}
    if len(ranks) < vocab_size - 1:
        most = len(ranks) + 1
        raise UserError(
            f"tokenizer.vocab_size: {vocab_size}: the corpus is too small, it gives {most} at most"
        )
    return checked_tokenizer(PATTERN, ranks, {END_OF_TEXT: len(ranks)}, "trained tokenizer")


def load_tokenizer(path: Path) -> Tokenizer:
    """Read what `Tokenizer.save` wrote.

    Raises:
        UserError: the file is missing, is not JSON, or is not a whole tokenizer.
    """
    saved = validate(_Saved, read_json(path), str(path))
    try:
        ranks = {token.encode("latin-1"): id for token, id in saved.ranks.items()}
    except UnicodeEncodeError as error:
        raise UserError(f"{path}: ranks: {error.object!r}: not bytes written as Latin-1 characters") from None
    return checked_tokenizer(saved.pattern, ranks, saved.special_tokens, str(path))


def checked_tokenizer(
    pattern: str, ranks: dict[bytes, int], specials: dict[str, int], where: str
) -> Tokenizer:
    """Check what tiktoken would panic at, then build."""
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    ids = [*ranks.values(), *specials.values()]
    if missing:
        raise UserError(f"{where}: no token for byte {missing[0]}; a tokenizer needs all 256 bytes")
    if len(set(ids)) < len(ids) or min(ids) < 0 or max(ids) >= 2**31:
        raise UserError(f"{where}: token ids must be distinct and between 0 and 2^31 - 1")
    if END_OF_TEXT not in specials:
        raise UserError(f"{where}: no special token {END_OF_TEXT}")
    try:
        return Tokenizer(
            tiktoken.Encoding("sparsity_lab", pat_str=pattern, mergeable_ranks=ranks, special_tokens=specials)
        )
    except ValueError as error:
        raise UserError(f"{where}: pattern: {pattern!r}: not a regular expression ({error})") from None


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def _check_unicode(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"text has a lone surrogate at position {error.start}, which is not valid Unicode"
        ) from None
