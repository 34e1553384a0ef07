"""The benchmark of circuits; `test_smoke` runs it on a finished run."""

from pathlib import Path

import pytest

from benchmarks import circuits as bench


def test_a_folder_without_a_run_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        bench.main([str(tmp_path), "--out", str(tmp_path / "out")])
    assert str(tmp_path) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
