"""The 20 tasks of Gao et al. 2025, Table 1: each module here holds one, its `TASK`.

To add a task, add a file: a `make(rng)` that writes a pair, and `TASK = Task(name, description, make)`.
"""

from importlib import import_module
from pkgutil import iter_modules

from sparsity_lab.tasks.task import Task


def _discover() -> dict[str, Task]:
    names = sorted(module.name for module in iter_modules(__path__))
    tasks = [import_module(f"{__name__}.{name}").TASK for name in names]
    return {task.name: task for task in tasks}


TASKS: dict[str, Task] = _discover()
