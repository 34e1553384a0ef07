"""Run the examples of README.md and docs/python.md: `python tests/run_examples.py RUNS`, a folder of runs."""

import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path("docs")


def readme() -> None:
    """README's lines open the small model and read a circuit."""
    (block,) = re.findall(r"```python\n(import sparsity_lab\n.*?)```", Path("README.md").read_text(), re.S)
    names: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["circuit"].edges


def python_page(runs: str) -> None:
    """Every example of the page runs, in order, with `runs` in place of the folder of runs."""
    text = (DOCS / "python.md").read_text().replace('"runs"', repr(runs))
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(blocks) >= 6
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert names["mine"].edges
    assert names["mine"].select.raw_loss <= names["mine"].target
    assert names["mine"].model_hash == names["circuit"].model_hash
    again, stored = names["lab"].evaluate(names["circuit"]), names["circuit"].test
    assert again.accuracy == stored.accuracy
    assert abs(again.raw_loss - stored.raw_loss) < 1e-5  # the stored one may be another processor's
    assert "own pairs" in names["page"].html
    assert len(names["frame"]) > 0


if __name__ == "__main__":
    readme()
    python_page(sys.argv[1])
