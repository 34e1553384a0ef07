"""Tasks from a file of pairs: JSON Lines, a pair a line, in any language.

    {"positive": "Anna fell and", "negative": "Paul fell and", "answers": [" she", " he"], "split": "test"}

The first answer is right after the positive prompt, the second after the negative one. `split` ("train",
"select" or "test") and `name`, the task's, are optional; the default name is the file's. A line without
prompts describes a task: `name`, `description`, `kind`, `caveat`, and `same_last_token: false`, which waives
the rule that both prompts of a pair end in the same token.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from sparsity_lab.core.config import Config, validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.tasks.fixed_pairs import task_of_pairs
from sparsity_lab.tasks.task import Kind, Pair, Split, Task

SUFFIX = ".jsonl"
LEAST = 4  # pairs: one for selection, one for testing, two to learn from


class PairInFile(Config):
    """A line with a pair: two prompts, the right answer of each, and perhaps the task and the split."""

    positive: str
    negative: str
    answers: tuple[str, str]
    name: str | None = None
    split: Split | None = None


class _AboutLine(Config):
    name: str | None = None
    description: str = ""
    kind: Kind | None = None
    caveat: str = ""
    same_last_token: bool = True


def read_pairs(path: Path) -> list[PairInFile]:
    """Read every pair of a file, in order, whatever the task.

    Raises:
        UserError: the file cannot be read, holds no pair, or a line is not a pair that can be asked.
    """
    return [line for _, line in _read(path, str(path)) if isinstance(line, PairInFile)]


def read_tasks(path: Path, key: str) -> list[Task]:
    """Read the tasks of the file that the config key `key` names.

    Raises:
        UserError: as `read_pairs`; or the same prompt stands in two lines of a task, or splits are missing.
    """
    where = f"{key}: {path}"
    about: dict[str, _AboutLine] = {}
    pairs: dict[str, list[tuple[Pair, Split | None]]] = {}
    lines_of: dict[tuple[str, str], int] = {}
    for number, line in _read(path, where):
        name, at = line.name or path.stem, f"{where}:{number}"
        if isinstance(line, _AboutLine):
            if name in about:
                raise UserError(f"{at}: task {name!r} is described in an earlier line too")
            about[name] = line
            continue
        for prompt in (line.positive, line.negative):
            if (earlier := lines_of.setdefault((name, prompt), number)) != number:
                raise UserError(f"{at}: the prompt {prompt!r} stands in line {earlier} too; allowed: once")
        others = pairs.setdefault(name, [])
        if others and (others[0][1] is None) != (line.split is None):
            raise UserError(f"{at}: task {name!r}: allowed: a split in every line of a task, or in none")
        pair = Pair(line.positive, line.negative, line.answers, f"{path.name}:{number}")
        others.append((pair, line.split))
    if without := sorted(about.keys() - pairs.keys()):
        raise UserError(f"{where}: task {without[0]!r} has no pairs")
    return [_task(name, found, about.get(name, _AboutLine()), where) for name, found in pairs.items()]


def _read(path: Path, where: str) -> Iterator[tuple[int, PairInFile | _AboutLine]]:
    """Yield each line that is not blank, checked, with its number; at least one pair."""
    is_empty = True
    for number, values in _lines(path, where):
        if not values.keys() & {"positive", "negative", "answers"}:
            yield number, validate(_AboutLine, values, f"{where}:{number}")
            continue
        is_empty = False
        line = validate(PairInFile, values, f"{where}:{number}")
        _check(line, f"{where}:{number}")
        yield number, line
    if is_empty:
        raise UserError(f"{where}: no pairs; allowed: lines with positive, negative and answers")


def _task(name: str, pairs: list[tuple[Pair, Split | None]], about: _AboutLine, where: str) -> Task:
    splits = {split for _, split in pairs}
    if splits == {None} and len(pairs) < LEAST:
        raise UserError(f"{where}: task {name!r}: {len(pairs)} pairs; at least {LEAST} are needed")
    if splits != {None} and (missing := [split for split in get_args(Split) if split not in splits]):
        raise UserError(f"{where}: task {name!r}: no pair has the split {missing[0]!r}")
    description = about.description or f"the pairs of {Path(where).name}"
    return task_of_pairs(name, pairs, description, about.caveat, about.kind, about.same_last_token)


def _lines(path: Path, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each line that is not blank, parsed, with its number."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{where}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 (byte {error.start})") from None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            json.dumps(values, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            found = error.object[error.start : error.end]
            raise UserError(f"{where}:{number}: {found!r}: a lone surrogate, which is not Unicode") from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}:{number}: not JSON: {error}") from None
        if not isinstance(values, dict):
            raise UserError(f"{where}:{number}: {line.strip()[:40]!r}: allowed: a JSON object a line")
        yield number, values


def _check(line: PairInFile, where: str) -> None:
    for what, texts in (("prompts", (line.positive, line.negative)), ("answers", line.answers)):
        if texts[0] == texts[1]:
            raise UserError(f"{where}: both {what} are {texts[0]!r}; allowed: two different {what}")
        for text in texts:
            if not text:
                raise UserError(f"{where}: {what}: empty text")
