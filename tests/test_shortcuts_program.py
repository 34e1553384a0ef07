"""The table of shortcuts: what each task's row says, without training a model."""

import json
from pathlib import Path

import pytest

from sparsity_lab import shortcuts

SMALL = ["corpus.megabytes=0.1", "corpus.real_fraction=0", "tokenizer.vocab_size=300", "threads=1"]


def test_a_row_for_each_task_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Single letters decide one task; the answers of the other are no single tokens."""
    lines = [
        {"name": name, "positive": f"{i} + q", "negative": f"{i} - q", "answers": answers}
        for name, answers in (("sign", ["1", "2"]), ("long", ["éé", "üü"]))
        for i in range(40)
    ]
    pairs = tmp_path / "two.jsonl"
    pairs.write_text("\n".join(json.dumps(line) for line in [{"name": "sign", "kind": "look-up"}, *lines]))
    assert shortcuts.main([*SMALL, f"root={tmp_path}", f"tasks.path={pairs}"]) == 0
    head, _, table = capsys.readouterr().out.partition("| task ")
    assert "python -m sparsity_lab.shortcuts corpus.megabytes=0.1 " in head
    rows = f"| task {table}".splitlines()
    assert rows[0].startswith("| task | kind | best single rule | right | bag of tokens |")
    assert "| long |  | not askable under this tokenizer |" in rows[2]
    assert rows[3].startswith("| sign | look-up | ")
    assert " occurs | 100.0% | 100.0% |" in rows[3]
    assert rows[3].endswith(
        "| the single rule answers most prompts; "
        "the prompt's tokens answer most prompts, whatever their order |"
    )
    assert rows[5].startswith("The best single rule is right on at most 75% for 0 of 1 tasks")


def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert shortcuts.main(["tasks.names=[nothing]"]) == 1
    assert capsys.readouterr().err.startswith("error: tasks.names: ")


def test_what_hydra_refuses_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert shortcuts.main(["model.dmodel=3"]) == 1
    assert capsys.readouterr().err == "error: model.dmodel: unknown key; did you mean model.d_model?\n"
    assert shortcuts.main(["sparsity=dense"]) == 1
    assert capsys.readouterr().err == "error: sparsity=dense is now sparsity=none\n"


def test_s12_a_token_cannot_break_the_table() -> None:
    assert shortcuts._row("a|b", "`x` *y* <script>", "1\n2") == r"| a\|b | \`x\` \*y\* \<script> | 1 2 |"
