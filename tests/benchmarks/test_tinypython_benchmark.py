"""The benchmark of the grammar measures what it says."""

import pytest

from benchmarks import tinypython


def test_brackets_of_their_own_cost_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    found = tinypython.measure(500, 1000)
    assert found.tokens_per_document > found.tokens_per_document_glued > 50
    assert found.tokens_per_second == pytest.approx(found.documents_per_second * found.tokens_per_document)
    tinypython.main(["--documents", "50", "--vocab-size", "300"])
    assert "tokens a document" in capsys.readouterr().out
