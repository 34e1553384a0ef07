"""The kinds of tokenizer: trained here, named by tiktoken, or read from files."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import tiktoken
from pydantic import Field

from sparsity_lab.core.config import Config
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.foreign import foreign
from sparsity_lab.core.paths import UserPath
from sparsity_lab.data.tokenizer import END_OF_TEXT, RELEASED_PATTERN, Tokenizer, read_bytes, train_bpe
from sparsity_lab.data.tokenizer_folder import from_files, read_folder, splits_at_added, tokenizer_files


class BpeConfig(Config):
    """A byte-pair encoding trained on the training documents of the corpus."""

    kind: Literal["bpe"] = "bpe"
    vocab_size: int = Field(default=2048, ge=257)
    """Number of entries, including the 256 bytes and `<|endoftext|>`."""
    train_megabytes: float = Field(default=32.0, gt=0)
    """Maximum size of the training documents from which merges are learned."""


class TiktokenConfig(Config):
    """An encoding that tiktoken knows by name and downloads at first use."""

    kind: Literal["tiktoken"] = "tiktoken"
    name: str


class FilesConfig(Config):
    """A `vocab.bpe` and `encoder.json` pair, the layout of GPT-2 and openai/circuit_sparsity."""

    kind: Literal["files"] = "files"
    vocab_bpe: UserPath
    encoder_json: UserPath
    pattern: str = RELEASED_PATTERN


class FolderTokenizerConfig(Config):
    """The tokenizer of a model's folder, in any layout of `tokenizer_folder.py`."""

    kind: Literal["folder"] = "folder"
    path: UserPath


TokenizerConfig = Annotated[
    BpeConfig | TiktokenConfig | FilesConfig | FolderTokenizerConfig, Field(discriminator="kind")
]


def make_tokenizer(config: TokenizerConfig, texts: Iterable[str]) -> Tokenizer:
    """Make the tokenizer of a config. Only kind `bpe` reads `texts`, up to its `train_megabytes`."""
    if isinstance(config, BpeConfig):
        return train_bpe(_at_most(texts, config.train_megabytes * 1e6), config.vocab_size)
    if isinstance(config, TiktokenConfig):
        return _named(config.name)
    if isinstance(config, FolderTokenizerConfig):
        return read_folder(Path(config.path))
    return from_files(Path(config.vocab_bpe), Path(config.encoder_json), config.pattern)


def vocab_size_of(config: TokenizerConfig) -> int | None:
    """Return the vocabulary size if it is known before the corpus exists; None for tiktoken encodings.

    A tokenizer in files is read here, so that its errors appear before any work starts.

    Raises:
        UserError: the files are missing, or cannot be read exactly.
    """
    if isinstance(config, BpeConfig):
        return config.vocab_size
    return None if isinstance(config, TiktokenConfig) else make_tokenizer(config, ()).vocab_size


def identity(config: TokenizerConfig) -> dict[str, Any]:
    """Return the input of a tokenizer's hash: its config, with digests of files in place of paths."""
    if isinstance(config, FolderTokenizerConfig):
        folder = Path(config.path)
        files = tokenizer_files(folder)
        digests_by_name = {f.name: hashlib.sha256(read_bytes(f)).hexdigest() for f in files}
        # earlier versions gave such tokenizers different ids; their cached tokens must not be reused
        added = {"added_tokens": "split"} if splits_at_added(folder) else {}
        return {"kind": "folder", "digests": digests_by_name} | added
    if not isinstance(config, FilesConfig):
        return config.model_dump(mode="json")
    digests = [
        hashlib.sha256(read_bytes(Path(path))).hexdigest() for path in (config.vocab_bpe, config.encoder_json)
    ]
    return {"kind": config.kind, "pattern": config.pattern, "digests": digests}


def _named(name: str) -> Tokenizer:
    known = tiktoken.list_encoding_names()
    if name not in known:
        raise UserError(f"tokenizer.name: {name!r}: allowed: {', '.join(sorted(known))}")
    with foreign(f"tokenizer.name: {name!r}: tiktoken could not fetch it"):
        encoding = tiktoken.get_encoding(name)
    if END_OF_TEXT not in encoding.special_tokens_set:
        raise UserError(f"tokenizer.name: {name!r}: this encoding has no {END_OF_TEXT}")
    return Tokenizer(encoding)


def _at_most(texts: Iterable[str], size: float) -> Iterable[str]:
    """Yield texts until `size` bytes are reached."""
    read = 0
    for text in texts:
        yield text
        read += len(text.encode("utf-8"))
        if read >= size:
            return
