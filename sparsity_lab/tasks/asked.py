"""The pairs of a task that a config asks for, made once a process, and the hash that stands for them."""

from functools import lru_cache
from typing import get_args

from sparsity_lab.core.hashing import content_hash
from sparsity_lab.core.waiting import told
from sparsity_lab.tasks.config import TasksConfig
from sparsity_lab.tasks.drawing import make_pairs
from sparsity_lab.tasks.task import Pair, Split, Task


def asked_pairs(config: TasksConfig, name: str, split: Split) -> tuple[Pair, ...]:
    """The pairs of one split of a task, as many as the config wants.

    Raises:
        UserError: the task's generator fails, or does not have that many.
    """
    return _pairs(config.available()[name], split, config.n_pairs(split), config.seed)


def pair_counts(config: TasksConfig, name: str) -> dict[str, int]:
    """How many pairs of each split are asked; a task of fixed pairs may have fewer than the config wants."""
    return {split: len(asked_pairs(config, name, split)) for split in get_args(Split)}


def task_hash(config: TasksConfig, name: str) -> str:
    """Hash of all that a result can depend on: the task's name and words, and every pair that is asked.

    Raises:
        UserError: the task's generator fails, or does not have enough pairs.
    """
    task = config.available()[name]
    splits = [
        [(pair.positive, pair.negative, pair.answers) for pair in asked_pairs(config, name, split)]
        for split in get_args(Split)
    ]
    return content_hash(task.name, task.description, task.caveats, splits)


@lru_cache(maxsize=256)  # three splits of each task
def _pairs(task: Task, split: Split, n: int, seed: int) -> tuple[Pair, ...]:
    with told(f"task {task.name}: making {n} pairs for {split}"):
        return tuple(make_pairs(task, split, n, seed))
