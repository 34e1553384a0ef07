"""The Markdown tables of a frontier, and that docs/frontier holds what its records say."""

from pathlib import Path

import pytest
from made_up import record

from analysis import pictures
from analysis.comparison import DRAWN, ratio
from analysis.frontier_markdown import document, markdown
from analysis.models import Configuration, Target, configurations, models
from analysis.plot_frontier import main
from sparsity_lab.core.metrics import COMPONENT_LOSS
from sparsity_lab.results.record import RunRecord

ROOT = Path(__file__).parents[2]
FRONTIER = ROOT / "docs" / "frontier"
TARGET = Target(0.15)


def grouped(*records: RunRecord, at: Target = TARGET) -> list[Configuration]:
    return configurations(models(records, at))


def seeds() -> list[Configuration]:
    """Two seeds, the second first, with all that a record may tell of a model."""
    made = record("sparse", 64, 100, 1.8, {"a": 10, "b": 1000})
    losses = {COMPONENT_LOSS["grammar"].name: 1.25, COMPONENT_LOSS["real"].name: 4.5}
    config = {"trainer": {"learning_rate": 0.008, "precision": "float32"}}
    return grouped(
        *(
            made.model_copy(
                update={
                    "metrics": made.metrics | losses | {"validation/loss": 1.8 + seed / 10},
                    "config": config | {"seed": seed},
                    "config_hash": f"hash{seed}",
                    "seeds": {"seed": seed},
                }
            )
            for seed in (1, 0)
        )
    )


DENSE = [
    record("dense", 64, 1000, 1.6, {"a": 400, "b": 100}, targets={0.3: 0.5}),
    record("dense", 32, 500, 2.0, {"a": 400, "b": 100}, targets={0.3: 0.5}),
]


def test_a_row_a_model_by_seed() -> None:
    text = document(seeds(), ["a", "b"], [], [], TARGET)
    assert "## Models; sizes at 0.15 nats over the 2 tasks of the pictures\n" in text
    assert text.splitlines()[-2:] == [
        "| sparse-64-100 | 0 | 400 | 100 | 0.008 | float32 | 1.800 | 1.250 | 4.50 | 2 | 3 | 100 | - |",
        "| sparse-64-100 | 1 | 400 | 100 | 0.008 | float32 | 1.900 | 1.250 | 4.50 | 2 | 3 | 100 | - |",
    ]
    assert "equal loss" not in text  # no ratios, no heading


def test_what_records_do_not_tell_is_a_dash() -> None:
    text = document(grouped(DENSE[0]), [], [], [], TARGET)
    assert (
        text.splitlines()[-1]
        == "| dense-64-1000 | - | 4,000 | 1,000 | - | - | 1.600 | - | - | 2 | - | - | - |"
    )


def test_each_configuration_target_and_part_has_a_row_of_its_own() -> None:
    """Equal losses, and a configuration that only the other target knows, do not hide one another."""
    dense, loose = grouped(*DENSE), Target(0.3)
    ours = grouped(
        record("sparse", 64, 100, 1.8, {"a": 40, "b": 10}),
        record("sparse", 64, 200, 1.8, {"a": 100, "b": 25}),
    )
    third = grouped(record("sparse", 64, 300, 1.8, {"a": 8, "b": 2}, targets={0.3: 0.5}), at=loose)
    all_tasks = [ratio(one, dense, TARGET) for one in ours]
    all_tasks.append(ratio(third[0], grouped(*DENSE, at=loose), loose))
    parts = [ratio(ours[0], dense, TARGET, "edges", ["a"], label) for label in (DRAWN, "kind: copy")]
    text = document([*dense, *ours], ["a"], all_tasks, parts, TARGET)
    shown = [line.split(" | ")[:5] for line in text.splitlines() if line.startswith("| sparse-")][2:]
    assert [" ".join(row) for row in shown] == [
        "| sparse-64-100 1.800 - 10.0 on 1 -",
        "| sparse-64-100 1.800 0.15 nats - 10.0 (10.0, 10.0) on 2",
        "| sparse-64-200 1.800 0.15 nats - 4.0 (4.0, 4.0) on 2",
        "| sparse-64-300 1.800 0.3 nats - 50.0 (50.0, 50.0) on 2",
        "| sparse-64-100 1.800 kind: copy - 10.0 on 1",
    ]
    assert text.splitlines()[-1].endswith(" | 1 | a single task of a single seed has no interval |")


def test_why_there_is_no_ratio_is_said_once() -> None:
    sparse = grouped(record("sparse", 64, 100, 2.5, {"a": 40}))
    text = document([], [], [ratio(sparse[0], grouped(*DENSE), TARGET)], [], TARGET)
    why = "outside the dense models' range (1.600 to 2.000 nats)"
    assert text.splitlines()[-1] == f"| sparse-64-100 | 2.500 | 0.15 nats | {why} | - | - | - | - |"


def test_cells_cannot_break_a_table_or_hold_markup() -> None:
    evil = "1|2\n# <script>[a](b)`"
    assert markdown([["a", "b"], [evil, "3"]]) == (
        "| a | b |\n|---|---|\n| 1/2\N{REPLACEMENT CHARACTER}# &lt;script>(a)(b)' | 3 |"
    )


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
