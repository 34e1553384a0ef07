"""The program from a folder of records to figures and tables, and what it says when it cannot."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from made_up import record, without_circuit
from matplotlib.figure import Figure

from analysis import pictures
from analysis.plot_frontier import main
from sparsity_lab.results.record import RunRecord, write_record
from sparsity_lab.results.style import short

ROOT = Path(__file__).parents[2]
EVIL = "a$\\frac{x}$<script>&\x1b[31m"  # a task name that would break mathtext, SVG and the terminal
TARGETS = {0.05: 2.0, 0.5: 0.3}


def _records() -> list[RunRecord]:
    dense = [
        record("dense", d, n, loss, {EVIL: e, "b": 2 * e, "c": 9}, targets=TARGETS)
        for d, n, loss, e in ((32, 9000, 2.0, 200), (64, 36000, 1.7, 400), (128, 140000, 1.6, 900))
    ]
    sparse = [
        record("sparse", d, n, loss, {EVIL: e, "b": e + 3, "c": 0}, targets=TARGETS)
        for d, n, loss, e in ((128, 3000, 1.9, 10), (128, 6000, 1.8, 20), (256, 3000, 1.85, 8))
    ]
    return dense + sparse


def _write(folder: Path, *records: RunRecord) -> Path:
    for found in records:
        write_record(found, folder / found.name)
    return folder


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


TABLES = {"points.csv", "ratios.csv", "ratios_by_part.csv", "tasks.csv", "tables.md"}
PAIR = {
    "curve.csv",
    *(f"{name}.{kind}" for name in ("circuit_size_vs_target", "edges_per_task") for kind in ("png", "svg")),
}
FRONTIER = {"frontier.png", "frontier.svg"}


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made, and their files are there, but empty: rendering is most of the time."""

    def save(figure: Figure, folder: Path, name: str) -> list[Path]:
        files = [folder / f"{name}.png", folder / f"{name}.svg"]
        for file in files:
            file.touch()
        return files

    monkeypatch.setattr(pictures, "save", save)


SCRIPTS = sorted(path.stem for path in (ROOT / "analysis").glob("*.py") if "__main__" in path.read_text())


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_starts_by_its_path_from_any_directory(tmp_path: Path, name: str) -> None:
    command = [sys.executable, str(ROOT / "analysis" / f"{name}.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_script_starts_as_a_module() -> None:
    command = [sys.executable, "-m", "analysis.view_circuit", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_clone_draws_everything_from_any_directory(tmp_path: Path) -> None:
    runs = _write(tmp_path / "runs", *_records())
    script = [sys.executable, str(ROOT / "analysis" / "plot_frontier.py")]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    out = runs / "frontier"
    assert _names(out) == TABLES | PAIR | FRONTIER
    assert all(str(Path("runs/frontier") / name) in done.stdout for name in _names(out))
    assert "6 models; 3 tasks learned by all, 3 with a circuit in all" in done.stdout
    assert "counted as 1 edge where the circuit has nodes only: c" in done.stdout
    assert "\x1b" not in done.stdout
    assert all(path.stat().st_size > 10_000 for path in out.glob("*.png"))


def test_tables_and_figures_are_the_same_every_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = _write(tmp_path / "runs", *_records())
    for name in ("a", "b"):
        assert main([str(runs), "--out", str(tmp_path / name)]) == 0
    assert "[" in capsys.readouterr().out  # an interval
    for name in _names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name

    ratios = pd.read_csv(tmp_path / "a" / "ratios.csv")
    assert list(ratios.columns[:12]) == [
        "sparse_model", "width", "nonzeros", "loss", "measure", "target", "target_kind", "ratio", "low",
        "high", "tasks", "seeds",
    ]  # fmt: skip
    assert len(ratios) == 3 * 3 * 2  # models, targets, measures
    edges = ratios[(ratios.measure == "edges") & (ratios.target == 0.15)]
    assert list(edges.nonzeros) == [3000, 6000, 3000]
    assert (ratios.low <= ratios.ratio).all()
    assert (ratios.tasks == 3).all()
    assert set(ratios.target_kind) == {"absolute"}
    points = pd.read_csv(tmp_path / "a" / "points.csv")
    assert len(points) == 6 * 3
    at_main = points[points.target == 0.15].iloc[0]
    assert at_main.geomean_edges == at_main.compared_edges == pytest.approx((200 * 400 * 9) ** (1 / 3))
    assert at_main.geomean_nodes == pytest.approx(3)
    assert len(pd.read_csv(tmp_path / "a" / "tasks.csv")) == 6 * 3 * 3


def test_s12_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    _write(tmp_path, *_records())
    assert main([str(tmp_path)]) == 0
    svg = (tmp_path / "frontier" / "edges_per_task.svg").read_text()
    assert "a$\\frac{x}$&lt;script&gt;&amp;\N{REPLACEMENT CHARACTER}[31m" in svg
    assert "<script>" not in svg


def test_losses_by_component_and_n_gram_models_stand_beside_the_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A 4-gram of near loss is a line; a unigram of a loss far above is told in the legend."""
    for i, found in enumerate(_records()):
        more = {"validation/loss_grammar": 1.5, "validation/loss_real": 4.5}
        more |= {"baseline/1gram": 5.25, "baseline/4gram": 1.95 + 0.01 * (i == 0)}
        _write(tmp_path, found.model_copy(update={"metrics": found.metrics | more}))
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    header, *rows = out[out.index("kind ") :].splitlines()[:7]
    for name, loss in (("grammar", "1.5000"), ("real", "4.5000")):
        end = header.index(f" {name} ") + len(name) + 1
        assert all(row[:end].endswith(f" {loss}") for row in rows)
    assert "1-gram of as many tokens: 5.2500\n4-gram of as many tokens: 1.9500 to 1.9600" in out
    svg = (tmp_path / "frontier" / "frontier.svg").read_text()
    assert "1-gram: 5.25" in svg
    assert "4-gram" in svg
    assert "4-gram:" not in svg
    points = pd.read_csv(tmp_path / "frontier" / "points.csv")
    assert set(points.loss_real) == {4.5}
    assert set(points["1gram"]) == {5.25}


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(
    ("kind", "lacking"), [("dense", "no weight-sparse model"), ("sparse", "no dense model")]
)
def test_one_kind_alone_still_gives_the_frontier(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, lacking: str
) -> None:
    _write(tmp_path, *(found for found in _records() if found.name.startswith(kind)))
    assert main([str(tmp_path)]) == 0
    assert _names(tmp_path / "frontier") == TABLES | FRONTIER
    assert f"no matched pair of a dense and a weight-sparse model: {lacking}" in capsys.readouterr().out


def test_every_kind_of_model_has_its_mark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = [record(kind, 64, 3000, 1.9, {EVIL: 9, "b": 9, "c": 9}) for kind in ("bridged", "sparsified")]
    others.append(record("imported", 64, 3000, 1.9, {"b": 9}))
    _write(tmp_path, *_records(), *others)
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "8 models" in out
    for kind in ("bridged", "sparsified"):  # a model, and a ratio
        assert out.count(f"\n{kind} ") == len(re.findall(rf"\n{kind}-64-3000 +{kind} ", out)) == 1
    svg = (tmp_path / "frontier" / "frontier.svg").read_text()
    assert "bridged, same method and width" in svg
    assert "sparsified, same method and width" in svg
    assert "imported" not in out + svg
    points = pd.read_csv(tmp_path / "frontier" / "points.csv")
    assert set(points.kind) == {"dense", "sparse", "bridged", "sparsified"}


@pytest.mark.usefixtures("unrendered")
def test_a_model_without_circuits_is_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = record("sparse", 16, 100, 3.0, {}, others=(without_circuit("b", "not_learned"),))
    _write(tmp_path, *_records(), failed)
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "left out: sparse-16-100 has no circuit at 0.15 nats" in out
    assert "6 models; 3 tasks learned by all" in out


@pytest.mark.usefixtures("unrendered")
def test_without_a_task_shared_by_any_two_the_tables_are_still_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path, record("dense", 32, 9000, 2.0, {"a": 9}), record("sparse", 16, 100, 2.0, {"b": 7}))
    assert main([str(tmp_path)]) == 0
    assert _names(tmp_path / "frontier") == TABLES
    out = capsys.readouterr().out
    assert "none, so there is no picture of the frontier" in out
    assert "no matched pair of a dense and a weight-sparse model: no shared task" in out


@pytest.mark.usefixtures("unrendered")
def test_a_sweep_is_chosen_by_name_or_because_it_is_the_only_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path, *_records(), record("sparse", 8, 10, 1.95, {"b": 7}, sweep=None))
    assert main([str(tmp_path)]) == 0
    assert "6 of 7 runs, those of the sweep width_l0" in capsys.readouterr().out
    _write(tmp_path, record("dense", 8, 10, 1.95, {"b": 7}, sweep="other"))
    assert main([str(tmp_path)]) == 1
    assert "choose one by --sweep: other, width_l0" in capsys.readouterr().err
    assert main([str(tmp_path), "--sweep", "other"]) == 0
    assert main([str(tmp_path), "--sweep", "wrong"]) == 1
    assert "no such sweep" in capsys.readouterr().err


@pytest.mark.usefixtures("unrendered")
def test_a_corrupt_record_is_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write(tmp_path, *_records())
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "record.json").write_text("{")
    assert main([str(tmp_path)]) == 0
    assert f"left out: {tmp_path}/broken/record.json: not readable as JSON" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "error: missing: no such folder of runs"),
        (["empty"], "error: empty: no finished runs here"),
        (
            ["runs", "--target", "0.2"],
            "error: --target 0.2: no circuit at this target in any of 6 runs; there: ",
        ),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    _write(tmp_path / "runs", *_records())
    (tmp_path / "empty").mkdir()
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1


@pytest.mark.usefixtures("unrendered")
def test_a_wandb_project_is_a_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "analysis.plot_frontier.read_wandb", lambda project: _records() if project == "e/p" else []
    )
    assert main(["wandb=e/p"]) == 0
    assert _names(tmp_path / "frontier") == TABLES | PAIR | FRONTIER
    assert main(["wandb=e/other"]) == 1
    assert "wandb=e/other: no finished runs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0.02, "0.02"),
        (7, "7"),
        (950, "950"),
        (1000, "1k"),
        (1500, "1.5k"),
        (30063, "30k"),
        (2_600_000, "2.6M"),
    ],
)
def test_short_counts(count: float, text: str) -> None:
    assert short(count) == text


@pytest.mark.usefixtures("unrendered")
def test_a_weak_model_does_not_empty_the_frontier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weak = record("sparse", 8, 10, 3.5, {"z": 5})
    _write(tmp_path, *_records(), weak)
    assert main([str(tmp_path)]) == 0
    assert _names(tmp_path / "frontier") == TABLES | PAIR | FRONTIER
    out = capsys.readouterr().out
    assert "not compared on shared tasks: sparse-8-10 has only 1 circuit\n" in out
    points = pd.read_csv(tmp_path / "frontier" / "points.csv")
    points = points[points.target == 0.15].set_index("name")
    assert points.tasks_compared["sparse-8-10"] == 0
    assert points.drop(index="sparse-8-10").compared_edges.notna().all()


def test_seeds_are_told_apart_and_columns_do_not_touch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = [
        found.model_copy(
            update={
                "seeds": {"seed": seed},
                "name": f"{found.name}-{seed}",
                "config_hash": f"{found.config_hash}-{seed}",
            }
        )
        for found in _records()
        for seed in (0, 1)
    ]
    outside = record("sparse", 64, 3000, 9.0, {"b": 9, "c": 9})
    _write(tmp_path, outside, *seeds)
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    header, *rows = out[out.index("kind ") :].partition("\n\n")[0].splitlines()
    column = [row[: header.index("seed") + len("seed")].split()[-1] for row in rows if "gram" not in row]
    assert set(column) == {"-", "0", "1"}
    _, header, *ratios = out[out.index("sizes dense / sparse") :].partition("\nintervals")[0].splitlines()
    apart = header.index("nodes")
    assert all(line[apart - 2 : apart] == "  " for line in ratios)
    assert "outside the dense models' range" in "".join(ratios)
    assert "intervals over seeds and tasks, twins as one" in out
    assert "13 models of 7 configurations" in out
    assert "bars: smallest to largest seed" in (tmp_path / "frontier" / "frontier.svg").read_text()


@pytest.mark.usefixtures("unrendered")
def test_tables_have_a_folder_of_their_own_and_relative_targets_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for found in _records():
        tasks = []
        for task in found.tasks:
            last = task.curve[-1]
            update = {
                "target": 0.19,
                "target_kind": "relative",
                "excess": 0.15,
                "pruned_edges": 2,
                "edges": 8,
            }
            tasks.append(task.model_copy(update={"curve": (*task.curve, last.model_copy(update=update))}))
        _write(tmp_path / "runs", found.model_copy(update={"tasks": tuple(tasks)}))
    out, csv = tmp_path / "figures", tmp_path / "tables"
    assert main([str(tmp_path / "runs"), "--relative", "--out", str(out), "--csv", str(csv)]) == 0
    assert _names(csv) == TABLES | {"curve.csv"}
    assert _names(out) == {name for name in PAIR | FRONTIER if not name.endswith(".csv")}
    printed = capsys.readouterr().out
    assert "95 % bootstrap, target 0.15 nats above the whole model's loss" in printed
    assert "95 % bootstrap, target 0.15 nats)" in printed
    ratios = pd.read_csv(csv / "ratios.csv")
    relative = ratios[ratios.target_kind == "relative"]
    assert set(relative.measure) == {"nodes", "edges", "pruned_edges"}
    assert set(relative.target) == {0.15}
    assert (relative.ratio[relative.measure != "nodes"] == 1).all()
    assert main([str(tmp_path / "runs"), "--relative", "--target", "0.2"]) == 1
    told = "no circuit at this target in any of 6 runs; there: 0.05, 0.15, 0.5, 0.15 --relative"
    assert f"--target 0.2 --relative: {told}" in capsys.readouterr().err


def test_one_target_makes_no_curve(
    tmp_path: Path, unrendered: None, capsys: pytest.CaptureFixture[str]
) -> None:
    two = record("dense", 32, 9000, 2.0, {"b": 200}), record("sparse", 128, 3000, 2.0, {"b": 20})
    runs = _write(tmp_path / "runs", *two)
    assert main([str(runs)]) == 0
    curve = {f"circuit_size_vs_target.{kind}" for kind in ("png", "svg")}
    assert _names(runs / "frontier") == (TABLES | PAIR | FRONTIER) - curve
    assert "no curve of sizes against the target: the circuits have a single one" in capsys.readouterr().out


def test_two_sweeps_are_compared_together(
    tmp_path: Path, unrendered: None, capsys: pytest.CaptureFixture[str]
) -> None:
    others = [
        found.model_copy(update={"sweep": name, "name": f"{name}-{found.name}", "config_hash": name * 9})
        for name, found in zip(("other", "third"), _records()[3:5], strict=True)
    ]
    runs = _write(tmp_path / "runs", *_records()[:3], *others)
    arguments = [str(runs), "--sweep", "width_l0", "--sweep", "other", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert "4 of 5 runs, those of the sweep width_l0 and other" in capsys.readouterr().out
    assert set(pd.read_csv(tmp_path / "out" / "ratios.csv").nonzeros) == {3000}


def test_losses_on_a_part_of_the_text(
    tmp_path: Path, unrendered: None, capsys: pytest.CaptureFixture[str]
) -> None:
    def on_parts(found: RunRecord) -> RunRecord:
        loss = found.metrics["validation/loss"]
        parts = {"validation/loss_grammar": loss - 0.1, "validation/loss_real": 5.0}
        parts |= {"baseline/4gram_grammar": 2.5, "validation/standard_error_grammar": 0.03}
        whole = {"baseline/4gram": 9.0, "validation/standard_error": 0.01}
        return found.model_copy(update={"metrics": found.metrics | parts | whole})

    runs = _write(tmp_path / "runs", *map(on_parts, _records()))
    assert main([str(runs), "--text", "grammar", "--out", str(tmp_path / "out")]) == 0
    points = pd.read_csv(tmp_path / "out" / "points.csv")
    assert sorted(points[points.kind == "dense"].loss.unique().round(6)) == [1.5, 1.6, 1.9]
    assert set(points["4gram"]) == {2.5}
    assert set(pd.read_csv(tmp_path / "out" / "tasks.csv").validation_error) == {0.03}
    assert not {"bags", "kinds", "sizes"} & set(points.columns)  # a row has numbers and names alone
    capsys.readouterr()
    old = _write(tmp_path / "old", *_records())
    assert main([str(old), "--text", "real"]) == 1
    told = capsys.readouterr()
    assert "left out: record of dense-128-140000: has no loss on real text" in told.out
    assert "error: --text real: no run has a loss on real text" in told.err
    write_record(on_parts(_records()[0]), old / "one")
    assert main([str(old), "--text", "real"]) == 0
    assert set(pd.read_csv(old / "frontier_real" / "points.csv").loss) == {5.0}
