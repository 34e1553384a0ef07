"""`of=RUN`: a new run of the model of RUN, which is not trained again.

1. Each section of RUN/config.yaml becomes an option of its config group, named `of_run`.
2. A copy of conf/config.yaml selects these options. Hydra composes it instead of conf/config.yaml.

So every value that the command does not give is RUN's. `finder=gradient` replaces RUN's finder as a whole.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.paths import UserPath
from sparsity_lab.core.run_folder import RunFolder
from sparsity_lab.sweep.sweeper import folder_of

KEY, OPTION, CONFIG = "of", "of_run", "config_of_run"
CONTENT = "sha256"  # of a file named in a section; filled in again, since the command may name another file


def with_finished_run(arguments: Sequence[str]) -> list[str]:
    """Make Hydra compose from the run that `of=RUN` names, if it is among the arguments.

    Raises:
        UserError: `of` does not name one run's folder, or its config cannot be read.
    """
    named = [argument for argument in arguments if argument.lstrip("+").partition("=")[0] == KEY]
    if not named:
        return list(arguments)
    path = _path(named)
    _register(read_config(path), path)
    return [*arguments, "--config-name", CONFIG]


def read_config(path: Path) -> dict[str, Any]:
    """Read the config of a run's folder as plain containers.

    Raises:
        UserError: the folder is not a run's, or its config is damaged.
    """
    file = RunFolder(path).config
    if not file.is_file():
        what = f"has no {file.name}" if path.is_dir() else "no such folder"
        raise UserError(f"{KEY}: {path}: {what}; allowed: a run's folder, as runs/single/NAME-HASH")
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{KEY}: {file}: cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(config, dict) or not isinstance(config.get("root"), str):
        raise UserError(f"{KEY}: {file}: not the config of a run")
    return config


def root_of(path: Path) -> Path:
    """Return the folder that holds the run at `path`, its sweep and its stages."""
    return path.resolve().parents[1]


def _path(named: Sequence[str]) -> Path:
    try:
        values = [override.value() for override in OverridesParser.create().parse_overrides(list(named))]
    except HydraException:
        values = []
    if len(values) != 1 or not isinstance(values[0], str) or not values[0]:
        raise UserError(f"{' '.join(named)}: allowed: {KEY}=RUN, the folder of one run")
    return UserPath(values[0]).absolute


def _register(config: dict[str, Any], path: Path) -> None:
    store = ConfigStore.instance()
    base: Any = OmegaConf.to_container(OmegaConf.load(folder_of("conf") / "config.yaml"))
    chosen = {group for choice in base["defaults"] if isinstance(choice, dict) for group in choice}
    groups: dict[str, Any] = {}
    for group in chosen & config.keys():
        groups[group] = None  # such as a reference model, which RUN does not have
        if isinstance(config[group], dict):
            section = {key: value for key, value in config[group].items() if key != CONTENT}
            node = OmegaConf.create(_with_later_keys(group, section))
            store.store(group=group, name=OPTION, node=node, provider=str(path))
            groups[group] = OPTION
    defaults = [
        {group: groups.get(group, option) for group, option in choice.items()}
        if isinstance(choice, dict)
        else choice
        for choice in base["defaults"]
    ]
    plain = {key: value for key, value in config.items() if key not in groups}
    own = {"defaults": defaults, "root": _root(config["root"], path), "sweep_name": None, "records": None}
    values = base | plain | own
    store.store(name=CONFIG, node=OmegaConf.create(values | {KEY: None}), provider=str(path))


def _with_later_keys(group: str, section: dict[str, Any]) -> dict[str, Any]:
    """Return the section with the keys of its option in conf/ that it lacks, so that a command may set them.

    RUN's file lacks a key that is younger than RUN, or that is left out at its default.
    """
    file = folder_of("conf") / group / f"{section.get('kind', 'default')}.yaml"
    there: Any = OmegaConf.to_container(OmegaConf.load(file)) if file.is_file() else {}
    return {key: value for key, value in there.items() if key != "defaults" and value != "???"} | section


def _root(written: str, path: Path) -> str:
    """Return RUN's root as it was written if that still is its place, else from the working directory."""
    root = root_of(path)
    try:
        if UserPath(written).absolute.resolve() == root:
            return written
    except ValueError:
        pass
    return min(os.path.relpath(root), str(root), key=len)
