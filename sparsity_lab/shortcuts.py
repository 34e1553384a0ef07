"""Print which of a config's tasks a rule without a model already answers, as a Markdown page.

    python -m sparsity_lab.shortcuts [tasks.path=mine.jsonl corpus=folder ...] > docs/tasks.md

The pairs are asked under the config's tokenizer, so text and tokenizer are made first if they are missing; no
model is trained. See `tasks.shortcuts` for the rules.
"""

import logging
import shlex
import sys
from collections.abc import Sequence

from sparsity_lab.config import RunConfig, from_hydra
from sparsity_lab.core.program import start
from sparsity_lab.data.prepare import prepare
from sparsity_lab.kernels.machine import prepare_processor
from sparsity_lab.stages.shortcuts import read_shortcuts, task_shortcuts
from sparsity_lab.sweep.composed import write_about
from sparsity_lab.tasks.shortcuts_record import BAG_BAR, RULE_BAR, Shortcuts

HEAD = """# Shortcuts of the tasks

How often rules without a model answer each task's test prompts; chance is 50 %. "Best single rule" is the
best fact about one token, place or length of the prompt, and "bag of tokens" a logistic regression on the
counts of the prompt's tokens (`sparsity_lab/tasks/shortcuts.py`). Both are fitted on the training prompts.
Made by

    {command}

"""


def page(config: RunConfig, command: str) -> str:
    """The table with a heading that names the command."""
    return HEAD.format(command=command) + table(config)


def table(config: RunConfig) -> str:
    """A row per task: kind, best rule, its accuracy on held-out prompts, and that of the bag of tokens.

    Raises:
        UserError: a task fails, or the text cannot be read.
    """
    prepare_processor(config.threads, config.kernels)
    root = config.root.absolute
    found = read_shortcuts(task_shortcuts(config, prepare(config.corpus, config.tokenizer, root), root))
    tasks = config.tasks.available()
    lines = [
        "| task | kind | best single rule | right | bag of tokens | caveat |",
        "|---|---|---|---|---|---|",
    ]
    for name in config.tasks.asked():
        task, kind = tasks[name], tasks[name].kind or ""
        if name not in found:
            lines.append(_row(name, kind, "not askable under this tokenizer", "", "", task.caveats))
            continue
        shortcuts = found[name]
        right = (f"{share:.1%}" for share in (shortcuts.rule_accuracy, shortcuts.bag_accuracy))
        lines.append(_row(name, kind, shortcuts.rule, *right, caveat(task.caveats, shortcuts)))
    rules = sum(shortcuts.rule_accuracy <= RULE_BAR for shortcuts in found.values())
    bags = sum(shortcuts.bag_accuracy <= BAG_BAR for shortcuts in found.values())
    lines += [
        "",
        f"The best single rule is right on at most {RULE_BAR:.0%} for {rules} of {len(found)} tasks, the bag "
        f"of tokens on at most {BAG_BAR:.0%} for {bags}.",
    ]
    return "\n".join(lines) + "\n"


def caveat(own: str, shortcuts: Shortcuts) -> str:
    """Return a task's own caveat, and which of its shortcuts answers more than the bars allow."""
    told = [own] if own else []
    if shortcuts.rule_accuracy > RULE_BAR:
        told.append("the single rule answers most prompts")
    if shortcuts.bag_accuracy > BAG_BAR:
        told.append("the prompt's tokens answer most prompts, whatever their order")
    return "; ".join(told)


def _row(*cells: str) -> str:
    """Format one row; what would end a cell or start code or HTML is escaped (S12)."""
    escaped = ("".join(f"\\{c}" if c in "|`*_<[\\" else c for c in cell).replace("\n", " ") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def main(overrides: Sequence[str]) -> int:
    """Run the program; returns its exit status."""
    if {"--help", "-h"} & set(overrides):
        sys.stdout.write(__doc__ or "")
        return 0
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    command = shlex.join(["python", "-m", "sparsity_lab.shortcuts", *overrides])
    return write_about(overrides, lambda config: page(from_hydra(config), command))


if __name__ == "__main__":
    start(lambda: main(sys.argv[1:]))
