"""The tables of faults and of inputs in tests/README.md name tests that there are."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]


def rows(title: str) -> list[list[str]]:
    """The cells of each row of a table."""
    table = (TESTS / "README.md").read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")][2:]
    return [line.strip("|").split("|") for line in lines]


def names_of_tests(path: Path) -> list[str]:
    return re.findall(r"^def test_(\w+)", path.read_text(), re.M)


def test_every_test_that_the_table_of_faults_names_is_there() -> None:
    table = rows("Faults")
    assert len(table) > 15
    defined = names_of_tests(TESTS / "survival" / "test_faults.py")
    named = set()
    for row in table:
        in_row = re.findall(r"`([^`]+)`", row[2])
        assert in_row, row
        named |= set(in_row)
    files = {name for name in named if name.endswith(".py")}
    assert [name for name in files if not (TESTS / name).is_file()] == []
    beginnings = {name.removesuffix("...") for name in named - files}
    assert [name for name in beginnings if not any(test.startswith(name) for test in defined)] == []
    assert [test for test in defined if not any(test.startswith(name) for name in beginnings)] == []


def test_every_test_that_the_table_of_inputs_names_is_there() -> None:
    table = rows("Inputs")
    assert len(table) > 25
    for row in table:
        assert len(row) == 3, row
        assert row[0].strip(), row
        assert row[1].strip(), row
        files = re.findall(r"`([^`]+\.py)`", row[2])
        assert files, row
        defined = [test for file in files for test in names_of_tests(TESTS / file)]
        for name in set(re.findall(r"`([^`]+)`", row[2])) - set(files):
            assert any(test.startswith(name.removesuffix("...")) for test in defined), (name, row)
