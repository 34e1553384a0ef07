"""Tasks from outside the package, named by `tasks.path`: Python files, files of pairs, or a folder of both.

A Python file holds one `Task` as `TASK`, or several as `TASKS` (a list or a dict). `pairs_file.py` describes
the files of pairs. Of a folder, every `.py` and `.jsonl` file is read whose name doesn't begin with an
underscore.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.extension import load_file
from sparsity_lab.tasks.pairs_file import SUFFIX, read_tasks
from sparsity_lab.tasks.task import Task

KEY = "tasks.path"
SUFFIXES = (".py", SUFFIX)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # it becomes a folder's name


def load_tasks(path: Path, taken: Iterable[str] = ()) -> dict[str, Task]:
    """The tasks of a file or of all files in a folder, by name, in the order of the names.

    Raises:
        UserError: a file can't be read or imported or holds no task, or a name is `taken`, given twice, or
            can't be a folder's name.
    """
    if path.is_dir():
        files = sorted(
            file for file in path.iterdir() if file.suffix in SUFFIXES and not file.name.startswith("_")
        )
        if not files:
            raise UserError(f"{KEY}: {path}: no {' or '.join(SUFFIXES)} file in this folder")
    else:
        files = [path]
    origin = dict.fromkeys(taken, "the package")
    found: dict[str, Task] = {}
    for file in files:
        for task in _tasks_of(file):
            if task.name in origin:
                where = origin[task.name]
                raise UserError(f"{KEY}: {file}: task {task.name!r}: {where} has a task of this name")
            origin[task.name] = str(file)
            found[task.name] = task
    return dict(sorted(found.items()))


def _tasks_of(file: Path) -> list[Task]:
    tasks = read_tasks(file, KEY) if file.suffix == SUFFIX else _tasks_of_module(file)
    for task in tasks:
        if not _NAME.fullmatch(task.name):
            raise UserError(f"{KEY}: {file}: task {task.name!r}: allowed in a name: letters, digits, . _ -")
    return tasks


def _tasks_of_module(file: Path) -> list[Task]:
    if file.suffix != ".py":
        raise UserError(
            f"{KEY}: {file}: allowed: .py with tasks, {SUFFIX} with pairs, or a folder of such files"
        )
    module = load_file(file, KEY)
    several: Any = getattr(module, "TASKS", ())
    if not isinstance(several, dict | list | tuple):
        raise UserError(f"{KEY}: {file}: TASKS: {several!r}: allowed: a list or a dict of tasks")
    tasks = list(several.values() if isinstance(several, dict) else several)
    if hasattr(module, "TASK"):
        tasks.append(module.TASK)
    if not tasks:
        raise UserError(f"{KEY}: {file}: no task here; allowed: TASK = Task(...), TASKS = [Task(...), ...]")
    for task in tasks:
        if not isinstance(task, Task):
            raise UserError(f"{KEY}: {file}: {task!r} is not a sparsity_lab.tasks.task.Task")
    return list({id(task): task for task in tasks}.values())
