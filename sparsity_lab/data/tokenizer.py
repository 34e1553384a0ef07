"""Byte-pair encodings: trained here on the corpus, named by tiktoken, or read from GPT-2 style files.

Each is wrapped as a `tiktoken.Encoding` in one small class. Special tokens inside a text are ordinary text,
so `decode(encode(text)) == text` for every valid Unicode string. A tokenizer is saved as plain JSON beside
the data it encoded: pattern, special tokens, and the rank of each token, with its bytes as Latin-1
characters. Added tokens are saved if some of them are not special.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tiktoken

from sparsity_lab.core.config import Config, validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json, write_json
from sparsity_lab.core.foreign import foreign
from sparsity_lab.core.threads import usable_threads
from sparsity_lab.data.added_tokens import AddedToken, AddedTokens
from sparsity_lab.data.long_runs import cut_long_runs

END_OF_TEXT = "<|endoftext|>"
# GPT-4's pattern, but an opening bracket is a token of its own, and a word takes no quote before it.
PATTERN = (
    r"[^\r\n\p{L}\p{N}(\[{\"']?+\p{L}+|\p{N}{1,2}| ?[(\[{]| ?[^\s\p{L}\p{N}(\[{]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
RELEASED_PATTERN = (  # openai/circuit_sparsity's pattern for its `vocab.bpe` and `encoder.json`
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

LOOK = 1.0  # seconds between progress checks while a batch is encoded


class _Saved(Config):
    version: Literal[1] = 1
    pattern: str
    special_tokens: dict[str, int]
    ranks: dict[str, int]
    added_tokens: tuple[AddedToken, ...] = ()


@dataclass(frozen=True)
class Tokenizer:
    """An encoding with an end-of-text token, and the added tokens at which a text is split first."""

    encoding: tiktoken.Encoding
    added: AddedTokens | None = None

    @property
    def vocab_size(self) -> int:
        """One more than the largest id; smaller ids may be unused."""
        return int(self.encoding.max_token_value) + 1

    @property
    def end_of_text(self) -> int:
        """Id of the token between documents."""
        return int(self.encoding.encode_single_token(END_OF_TEXT))

    def encode(self, text: str) -> list[int]:
        """Encode a text as ids.

        Raises:
            UserError: the text holds a lone surrogate, which has no bytes in UTF-8.
        """
        _check_unicode(text)
        if self.added is None:
            return self._encode(text)
        parts = self.added.split(text)
        return [id for part in parts for id in ([part] if isinstance(part, int) else self._encode(part))]

    def encode_batch(
        self, texts: Sequence[str], waiting: Callable[[], None] = lambda: None
    ) -> list[list[int]]:
        """Encode each text, on all usable cores; call `waiting` every second meanwhile."""
        with ThreadPoolExecutor(usable_threads()) as pool:  # tiktoken releases the interpreter's lock
            encoded = [pool.submit(self.encode, text) for text in texts]
            while wait(encoded, timeout=LOOK).not_done:
                waiting()
            return [ids.result() for ids in encoded]

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids. Bytes that are not UTF-8 (as of a character cut in two) become U+FFFD.

        Raises:
            UserError: an id is not in the vocabulary.
        """
        return b"".join(self._bytes(id) for id in ids).decode("utf-8", errors="replace")

    def token(self, id: int) -> str:
        """Format one token for display, with bytes that are not UTF-8 as `\\xNN`."""
        return self._bytes(id).decode("utf-8", errors="backslashreplace")

    def save(self, path: Path) -> None:
        """Write the tokenizer as JSON."""
        ranks = {token.decode("latin-1"): id for token, id in self.encoding._mergeable_ranks.items()}
        specials = dict(self.encoding._special_tokens)
        saved = _Saved(
            pattern=self.encoding._pat_str,
            special_tokens=specials,
            ranks=ranks,
            added_tokens=self.added.tokens if self.added else (),
        ).model_dump(mode="json")
        if self.added is None:
            del saved["added_tokens"]  # keeps the file identical to that of earlier versions
        write_json(path, saved)

    def _encode(self, text: str) -> list[int]:
        parts = cut_long_runs(text)
        with foreign(f"tokenizer: tiktoken can't encode the text that begins {text[:40]!r}"):
            return [id for part in parts for id in self.encoding.encode_ordinary(part)]

    def _bytes(self, id: int) -> bytes:
        try:
            return self.encoding.decode_single_token_bytes(int(id))
        except (KeyError, OverflowError):
            raise UserError(f"token id {id}: not in the vocabulary of {self.vocab_size}") from None


def train_bpe(texts: Iterable[str], vocab_size: int, pattern: str = PATTERN) -> Tokenizer:
    """Learn merges up to `vocab_size` entries, the last of which is `<|endoftext|>`.

    `pattern` cuts the text into pieces, within which tokens merge.

    Raises:
        UserError: the corpus is too small for this vocabulary.
    """
    import rustbpe

    logging.getLogger("rustbpe").setLevel(logging.WARNING)  # otherwise it logs every hundredth merge
    trainer = rustbpe.Tokenizer()
    parts = (part for text in texts for part in cut_long_runs(text))
    with foreign("tokenizer.kind: bpe: rustbpe can't learn from the corpus"):
        trainer.train_from_iterator(parts, vocab_size - 1, pattern=pattern)
    ranks = {bytes(token): id for token, id in trainer.get_mergeable_ranks()}
    if len(ranks) < vocab_size - 1:
        most = len(ranks) + 1
        raise UserError(
            f"tokenizer.vocab_size: {vocab_size}: the corpus is too small, it gives {most} at most"
        )
    return checked_tokenizer(pattern, ranks, {END_OF_TEXT: len(ranks)}, "trained tokenizer")


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer written by `Tokenizer.save`.

    Raises:
        UserError: the file is missing, is not JSON, or is not a complete tokenizer.
    """
    saved = validate(_Saved, read_json(path), str(path))
    try:
        ranks = {token.encode("latin-1"): id for token, id in saved.ranks.items()}
    except UnicodeEncodeError as error:
        raise UserError(f"{path}: ranks: {error.object!r}: not bytes written as Latin-1 characters") from None
    return checked_tokenizer(saved.pattern, ranks, saved.special_tokens, str(path), saved.added_tokens)


def checked_tokenizer(
    pattern: str,
    ranks: dict[bytes, int],
    specials: dict[str, int],
    where: str,
    added: tuple[AddedToken, ...] = (),
) -> Tokenizer:
    """Reject inputs on which tiktoken panics, then build. `added` must occur in `ranks` or `specials`."""
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    ids = [*ranks.values(), *specials.values()]
    if missing:
        raise UserError(f"{where}: no token for byte {missing[0]}; a tokenizer needs all 256 bytes")
    if len(set(ids)) < len(ids) or min(ids) < 0 or max(ids) >= 2**31:
        raise UserError(f"{where}: token ids must be distinct and between 0 and 2^31 - 1")
    if END_OF_TEXT not in specials:
        raise UserError(f"{where}: no special token {END_OF_TEXT}")
    with foreign(f"{where}: pattern: {pattern!r}: not a regular expression"):
        encoding = tiktoken.Encoding(
            "sparsity_lab", pat_str=pattern, mergeable_ranks=ranks, special_tokens=specials
        )
    for token in added:
        if token.id not in (ranks.get(token.content.encode()), specials.get(token.content)):
            raise UserError(
                f"{where}: added token {token.content!r}: no token of this text has the id {token.id}"
            )
    splitting = any(not token.special for token in added)
    return Tokenizer(encoding, AddedTokens(added) if splitting else None)


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
