"""The picture of a run: written for any record, whatever its names hold."""

from pathlib import Path

from PIL import Image

from sparsity_lab.results.record import write_record
from sparsity_lab.results.run_picture import draw_run
from sparsity_lab.results.sweep_picture import draw_sweep, sweep_figure
from tests.analysis.made_up import record


def test_draws_curves_and_circuits_and_text_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "step,train/loss,train/kept_fraction,validation/loss\n1,3.0,1.0,\n2,2.5,0.5,\n2,,,2.6\n"
    )
    made_up = record("sparse", 64, 1000, 2.0, {"with_as": 12, "$\\frac{$": 0}, targets={0.5: 0.5})
    made_up = made_up.model_copy(
        update={"name": "$\\oops", "metrics": made_up.metrics | {"circuits/tasks_learned": 2.0}}
    )
    path = draw_run(made_up, tmp_path / "metrics.csv", tmp_path / "new" / "run.png")
    with Image.open(path) as image:
        assert image.width == 1200
        assert len(image.convert("L").getcolors() or []) > 10  # not a blank canvas


def test_a_sweeps_picture_tells_kinds_apart_and_leaves_imported_models_out(tmp_path: Path) -> None:
    size = {"circuits/geomean_edges": 30.0}
    records = [
        made.model_copy(update={"metrics": made.metrics | size})
        for kind in ("dense", "sparse", "bridged", "sparsified", "imported")
        for made in [record(kind, 64, 1000, 2.0, {"with_as": 12})]
    ]
    (axes,) = sweep_figure(records, 0.15).axes
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["dense", "sparse", "sparsified", "bridged"]
    for made in records:
        write_record(made, tmp_path / made.name)
    assert draw_sweep(tmp_path, 0.15, tmp_path / "sweep.png").exists()


def test_a_run_without_circuits_has_a_picture_too(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,train/loss,train/kept_fraction,validation/loss\n")
    made_up = record("dense", 32, 1000, 2.0, {})
    made_up = made_up.model_copy(update={"metrics": made_up.metrics | {"circuits/tasks_learned": 0.0}})
    assert draw_run(made_up, tmp_path / "metrics.csv", tmp_path / "run.png").exists()
