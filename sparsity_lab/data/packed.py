"""Packed tokens: one flat file per split, with `<|endoftext|>` after each document.

A folder of tokens holds `tokenizer.json`, `train.bin`, `validation.bin` (uint16 while the vocabulary allows,
else uint32, little-endian), `validation.components.bin` (a byte per validation token, the index of its
component in `meta.json`) and `meta.json`. All functions here depend only on the tokens and their
arguments. The batch of a step depends only on the seed and the step; neither workers nor a resume change it.

Shapes: b batch, w windows, c = n_ctx + 1 tokens (inputs and the targets one later), v vocabulary.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from sparsity_lab.core.config import Config, validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json
from sparsity_lab.core.hashing import derive_seed
from sparsity_lab.core.stage import REMEDY

META = "meta.json"
TOKENIZER = "tokenizer.json"
COMPONENTS = "validation.components.bin"
MAX_BIGRAM_VOCAB = 16_384
BIGRAM_CHUNK = 1 << 22
Split = Literal["train", "validation"]
SPLITS: dict[Split, tuple[str, str]] = {  # name in messages, and remedies when it is too short
    "train": ("training", " or add text to the corpus"),
    "validation": ("validation", ", raise corpus.validation_share, or add text to the corpus"),
}
Tokens = npt.NDArray[Any]


class SplitMeta(Config):
    """Expected size and checksum of one split's file, and its tokens by component."""

    tokens: int
    documents: int
    crc32: int
    components: dict[str, int] = Field(default_factory=dict)


class TokensMeta(Config):
    """`meta.json` of a folder of tokens. `components` names the parts of the corpus."""

    version: Literal[1] = 1
    vocab_size: int
    end_of_text: int
    dtype: Literal["uint16", "uint32"]
    train: SplitMeta
    validation: SplitMeta
    components: tuple[str, ...] = ()


@dataclass(frozen=True)
class PackedTokens:
    """One split, mapped into memory: `tokens` is a flat read-only array of uint16 or uint32."""

    tokens: Tokens
    vocab_size: int
    end_of_text: int

    def __len__(self) -> int:
        return len(self.tokens)


def token_dtype(vocab_size: int) -> Literal["uint16", "uint32"]:
    """Return the smallest type that holds every id."""
    return "uint16" if vocab_size <= 2**16 else "uint32"


def write_tokens(path: Path, documents: Iterable[list[int]], dtype: str, end_of_text: int) -> SplitMeta:
    """Write documents one after the other, each followed by `end_of_text`."""
    tokens = count = crc = 0
    with path.open("wb") as file:
        for ids in documents:
            data = np.array([*ids, end_of_text], dtype=np.dtype(dtype).newbyteorder("<")).tobytes()
            file.write(data)
            crc = zlib.crc32(data, crc)
            tokens += len(ids) + 1
            count += 1
    return SplitMeta(tokens=tokens, documents=count, crc32=crc)


def write_components(folder: Path, component_of: Sequence[int], lengths: Sequence[int]) -> None:
    """Write the component of each validation token, for documents of `lengths` tokens, ends included."""
    np.repeat(np.array(component_of, dtype=np.uint8), lengths).tofile(folder / COMPONENTS)


def read_components(folder: Path) -> tuple[tuple[str, ...], npt.NDArray[np.uint8]]:
    """Return the components' names, and the component of each validation token as an index into them.

    A folder without components has one, without a name.

    Raises:
        UserError: the file is missing or has the wrong size.
    """
    meta = read_meta(folder)
    if not meta.components:
        return ("",), np.zeros(meta.validation.tokens, np.uint8)
    path = folder / COMPONENTS
    if not path.is_file() or path.stat().st_size != meta.validation.tokens:
        raise UserError(f"{path}: not a byte for each of {meta.validation.tokens} tokens; {REMEDY}")
    return meta.components, np.fromfile(path, np.uint8)


def read_meta(folder: Path) -> TokensMeta:
    """Read the `meta.json` of a folder of tokens; raises UserError when it is missing or wrong."""
    return validate(TokensMeta, read_json(folder / META), str(folder / META))


def open_tokens(folder: Path, split: Split) -> PackedTokens:
    """Map one split of a folder of tokens.

    Raises:
        UserError: the file is missing, has another size than `meta.json` says, or another checksum.
    """
    packed = map_tokens(folder, split)
    if _crc32(packed.tokens) != getattr(read_meta(folder), split).crc32:
        raise UserError(
            f"{folder / f'{split}.bin'}: corrupt, its checksum is not the one in {META}; {REMEDY}"
        )
    return packed


def map_tokens(folder: Path, split: Split) -> PackedTokens:
    """Map a split like `open_tokens` without verifying the checksum, after another process has done so.

    Raises:
        UserError: the file is missing, or has another size than `meta.json` says.
    """
    meta = read_meta(folder)
    expected: SplitMeta = getattr(meta, split)
    path, dtype = folder / f"{split}.bin", np.dtype(meta.dtype).newbyteorder("<")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    size, expected_size = path.stat().st_size, expected.tokens * dtype.itemsize
    if size != expected_size:
        raise UserError(f"{path}: {size} bytes, but {META} says {expected_size}; {REMEDY}")
    tokens: Tokens = np.memmap(path, dtype=dtype, mode="r") if size else np.empty(0, dtype)
    return PackedTokens(tokens, meta.vocab_size, meta.end_of_text)


def windows(tokens: Tokens, n_ctx: int, starts: npt.NDArray[np.int64]) -> torch.Tensor:
    """Return the windows of n_ctx + 1 tokens that begin at `starts` (w,): int64, shape (w, n_ctx + 1)."""
    index_wc = starts[:, None] + np.arange(n_ctx + 1)
    return torch.from_numpy(tokens[index_wc].astype(np.int64))


def random_batch(tokens: Tokens, n_ctx: int, batch_size: int, seed: int, step: int) -> torch.Tensor:
    """Draw a step's batch uniformly from all training windows: int64, shape (b, n_ctx + 1).

    Raises:
        UserError: the split is too short for a window.
    """
    require_window(tokens, n_ctx, "train")
    random = np.random.Generator(np.random.PCG64(derive_seed(seed, "batch", step)))
    return windows(tokens, n_ctx, random.integers(0, len(tokens) - n_ctx, size=batch_size))


def fixed_windows(tokens: Tokens, n_ctx: int, n_windows: int) -> torch.Tensor:
    """Return evenly spaced validation windows without shared targets: int64, shape (w, n_ctx + 1).

    The windows are always the same. There are fewer than `n_windows` if the split is short.

    Raises:
        UserError: the split is too short for a window.
    """
    require_window(tokens, n_ctx, "validation")
    count = min(n_windows, (len(tokens) - 1) // n_ctx)
    starts = np.arange(count, dtype=np.int64) * (len(tokens) - 1 - n_ctx) // max(count - 1, 1)
    return windows(tokens, n_ctx, starts)


def bigram_counts(tokens: Tokens, vocab_size: int) -> npt.NDArray[np.int64]:
    """Count how often token j follows token i: int64, shape (v, v). Document ends count as tokens.

    Raises:
        UserError: a token is outside the vocabulary, or the table would take more than 2 GiB.
    """
    if vocab_size > MAX_BIGRAM_VOCAB:
        raise UserError(
            f"model.bigram: a vocabulary of {vocab_size} is too large for a table; "
            f"allowed: at most {MAX_BIGRAM_VOCAB} entries, or model.bigram=none"
        )
    counts_vv = np.zeros(vocab_size * vocab_size, dtype=np.int64)
    chunk = max(BIGRAM_CHUNK, vocab_size * vocab_size)  # a chunk's count table is no larger than the chunk
    for start in range(0, len(tokens) - 1, chunk):
        part = tokens[start : start + chunk + 1].astype(np.int64)
        if part.max() >= vocab_size:
            raise UserError(f"token id {part.max()}: not in the vocabulary of {vocab_size}")
        counts_vv += np.bincount(part[:-1] * vocab_size + part[1:], minlength=vocab_size * vocab_size)
    return counts_vv.reshape(vocab_size, vocab_size)


def require_window(tokens: Tokens, n_ctx: int, split: Split) -> None:
    """Raise UserError if the split has no window of n_ctx + 1 tokens."""
    if len(tokens) < n_ctx + 1:
        name, more = SPLITS[split]
        raise UserError(
            f"model.n_ctx: {n_ctx}: too long, the {name} split has {len(tokens)} tokens; "
            f"lower model.n_ctx{more}"
        )


def _crc32(tokens: Tokens) -> int:
    crc = 0
    for start in range(0, len(tokens), 1 << 22):
        crc = zlib.crc32(tokens[start : start + (1 << 22)].tobytes(), crc)
    return crc
