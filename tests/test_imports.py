"""What a room may import (design.md), read from the source: data flows one way; the readers need no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "sparsity_lab"
MAX_LINES = 300

# room → what it may import from the project, besides itself and `metrics`; the longest matching name decides
ROOMS = {
    "base": (),
    "metrics": (),
    "stopping": (),
    "data": ("base", "stopping"),
    "model": ("base",),
    "training": ("base", "model", "stopping"),
    "circuits": ("base", "model", "data.tokenizer", "data.lexicon"),
    "circuits.circuit": ("base",),
    "circuits.evidence": ("base", "circuits.circuit"),
    "circuits.examples_record": ("base", "circuits.circuit"),
    "circuits.steered": ("base", "circuits.circuit"),
    "results": ("base", "circuits.circuit", "circuits.evidence"),
    "results.record": ("base", "circuits.circuit", "circuits.evidence"),
    "points": ("base",),
    "status": ("base", "points"),
    "sweeper": ("base", "points", "status", "stopping", "tuning"),
    "study": ("base",),
    "tuning": ("base", "points", "stopping", "study", "results.record"),
    "analysis": (
        "base",
        "circuits.circuit",
        "circuits.evidence",
        "circuits.examples_record",
        "circuits.steered",
        "results.record",
        "results.remote",
    ),
}
OF_ITSELF = {
    "circuits.circuit",
    "circuits.evidence",
    "circuits.examples_record",
    "circuits.steered",
    "results.record",
}  # a module's own rule: not even the rest of its room
# room → the only packages from outside; torch-free rooms → what they may not import
ONLY = {
    "base": {"pydantic", "filelock"},
    "metrics": set[str](),
    "stopping": set[str](),
    "circuits.circuit": set[str](),
    "circuits.evidence": set[str](),
    "circuits.examples_record": set[str](),
    "circuits.steered": set[str](),
}
TORCH = {"torch", "lightning", "safetensors", "torchmetrics"}
NEVER = {
    "base": TORCH,
    "points": TORCH | {"hydra"},
    "status": TORCH | {"hydra"},
    "study": TORCH,
    "tuning": TORCH,
    "circuits.circuit": TORCH,
    "circuits.evidence": TORCH,
    "circuits.examples_record": TORCH,
    "circuits.steered": TORCH,
    "results.record": TORCH,
    "results.logger": TORCH | {"wandb"},
    "results.remote": TORCH,
    "analysis": TORCH | {"hydra", "omegaconf"},
}


def modules() -> dict[str, Path]:
    """Module name without the package's own (`circuits.circuit`, `analysis.frontier`) → file."""
    found = {}
    for top in (PACKAGE, "analysis"):
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
# the package itself, and those that know every room
FREE = (
    "",
    "run",
    "pipeline",
    "stage_inputs",
    "side_by_side",
    "model_stage",
    "circuits_stage",
    "dense_stages",
    "evidence_stage",
    "existing_stage",
    "export",
    "examples_stage",
    "formation_stage",
    "config",
    "cost",
    "bench",
    "plain",
)


@pytest.mark.parametrize("module", sorted(set(MODULES) - set(FREE)))
def test_a_room_imports_only_what_it_may(module: str) -> None:
    room = room_of(module, ROOMS)
    assert room is not None, f"{module} belongs to no room of the table in this test"
    home = room if room in OF_ITSELF else room.split(".")[0]
    allowed = (home, "metrics", *ROOMS[room])
    for imported in imports(MODULES[module], set(MODULES)):
        top, _, name = imported.partition(".")
        if top not in (PACKAGE, "analysis"):
            continue
        name = name if top == PACKAGE else imported
        assert any(inside(name, other) for other in allowed), f"{module} may not import {imported}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_third_party_imports(module: str) -> None:
    outside = {name.partition(".")[0] for name in imports(MODULES[module], set(MODULES))}
    outside -= {PACKAGE, "analysis", *sys.stdlib_module_names}
    if (room := room_of(module, ONLY)) is not None:
        assert outside <= ONLY[room]
    if (room := room_of(module, NEVER)) is not None:
        assert not outside & NEVER[room]


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


def test_what_makes_circuits_side_by_side_starts_without_lightning() -> None:
    stages = ", ".join(f"sparsity_lab.{name}_stage" for name in ("circuits", "examples", "evidence"))
    code = f"import sys, {stages}; sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_reader_sees_every_form_of_import(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text(
        "import torch.nn as nn\nfrom sparsity_lab import base\n"
        "def f():\n    from sparsity_lab.data import tokenizer, X\n"
    )
    assert imports(path, {"base", "data", "data.tokenizer"}) == {
        "torch.nn",
        "sparsity_lab.base",
        "sparsity_lab.data.tokenizer",
        "sparsity_lab.data",
    }
