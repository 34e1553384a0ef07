"""A sample of fuzz.py's damaged files, which reads 10,000 for each reader."""

from pathlib import Path

import pytest
from fuzz import fuzz, readers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readers")


def test_damaged_files_are_refused_in_a_line_or_read(folder: Path) -> None:
    for name, reader in readers(folder).items():
        refused, _ = fuzz(name, reader, 40)
        assert refused > 10, name
