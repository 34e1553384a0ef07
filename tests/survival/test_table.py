"""The table of faults in tests/README.md names tests that there are."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_every_test_that_the_table_names_is_there() -> None:
    table = (TESTS / "README.md").read_text().partition("\n## Faults\n")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 15
    defined = re.findall(r"^def test_(\w+)", (TESTS / "survival" / "test_faults.py").read_text(), re.M)
    named = set()
    for row in rows:
        in_row = re.findall(r"`([^`]+)`", row.split("|")[3])
        assert in_row, row
        named |= set(in_row)
    files = {name for name in named if name.endswith(".py")}
    assert [name for name in files if not (TESTS / name).is_file()] == []
    beginnings = {name.removesuffix("...") for name in named - files}
    assert [name for name in beginnings if not any(test.startswith(name) for test in defined)] == []
    assert [test for test in defined if not any(test.startswith(name) for name in beginnings)] == []
