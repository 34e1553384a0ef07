"""The files beside a circuit: with them and the model, anyone can compute the circuit's losses again.

| file | content |
|---|---|
| `means.safetensors` | by site, as `0.attn_in`: the values at which its channels are frozen, float32 (c) |
| `pairs.safetensors` | by split, int64: `test.tokens` (b, t), `test.last` (b), `test.answers` (b, 2) |
| `pairs.jsonl` | the same pairs as text, for readers and for `--pairs` |

`last` is the index of a prompt's last token, and `answers` are the ids of the pair's two answers.
The rows b are all positive prompts, then all negative ones; the first of a row's two answers is the positive
prompt's. A circuit's file names the first two with their checksums, so a file of another circuit is refused.
`docs/recompute.py` reads them without this package.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from sparsity_lab.circuits.circuit import Beside, Circuit
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.extension import file_hash
from sparsity_lab.core.files import write_bytes, write_text
from sparsity_lab.core.shown import printable
from sparsity_lab.model.checkpoints import read_safetensors, require_finite, require_tensors
from sparsity_lab.model.config import ModelConfig
from sparsity_lab.tasks.batch import TaskBatch
from sparsity_lab.tasks.task import Pair, Split

MEANS, PAIRS, PAIRS_AS_TEXT = "means.safetensors", "pairs.safetensors", "pairs.jsonl"
TEXT = "text.safetensors"  # beside a model: windows of validation text
BESIDE = (MEANS, PAIRS, PAIRS_AS_TEXT)


def save_means(means_n: Tensor, config: ModelConfig, path: Path) -> None:
    """Write the value of every node (n) as one tensor for each site and layer."""
    slices = NodeLayout(config).slices
    tensors = {_name(*key): means_n[place].contiguous().clone() for key, place in slices.items()}
    write_bytes(path, save(tensors))


def load_means(path: Path, config: ModelConfig) -> Tensor:
    """Read the value of every node, float32 (n).

    Raises:
        UserError: the file is missing, damaged, or that of a model of another shape.
    """
    slices, tensors = NodeLayout(config).slices, read_safetensors(path)
    expected = {_name(*key): (place.stop - place.start,) for key, place in slices.items()}
    require_tensors(tensors, expected, f"{path}: not the sites of this model")
    require_finite(tensors, str(path))
    return torch.cat([tensors[_name(*key)].float() for key in slices])


def save_text(windows_wt: Tensor, path: Path) -> None:
    """Write windows of validation text (w, t) as int32 token ids, for pages, evidence and resampling."""
    write_bytes(path, save({"tokens": windows_wt.to(torch.int32).contiguous()}))


def load_text(path: Path, vocab_size: int) -> Tensor:
    """Read windows of text, int64 (w, t).

    Raises:
        UserError: the file is missing or damaged, or holds other tokens than a model with `vocab_size` has.
    """
    tensors = read_safetensors(path)
    windows_wt = tensors.get("tokens", torch.zeros(0))
    if set(tensors) != {"tokens"} or windows_wt.dtype != torch.int32 or windows_wt.dim() != 2:
        raise UserError(f"{path}: allowed: one tensor, tokens, int32 (windows, tokens)")
    if not windows_wt.numel() or windows_wt.min() < 0 or windows_wt.max() >= vocab_size:
        raise UserError(f"{path}: tokens: allowed: 0 to {vocab_size - 1}, at least one window")
    return windows_wt.long()


def save_pairs(
    pairs: Mapping[Split, Sequence[Pair]], batches: Mapping[Split, TaskBatch], folder: Path
) -> None:
    """Write the pairs of some splits into `folder`, as tokens and as text. `batches` encodes `pairs`."""
    parts = {"tokens": "tokens_bt", "last": "last_b", "answers": "answers_b2"}
    tensors = {
        f"{split}.{part}": getattr(batch, attribute).contiguous().clone()
        for split, batch in batches.items()
        for part, attribute in parts.items()
    }
    write_bytes(folder / PAIRS, save(tensors))
    lines = [
        {"positive": pair.positive, "negative": pair.negative, "answers": list(pair.answers), "split": split}
        for split, listed in pairs.items()
        for pair in listed
    ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write_text(folder / PAIRS_AS_TEXT, text)


def load_pairs(path: Path, vocab_size: int) -> dict[str, TaskBatch]:
    """Read the pairs of each split.

    Raises:
        UserError: the file is missing or damaged, or does not hold pairs of a model with `vocab_size` tokens.
    """
    tensors = read_safetensors(path)
    splits = sorted({name.partition(".")[0] for name in tensors})
    batches = {}
    if unknown := tensors.keys() - {f"{split}.{part}" for split in splits for part in _PARTS}:
        raise UserError(f"{path}: unknown: {', '.join(map(printable, sorted(unknown)[:5]))}")
    for split in splits:
        try:
            tokens_bt, last_b, answers_b2 = (tensors[f"{split}.{part}"] for part in _PARTS)
        except KeyError as error:
            raise UserError(f"{path}: missing: {printable(error.args[0])}") from None
        rows = len(last_b) if last_b.dim() == 1 else 0
        shapes = tokens_bt.dim() == 2 and len(tokens_bt) == rows > 0 and answers_b2.shape == (rows, 2)
        integers = {tensor.dtype for tensor in (tokens_bt, last_b, answers_b2)} == {torch.int64}
        if not shapes or not integers or rows % 2:
            raise UserError(f"{path}: {printable(split)}: not the tokens, ends and answers of pairs")
        for name, tensor, size in (
            ("tokens", tokens_bt, vocab_size),
            ("last", last_b, tokens_bt.shape[1]),
            ("answers", answers_b2, vocab_size),
        ):
            if tensor.numel() == 0 or tensor.min() < 0 or tensor.max() >= size:
                raise UserError(f"{path}: {printable(split)}.{name}: allowed: 0 to {size - 1}")
        label_b = torch.tensor([0, 1]).repeat_interleave(rows // 2)
        batches[split] = TaskBatch(tokens_bt, last_b, answers_b2, label_b)
    if not batches:
        raise UserError(f"{path}: no pairs")
    return batches


def references(folder: Path) -> dict[str, Any]:
    """Return the fields of a circuit that name the files beside it in `folder`, as far as they are there."""
    return {
        field: Beside(file=name, sha256=file_hash(folder / name, "circuit"))
        for field, name in (("frozen", MEANS), ("pairs", PAIRS))
        if (folder / name).exists()
    }


def beside(circuit: Circuit, path: Path, field: str) -> Path | None:
    """Return the path of the file that `circuit`, read from `path`, names in `field`; None if it names none.

    Raises:
        UserError: the file is missing, or is not the one that was written with the circuit.
    """
    named: Beside | None = getattr(circuit, field)
    if named is None:
        return None
    found = path.parent / named.file
    if file_hash(found, f"{path}: {field}") != named.sha256:
        raise UserError(f"{path}: {field}: {found} is not the file that was written with this circuit")
    return found


_PARTS = ("tokens", "last", "answers")


def _name(site: str, layer: int) -> str:
    return f"{layer}.{site}"
