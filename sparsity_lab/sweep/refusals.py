"""Explain in one line why Hydra rejects a command, with allowed values and the likely intended name."""

import re
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.foreign import one_line
from sparsity_lab.core.renamed import renamed_in_overrides
from sparsity_lab.core.shown import printable
from sparsity_lab.sweep.finished_run import OPTION

NULL_GROUP = "Config group override must be a string or a list"  # message of Hydra's ValueError
DELETED_GROUP = "Config group override deletion value must be a string"  # likewise
FLAGS = ("Only one of --run", "The --resolve flag")  # messages of Hydra's ValueErrors about its own flags
ADVICE = "To append to your"  # Hydra's, which would add a key that no config knows
NOTHING = ("null", "none", "false", "")
OPTIONAL = ("reference", "bridge", "steering", "experiment")  # groups that a run may lack


def command_line_error(error: Exception, arguments: Sequence[str], conf: Path) -> str | None:
    """Return the message for an error that ended a command before its work began.

    Return None for a fault of the system, and for one of this package, whose traceback is needed.
    """
    if wrong := _user_error(error):
        return "; ".join(str(wrong).splitlines())
    missing = getattr(error, "missing_cfg_file", None) or ""  # "group/option", in a sweep's file as well
    unknown = re.search(r"Could not override '([^'@]+)", str(error))  # a group in a sweep's defaults
    if renamed := renamed_in_overrides(
        [*arguments, missing.replace("/", "="), unknown[1] if unknown else ""]
    ):
        return "\n".join(renamed)
    known = is_refusal(error) or isinstance(error, OmegaConfBaseException)
    if (known or _raised_by_library(error)) and (told := "; ".join(_not_options(arguments, conf))):
        return printable(told)
    if known:
        return refusal(error, arguments, conf)
    if str(error).startswith(FLAGS):
        return str(error)
    if _raised_by_library(error) and not isinstance(error, OSError):
        return f"the command line is refused: {one_line(error)}"
    return None


def _user_error(error: BaseException | None) -> UserError | None:
    """Return `error` if it is a UserError, or the one that a failed interpolation of OmegaConf hides."""
    while isinstance(error, OmegaConfBaseException):
        error = error.__cause__ or error.__context__
    return error if isinstance(error, UserError) else None


def _raised_by_library(error: Exception) -> bool:
    """Return whether no code of this package ran but the program that called Hydra."""
    package = Path(__file__).parents[1]
    frames = traceback.extract_tb(error.__traceback__)
    return sum(Path(frame.filename).is_relative_to(package) for frame in frames) <= 1


def is_refusal(error: Exception) -> bool:
    """Return whether the error is Hydra's rejection of the command rather than a bug."""
    return isinstance(error, HydraException) or str(error).startswith((NULL_GROUP, DELETED_GROUP))


def refusal(error: Exception, arguments: Sequence[str], conf: Path) -> str:
    """Return the message for `error`, raised by Hydra for `arguments`; `conf` is the config folder."""
    return printable(_refusal(error, arguments, conf))


def _refusal(error: Exception, arguments: Sequence[str], conf: Path) -> str:
    text = str(error)
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    if text.startswith(DELETED_GROUP):
        argument = next((a for a in arguments if a.startswith("~") and "=" in a), "~")
        return f"{argument}: a group is left out by its name alone; allowed: {argument.partition('=')[0]}"
    if found := re.match(r"Could not override '([^']*)'", text):
        key = found[1]
        argument = next((a for a in arguments if _key(a) == key), key)
        return _unknown(argument, key, conf)
    if found := re.search(r"Could not find '(hydra/[^/']+|[^/']+)/([^']+)'", text):
        return _no_option(found[1], found[2], _options(text))
    if text.startswith(NULL_GROUP):
        groups = {path.name for path in conf.iterdir() if path.is_dir()}
        named = [a for a in arguments if _key(a) in groups and a.partition("=")[2].lower() in NOTHING]
        if keyless := [a for a in arguments if not _key(a)]:
            return f"{keyless[0]}: expected KEY=VALUE"
        return "; ".join(f"{a}: to leave a group out: ~{_key(a)}" for a in named or arguments)
    lines = [line.strip() for line in text.splitlines()]
    return "; ".join(line for line in lines if line and not line.startswith(ADVICE))


def with_origin(message: str, arguments: Sequence[str], choices: Mapping[str, Any], conf: Path) -> str:
    """Add to each line about a value that the command does not give which file of values gives it.

    `choices` maps a group to the option chosen; the groups `experiment` and `sweep` set values of others.
    """
    typed = {_key(argument) for argument in arguments}
    for group, folder, name in (
        ("experiment", conf / "experiment", ""),
        ("sweep", conf.parent / "sweeps", "+"),
    ):
        path = folder / f"{choices.get(group)}.yaml"
        if path.is_file():
            given = set(_flat(OmegaConf.to_container(OmegaConf.load(path)), "")) - typed
            lines = [
                f"{line}; {name}{group}={path.stem} sets it" if line.partition(":")[0] in given else line
                for line in message.splitlines()
            ]
            message = "\n".join(lines)
    return message


def _unreadable(argument: str) -> str:
    key, equals, value = argument.partition("=")
    if not equals:
        return f"{argument}: expected KEY=VALUE"
    bare = value.strip("\"'")
    return f"{argument}: not readable; quote the value: '{key}=\"{bare}\"'"


def _unknown(argument: str, key: str, conf: Path) -> str:
    if not key:
        return f"{argument or '='}: expected KEY=VALUE"
    if key == "sweep":
        name = argument.partition("=")[2]
        if (conf.parent / "sweeps" / f"{name}.yaml").is_file():
            return f"{argument}: a sweep is chosen with a plus and run with -m: +{argument} -m"
        return f"{argument}: to name your own sweep: sweep_name={name}; to choose a saved one: +sweep=NAME -m"
    keys = _keys(conf)
    parent, _, leaf = key.rpartition(".")
    siblings = {name.rpartition(".")[2]: name for name in keys if name.rpartition(".")[0] == parent}
    same_leaf = [name for name in keys if name.rpartition(".")[2] == leaf]
    in_section = [siblings[near] for near in get_close_matches(leaf, siblings, 1, 0.7)]
    first, second = (in_section, same_leaf) if parent else (same_leaf, in_section)
    if near := first or second or ([] if siblings else get_close_matches(key, keys, 1, 0.7)):
        return f"{key}: unknown key; did you mean {near[0]}?"
    if parent and siblings:
        return f"{key}: unknown key; allowed in {parent}: {', '.join(siblings)}"
    return f"{key}: unknown key; allowed: {', '.join(name for name in keys if '.' not in name)}"


def _no_option(group: str, option: str, options: list[str]) -> str:
    if option.lower() in NOTHING and group in OPTIONAL:
        return f"{group}={option}: no such option; to leave a group out: ~{group}"
    near = get_close_matches(option, options, 1, 0.6)
    meant = f"; did you mean {group}={near[0]}?" if near else ""
    meant += f"; to name your own sweep: sweep_name={option}" if group == "sweep" else ""
    return f"{group}={option}: no such option{meant}; allowed: {', '.join(options)}"


def _not_options(arguments: Sequence[str], conf: Path) -> Iterator[str]:
    """Yield a line for each argument that gives a group a number, a mapping, or a list with no option in it.

    Hydra fails on these with errors that name neither the group nor the value.
    """
    parser = OverridesParser.create()
    folders = [path for path in conf.iterdir() if path.is_dir()]
    groups = {folder.name: sorted(path.stem for path in folder.glob("*.yaml")) for folder in folders}
    for argument in arguments:
        try:
            (override,) = parser.parse_overrides([argument])
            value = override.value()
        except HydraException:
            continue
        group = override.key_or_group
        options = groups.get(group, [])
        if not options or override.is_delete() or override.is_sweep_override() or value in (None, False, ""):
            continue
        if isinstance(value, str):
            continue  # Hydra lists the options of its group
        names = value if isinstance(value, list) and value else [value]
        for name in names:
            if name not in options:
                is_text = isinstance(name, str) or name is not value
                yield _no_option(
                    group, str(name) if is_text else override.get_value_element_as_str(), options
                )


def _options(text: str) -> list[str]:
    """Parse the options from Hydra's message, which lists one per line; leave out the one that `of` adds."""
    lines = text.partition("Available options in")[2].splitlines()[1:]
    options: list[str] = []
    for line in lines:
        if not line.startswith("\t"):
            break
        options.append(line.strip())
    end = next((i for i, line in enumerate(options) if line.startswith("provider=")), None)
    return [option for option in options[:end] if option != OPTION]


def _key(argument: str) -> str:
    """Return the key of an override without its prefix (`+`, `++`, `~`)."""
    return argument.partition("=")[0].lstrip("+~")


def _keys(conf: Path) -> list[str]:
    """List the keys of the default config and of every group option, as `section.key`."""
    with initialize_config_dir(str(conf), version_base="1.3"):
        keys = dict.fromkeys(_flat(OmegaConf.to_container(compose("config")), ""))
    for path in sorted(conf.glob("*/*.yaml")):
        if path.parent.name not in ("experiment", "hydra"):
            section = OmegaConf.to_container(OmegaConf.load(path))
            keys |= dict.fromkeys(_flat(section, f"{path.parent.name}."))
    return list(keys)


def _flat(values: Any, prefix: str) -> Iterable[str]:
    for key, value in values.items() if isinstance(values, dict) else ():
        if key != "defaults":
            yield f"{prefix}{key}"
            yield from _flat(value, f"{prefix}{key}.")
