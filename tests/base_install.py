"""An environment that holds what `pip install .` brings, and nothing that only an extra brings.

It is a folder of links to the installed packages: those of `project.dependencies` and what they require. A
Python started with `-S` and this folder in PYTHONPATH sees no other package.
"""

import tomllib
from collections import Counter
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def base_distributions() -> dict[str, Distribution]:
    """All installed distributions that the base dependencies need, by name."""
    wanted: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    found, seen = dict[str, Distribution](), set[tuple[str, str]]()
    todo = [(Requirement(text), "") for text in wanted]
    while todo:
        requirement, for_extra = todo.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": for_extra}):
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # needed on other machines only, as CUDA's libraries are
            continue
        for extra in {"", *requirement.extras}:
            if (name, extra) not in seen:
                seen.add((name, extra))
                todo += [(Requirement(text), extra) for text in found[name].requires or ()]
    return found


def link_base_install(folder: Path) -> Path:
    """Fill `folder` with links to the base dependencies; return it.

    A directory that several distributions share, such as `hydra_plugins`, is made anew.
    """
    directories = Counter(top for one in distributions() for top in _tops(one, directories=True))
    for found in base_distributions().values():
        for top in _tops(found):
            entries = {Path(top)}
            if directories[top] > 1:
                entries = {Path(*file.parts[:2]) for file in found.files or () if file.parts[0] == top}
            for entry in entries:
                (folder / entry).parent.mkdir(parents=True, exist_ok=True)
                if not (folder / entry).exists():
                    (folder / entry).symlink_to(str(found.locate_file(entry)))
    return folder


def _tops(of: Distribution, directories: bool = False) -> set[str]:
    """The names in `site-packages` that a distribution has installed."""
    files = [file for file in of.files or () if len(file.parts) > 1 or not directories]
    return {file.parts[0] for file in files} - {"..", "__pycache__"}
