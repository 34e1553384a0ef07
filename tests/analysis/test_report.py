"""The report of a sweep: figures, tables and a page for each circuit, all linked, all in one folder (S12)."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from made_up import record, without_circuit
from made_up_run import PLAIN_TASK, TASK, write_run

from analysis.report import main
from sparsity_lab.results.record import write_record


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    write_run(folder / "run & <b>")
    dense = record("dense", 8, 100, 2.2, {}, others=(without_circuit(TASK, "not_learned"),))
    write_record(dense, folder / "dense")
    assert main([str(folder)]) == 0
    return folder


def test_every_link_leads_to_a_file_of_the_report(sweep: Path) -> None:
    html = (sweep / "report" / "index.html").read_text()
    addresses = [a for a in re.findall(r'(?:href|src)="([^"]*)"', html) if not a.startswith("data:")]
    assert len(addresses) >= 5
    for address in addresses:
        assert (sweep / "report" / unquote(address)).stat().st_size > 0, address
    pages = [address for address in addresses if address.endswith(".html")]
    assert {Path(unquote(address)).stem for address in pages} == {TASK, PLAIN_TASK}


def test_s12_names_are_text(sweep: Path) -> None:
    html = (sweep / "report" / "index.html").read_text()
    assert not re.findall(r"<img src=x|<script|<b>", html)
    assert "onerror" in html
    assert "not learned" in html


def test_what_cannot_be_reported_is_one_clear_line(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        ([str(tmp_path / "missing")], "no such folder"),
        ([str(tmp_path)], "no finished runs here"),
        ([str(sweep), "--target", "0.3"], "--target 0.3: no circuit at this target"),
    ):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
