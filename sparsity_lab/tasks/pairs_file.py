"""Pairs from a file: JSON Lines with two prompts and their answers.

    {"positive": "x = set()\\nx", "negative": "x = \\"\\"\\nx", "answers": [".add", " +="], "split": "test"}

`name` and `split` are optional.
"""

import json
from pathlib import Path
from typing import Any

from sparsity_lab.core.config import Config, validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.tasks.task import Split


class PairInFile(Config):
    """One line: two prompts, the right answer of each, and optionally the task's name and the split."""

    positive: str
    negative: str
    answers: tuple[str, str]
    name: str | None = None
    split: Split | None = None


def read_pairs(path: Path) -> list[PairInFile]:
    """Read every pair of a file, in order; blank lines are skipped.

    Raises:
        UserError: the file is missing, holds no pair, or a line is not a pair; the message names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as text ({error})") from None
    pairs = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            parsed: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{number}: not JSON ({error})") from None
        if not isinstance(parsed, dict):
            raise UserError(f"{path}:{number}: allowed: an object with positive, negative, answers")
        pairs.append(validate(PairInFile, parsed, f"{path}:{number}"))
    if not pairs:
        raise UserError(f"{path}: no pairs")
    return pairs
