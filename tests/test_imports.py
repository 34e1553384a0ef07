"""What a room may import (design.md), read from the source: data flows one way; the readers need no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "sparsity_lab"
MAX_LINES = 300

# room → what it may import from the project, besides itself; the longest matching name decides
TASKS = ("core", "data", "model")
CIRCUITS = (*TASKS, "tasks")
ROOMS = {
    "core": (),
    "data": ("core",),
    "model": ("core",),
    "kernels": ("core", "model"),
    "training": ("core", "data", "model", "kernels"),
    "tasks": TASKS,
    "tasks.shortcuts_record": ("core",),
    "circuits": CIRCUITS,
    "circuits.circuit": ("core",),
    "importers": (*CIRCUITS, "circuits"),
    "evidence": (*CIRCUITS, "circuits"),
    "evidence.record": ("core", "circuits.circuit"),
    "bridges": (*CIRCUITS, "circuits", "training"),
    "bridges.steering_record": ("core", "circuits.circuit"),
    "viewer": (*CIRCUITS, "circuits"),
    "viewer.examples_record": ("core", "circuits.circuit"),
    "viewer.page": ("core", "circuits.circuit", "evidence.record", "viewer.examples_record", "results.style"),
    "results": ("core", "circuits.circuit", "evidence.record", "tasks.shortcuts_record"),
    "sweep": ("core", "results.record"),
    "analysis": (
        "core",
        "circuits.circuit",
        "evidence.record",
        "tasks.shortcuts_record",
        "viewer.examples_record",
        "viewer.page",
        "bridges.steering_record",
        *(
            f"results.{name}"
            for name in ("record", "runs", "frames", "summary", "style", "drawing", "remote")
        ),
    ),
}
OF_ITSELF = {
    "circuits.circuit",
    "evidence.record",
    "viewer.examples_record",
    "viewer.page",
    "bridges.steering_record",
    "results.record",
    "tasks.shortcuts_record",
}  # a module's own rule: not even the rest of its room
# those that know every room: the stages, the whole config, the programs
FREE = (
    "stages",
    "config",
    "lab",
    *("run", "status", "export", "score", "cost", "shortcuts"),
    "benchmarks",
)
# room → the only packages from outside; torch-free rooms → what they may not import
RECORDS = (
    "circuits.circuit",
    "evidence.record",
    "viewer.examples_record",
    "bridges.steering_record",
    "tasks.shortcuts_record",
)
ONLY = {"core": {"pydantic", "filelock"}} | {record: {"pydantic"} for record in RECORDS}
TORCH = {"torch", "lightning", "safetensors", "torchmetrics"}
NEVER = {
    **dict.fromkeys(("core", "sweep", "status", "viewer.page", *RECORDS), TORCH),
    **dict.fromkeys(
        (
            f"results.{name}"
            for name in ("record", "upgrades", "runs", "frames", "summary", "style", "drawing", "remote")
        ),
        TORCH,
    ),
    "sweep.job_status": TORCH | {"hydra"},
    "sweep.status_table": TORCH | {"hydra"},
    "sweep.time_left": TORCH | {"hydra"},
    "status": TORCH | {"hydra"},
    "results.logger": TORCH | {"wandb"},
    "analysis": TORCH | {"hydra", "omegaconf"},
}
TOPS = (PACKAGE, "analysis", "benchmarks")


def modules() -> dict[str, Path]:
    """Module name without the package's own (`circuits.circuit`, `analysis.frontier`) → file."""
    found = {}
    for top in TOPS:
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts[1:] if top == PACKAGE else parts
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imports(path: Path, names: set[str]) -> set[str]:
    """Every module that the file names in an import, at any depth of its code, as `package.module`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            modules_named = {name for name in inner if name.removeprefix(f"{PACKAGE}.") in names}
            found |= modules_named or {node.module}
            if len(modules_named) not in (0, len(inner)):
                found.add(node.module)
    return found


def inside(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def room_of(module: str, rooms: object) -> str | None:
    matching = [room for room in rooms if inside(module, room)]  # type: ignore[attr-defined]
    return max(matching, key=len, default=None)


MODULES = modules()


@pytest.mark.parametrize("module", sorted(set(MODULES) - {""}))
def test_a_room_imports_only_what_it_may(module: str) -> None:
    if room_of(module, FREE) is not None:
        return
    room = room_of(module, ROOMS)
    assert room is not None, f"{module} belongs to no room of the table in this test"
    home = room if room in OF_ITSELF else room.split(".")[0]
    allowed = (home, *ROOMS[room])
    for imported in imports(MODULES[module], set(MODULES)):
        top, _, name = imported.partition(".")
        if top not in TOPS:
            continue
        name = name if top == PACKAGE else imported
        assert any(inside(name, other) for other in allowed), f"{module} may not import {imported}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_third_party_imports(module: str) -> None:
    outside = {name.partition(".")[0] for name in imports(MODULES[module], set(MODULES))}
    outside -= {*TOPS, *sys.stdlib_module_names}
    if (room := room_of(module, ONLY)) is not None:
        assert outside <= ONLY[room]
    if (room := room_of(module, NEVER)) is not None:
        assert not outside & NEVER[room]


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"results.drawing"}))
def test_only_one_module_imports_matplotlib(module: str) -> None:
    """An import elsewhere would fail where MPLBACKEND names a backend that is not installed."""
    outside = {name.partition(".")[0] for name in imports(MODULES[module], set(MODULES))}
    assert "matplotlib" not in outside


@pytest.mark.parametrize("module", sorted(MODULES))
def test_modules_are_short(module: str) -> None:
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_there_is_no_utils() -> None:
    assert not [
        module for module in MODULES if module.split(".")[-1] in ("utils", "util", "helpers", "common")
    ]


def test_the_readers_start_without_torch() -> None:
    readers = "analysis.frontier, sparsity_lab.results.remote, sparsity_lab.results.logger"
    code = f"import sys, {readers}; sys.exit('torch' in sys.modules or 'lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_wrong_value_is_told_without_torch() -> None:
    """Importing torch takes seconds; the config is validated first."""
    heavy = {"torch", "lightning", "numba", "pandas", "wandb"}
    code = f"import sys, sparsity_lab.run, sparsity_lab.config; sys.exit(bool({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_what_makes_circuits_side_by_side_starts_without_lightning() -> None:
    stages = ", ".join(f"sparsity_lab.stages.{name}" for name in ("circuits", "examples", "evidence"))
    code = f"import sys, {stages}; sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_reader_sees_every_form_of_import(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text(
        "import torch.nn as nn\nfrom sparsity_lab import core\n"
        "def f():\n    from sparsity_lab.data import tokenizer, X\n"
    )
    assert imports(path, {"core", "data", "data.tokenizer"}) == {
        "torch.nn",
        "sparsity_lab.core",
        "sparsity_lab.data.tokenizer",
        "sparsity_lab.data",
    }


def test_the_packages_top_level_holds_the_programs_and_the_config_only() -> None:
    found = {path.stem for path in (ROOT / PACKAGE).glob("*.py")}
    assert found == {"__init__", "run", "status", "export", "score", "cost", "shortcuts", "config"}


def test_no_modules_import_each_other_in_a_circle() -> None:
    names = set(MODULES)
    ahead = {
        module: {
            name.removeprefix(f"{PACKAGE}.")
            for name in imports(path, names)
            if name.removeprefix(f"{PACKAGE}.") in names - {module}
        }
        for module, path in MODULES.items()
    }
    while ahead:
        done = {module for module, needs in ahead.items() if not needs & ahead.keys()}
        assert done, f"a circle among {sorted(ahead)}"
        ahead = {module: needs for module, needs in ahead.items() if module not in done}
