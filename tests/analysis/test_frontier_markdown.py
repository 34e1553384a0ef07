"""The Markdown tables of a frontier, and that docs/frontier holds what its records say."""

from pathlib import Path

import pytest
from made_up import record

from analysis import pictures
from analysis.frontier_markdown import document, markdown
from analysis.models import Configuration, Target, configurations, models
from analysis.plot_frontier import main
from sparsity_lab.core.metrics import COMPONENT_LOSS

ROOT = Path(__file__).parents[2]
FRONTIER = ROOT / "docs" / "frontier"
TARGET = Target(0.15)


def configuration() -> Configuration:
    made = record("sparse", 64, 100, 1.8, {"a": 10, "b": 1000})
    losses = {COMPONENT_LOSS["grammar"].name: 1.25, COMPONENT_LOSS["real"].name: 4.5}
    config = {"trainer": {"learning_rate": 0.008, "precision": "float32"}, "sparsity": {"kind": "amortised"}}
    seeds = [
        made.model_copy(
            update={
                "metrics": made.metrics | losses | {"validation/loss": 1.8 + seed / 10},
                "config": config | {"seed": seed},
                "config_hash": f"hash{seed}",
                "seeds": {"seed": seed},
            }
        )
        for seed in (1, 0)
    ]
    (one,) = configurations(models(seeds, TARGET))
    return one


def test_a_row_a_model_by_seed_and_what_seeds_share_once() -> None:
    text = document([configuration()], ["a", "b"], [], [], TARGET)
    assert "Models; sizes at 0.15 nats over 2 tasks that all have" in text
    assert text.splitlines()[-2:] == [
        "| sparse, d_model 64, 100 nonzeros, amortised | 0.008 | float32 | 0 | 1.800 | 1.250 | 4.50 | 2 "
        "| 3 | 100 |  |",
        "|  |  |  | 1 | 1.900 | 1.250 | 4.50 | 2 | 3 | 100 |  |",
    ]
    assert "equal loss" not in text  # no ratios, no heading


def test_cells_cannot_break_a_table() -> None:
    assert markdown([["a", "b"], ["1|2", "3"]]) == "| a | b |\n|---|---|\n| 1/2 | 3 |"


def test_docs_hold_the_tables_of_their_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What python analysis/plot_frontier.py docs/frontier/records --sweep frontier makes, pictures apart."""
    monkeypatch.setattr(pictures, "save", lambda figure, folder, name: [])
    assert main([str(FRONTIER / "records"), "--sweep", "frontier", "--out", str(tmp_path)]) == 0
    made = (tmp_path / "tables.md").read_text()
    assert made == (FRONTIER / "tables.md").read_text()
    text = (ROOT / "docs" / "frontier.md").read_text()
    results = text.split("\n## What it shows\n")[1].split("\n## ")[0].splitlines()
    rows = [line for line in results if line.startswith("|")]
    assert len(rows) > 10
    assert [row for row in rows if row not in made.splitlines()] == []
