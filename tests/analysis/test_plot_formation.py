"""Size and overlap over a training, from records; and what is said where there is nothing to draw."""

from pathlib import Path

import pytest
from made_up import record, without_circuit

from analysis.plot_formation import geometric_means, load, main, moments
from sparsity_lab.core import metrics
from sparsity_lab.results.record import RunRecord, Snapshot, write_record


def run(name: str = "one") -> RunRecord:
    """Circuits of 3 nodes each; task b is learned between the quarter and the half."""
    early, half = (
        record("sparse", 128, 0, 2.0, edges, others=others)
        for edges, others in (
            ({"a": 90}, (without_circuit("b", "not_learned"),)),
            ({"a": 40, "b": 10}, ()),
        )
    )
    formation = (
        Snapshot(fraction=0.25, step=25, nonzeros=800, tasks=early.tasks, shared={"a": 0}),
        Snapshot(fraction=0.5, step=50, nonzeros=100, tasks=half.tasks, shared={"a": 1, "b": 3}),
    )
    final = record("sparse", 128, 100, 1.9, {"a": 4, "b": 9})
    return final.model_copy(update={"snapshots": formation, "name": name})


def write_run(folder: Path, made: RunRecord) -> None:
    write_record(made, folder)
    head = f"{metrics.STEP.name},{metrics.NONZEROS.name},{metrics.VALIDATION_LOSS.name}"
    (folder / "metrics.csv").write_text(f"{head}\n1,1600,\n25,,2.5\n50,100,\n100,100,\n")


def test_a_moment_tells_size_and_overlap_and_the_end_overlaps_with_itself() -> None:
    found = {(row["at"], row["task"]): row for row in moments(run())}
    assert len(found) == 6
    assert [found[at, "a"]["edges"] for at in (0.25, 0.5, 1.0)] == [90, 40, 4]
    assert [found[at, "a"]["jaccard"] for at in (0.25, 0.5, 1.0)] == pytest.approx([0, 1 / 5, 1])
    assert [found[at, "a"]["there"] for at in (0.25, 0.5, 1.0)] == pytest.approx([0, 1 / 3, 1])
    assert [found[at, "a"]["step"] for at in (0.25, 0.5, 1.0)] == [25, 50, 100]
    assert found[0.25, "b"]["status"] == "not_learned"
    assert found[0.25, "b"]["edges"] is None
    assert found[0.5, "b"]["jaccard"] == 1.0


def test_the_mean_is_over_tasks_with_a_circuit_whenever_there_is_one(tmp_path: Path) -> None:
    write_run(tmp_path, run())
    rows, _, targets = load(tmp_path)
    assert targets == {"one": 0.15}
    means = geometric_means(rows.dropna(subset=["edges"]))
    assert means.to_dict() == pytest.approx({0.25: 90, 0.5: 40, 1.0: 4})
    assert means.attrs["tasks"] == 1


def test_the_figure_of_a_run_and_of_a_sweep_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "$two$"):
        write_run(tmp_path / name, run(name))
    for source in (tmp_path / "one", tmp_path):
        assert main([str(source)]) == 0
        assert {path.suffix for path in (source / "formation").iterdir()} == {".png", ".svg", ".csv"}
    assert "mathdefault" not in (tmp_path / "formation" / "formation.svg").read_text()
    assert "$two$" in (tmp_path / "formation" / "formation.svg").read_text()
    assert "not_learned" in capsys.readouterr().out


def test_a_run_without_snapshots_or_without_its_curve_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(run().model_copy(update={"snapshots": ()}), tmp_path / "plain")
    assert main([str(tmp_path / "plain")]) == 1
    assert "no run with circuits on the way; make one" in capsys.readouterr().err
    write_record(run(), tmp_path / "bare")
    assert main([str(tmp_path / "bare")]) == 1
    assert "metrics.csv: not a training's metrics" in capsys.readouterr().err
