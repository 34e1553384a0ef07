"""Stage `shortcuts`: how well rules without a model answer each task, a folder a task.

It depends on the pairs and the tokenizer alone, so all models of one tokenizer share it.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from sparsity_lab.config import RunConfig
from sparsity_lab.core.config import validate
from sparsity_lab.core.extension import file_hash
from sparsity_lab.core.files import read_json, write_json
from sparsity_lab.core.stage import Stage
from sparsity_lab.data.packed import TOKENIZER
from sparsity_lab.data.tokenizer import load_tokenizer
from sparsity_lab.stages.context import task_batch
from sparsity_lab.stages.parallel import build_many
from sparsity_lab.tasks.asked import task_hash
from sparsity_lab.tasks.batch import NotAskable
from sparsity_lab.tasks.shortcuts import find_shortcuts
from sparsity_lab.tasks.shortcuts_record import Shortcuts

SHORTCUTS_VERSION = 1  # raise when the same pairs would give other shortcuts
FILE = "shortcuts.json"


def task_shortcuts(config: RunConfig, tokens: Path, root: Path) -> dict[str, Path]:
    """The folder of each task's shortcuts."""
    tokenizer = file_hash(tokens / TOKENIZER, "tokenizer")
    stages = {
        task: Stage(
            room="shortcuts",
            label=task,
            version=SHORTCUTS_VERSION,
            inputs={"tokenizer": tokenizer, "task": task_hash(config.tasks, task)},
            make=partial(_write_shortcuts, config, task, tokens),
        )
        for task in config.tasks.asked()
    }
    return {task: built.path for task, built in build_many(stages, root).items()}


def read_shortcuts(folders: Mapping[str, Path]) -> dict[str, Shortcuts]:
    """The shortcuts of the tasks that can be asked."""
    plain = {task: (folder / FILE, read_json(folder / FILE)) for task, folder in folders.items()}
    return {task: validate(Shortcuts, values, str(path)) for task, (path, values) in plain.items() if values}


def _write_shortcuts(config: RunConfig, task: str, tokens: Path, folder: Path) -> None:
    tokenizer = load_tokenizer(tokens / TOKENIZER)
    try:
        train = task_batch(config, task, "train", tokenizer)
        select = task_batch(config, task, "select", tokenizer)
        test = task_batch(config, task, "test", tokenizer)
    except NotAskable:
        write_json(folder / FILE, {})
        return
    write_json(folder / FILE, find_shortcuts(train, select, test, tokenizer))
