"""A run's folder: where its parts are, and links that follow the run."""

from pathlib import Path

from sparsity_lab.core.run_folder import RunFolder, circuit_file


def test_circuits_come_ascending_by_target_whatever_their_names(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    targets = (1e-05, 0.05, 0.15, 0.3, 2.0, 10.0)
    for target in reversed(targets):
        path = run.circuit("task", target)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    run.result("task").write_text("{}")
    relative = run.path / "circuits" / "task" / circuit_file(0.02, "relative")
    relative.write_text("{}")
    assert run.circuits("task") == [*(run.circuit("task", target) for target in targets), relative]
    assert relative.name == "circuit-plus-0.02.json"
    assert run.circuit("task", 0.15).name == circuit_file(0.15) == "circuit-0.15.json"
    assert run.circuits("other") == []
    assert run.tasks() == ["task"]


def test_a_snapshot_is_laid_out_as_a_run(tmp_path: Path) -> None:
    path = RunFolder(tmp_path).snapshot(0.5).circuit("task", 0.15)
    assert path == tmp_path / "snapshots" / "0.5" / "circuits" / "task" / "circuit-0.15.json"


def test_links_are_replaced_and_stale_ones_removed(tmp_path: Path) -> None:
    old, new = tmp_path / "stages" / "old", tmp_path / "stages" / "new"
    for folder in (old, new):
        folder.mkdir(parents=True)
    run = RunFolder(tmp_path / "sweep" / "run")
    run.link_all({"model": old, "circuits/a": old, "examples/a": old, "snapshots/0.5/circuits/a": old})
    (run.path / "pages").mkdir()
    (run.path / "circuits" / "notes.txt").write_text("a user's own")
    links = {"model": new, "circuits/b": new}
    run.link_all(links)
    run.remove_other_links(links)
    found = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*")}
    assert found == {"model", "circuits", "circuits/b", "circuits/notes.txt", "pages"}
    assert run.model.resolve() == new.resolve()
    assert not run.model.readlink().is_absolute()
    assert old.exists()
