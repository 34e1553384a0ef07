"""docs/method.md lists the paper's method: at most 12 files and 1,500 lines, none of them a kernel."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_list_of_the_papers_method_is_true_and_short() -> None:
    rows = re.findall(r"^\| \d+ \| `(\S+)` \| (\d+) \|", (ROOT / "docs" / "method.md").read_text(), re.M)
    texts = {file: (ROOT / "sparsity_lab" / file).read_text() for file, _ in rows}
    assert [(file, len(texts[file].splitlines())) for file, _ in rows] == [(f, int(n)) for f, n in rows]
    assert 0 < len(rows) <= 12
    assert sum(int(lines) for _, lines in rows) <= 1500
    for file, text in texts.items():
        assert not re.search(
            r"^\s*(from|import) (numba|llvmlite|triton|sparsity_lab\.kernels)", text, re.M
        ), file
