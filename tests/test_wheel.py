"""The built wheel: what travels in it, and that it runs in any working directory; the pins."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def run(*arguments: str | Path, cwd: Path, path: Path | None = None) -> str:
    """Run Python with `arguments`, with `path` before everything installed; returns what it printed."""
    environment = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run("-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The wheel unpacked, as `pip install --no-deps --target` would lay it out."""
    target = wheel.with_name("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def test_the_wheel_holds_the_package_its_configs_and_sweeps_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "sparsity_lab").rglob("*.py")}
    settings = {
        f"sparsity_lab/{path.relative_to(ROOT).as_posix()}"
        for folder in ("conf", "sweeps")
        for path in (ROOT / folder).rglob("*.yaml")
    }
    assert "sparsity_lab/conf/config.yaml" in settings
    assert "sparsity_lab/sweeps/width_l0.yaml" in settings
    assert {name for name in names if name.endswith((".py", ".yaml"))} == modules | settings
    assert {name.partition("/")[0] for name in names} == {"sparsity_lab"}


def test_the_wheel_carries_its_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (licence,) = (name for name in archive.namelist() if name.endswith(".dist-info/licenses/LICENSE"))
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()


def test_the_program_composes_a_sweep_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    where = run("-c", "import sparsity_lab; print(sparsity_lab.__file__)", cwd=tmp_path, path=installed)
    assert Path(where.strip()).is_relative_to(installed)
    command = ("-m", "sparsity_lab.run", "--cfg", "job", "+sweep=width_l0")
    composed = yaml.safe_load(run(*command, cwd=tmp_path, path=installed))
    assert composed["sweep_name"] == "width_l0"
    assert composed["corpus"]["kind"] == "tinypython"
    assert not list(tmp_path.iterdir())


def test_help_names_the_choices_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    told = run("-m", "sparsity_lab.run", "--help", cwd=tmp_path, path=installed)
    sweeps = " | ".join(sorted(path.stem for path in (ROOT / "sweeps").glob("*.yaml")))
    assert f"+sweep={sweeps}" in told
    groups = {folder.name for folder in (ROOT / "conf").iterdir() if folder.is_dir()}
    for group in sorted(groups - {"hydra"}):
        assert f"  {group}=" in told


def test_every_direct_dependency_is_pinned_inside_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pinned = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    assert len(pinned) == len(pins)
    assert all(str(pin.specifier).startswith("==") and "*" not in str(pin.specifier) for pin in pins)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ranges = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    for wanted in map(Requirement, ranges):
        assert wanted.specifier.contains(pinned[canonicalize_name(wanted.name)]), wanted
