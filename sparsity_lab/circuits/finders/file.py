"""Finder `file`: a finder in the user's own Python file, which follows the contract in `finder.py`.

Worker processes receive the file's path, its options and the hash of its content, and import it themselves.
"""

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import model_validator

from sparsity_lab.circuits.finders.finder import FinderConfigBase, Found
from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.extension import load_file, unchanged, with_content
from sparsity_lab.core.foreign import foreign
from sparsity_lab.core.paths import UserPath

if TYPE_CHECKING:
    from sparsity_lab.circuits.evaluator import CircuitEvaluator

KEY = "finder.path"


class Config(FinderConfigBase):
    """The `path` of the file, and `options` for the file's own `Config`.

    `sha256` is filled in, so that config, record and stage hashes depend on the file's content. If it is
    given, it must match the file.
    """

    kind: Literal["file"] = "file"
    path: UserPath
    options: dict[str, Any] | None = None
    sha256: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _with_content(cls, values: Any) -> Any:
        return with_content(values, "finder")

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        self.own()
        return self

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    @property
    def label(self) -> str:
        """The file's name without its extension."""
        return Path(self.path).stem

    @property
    def restored_share(self) -> float:
        """The restored share of the file's own `Config`."""
        return self.own().restored_share

    def identity(self) -> dict[str, Any]:
        """The file's content and options, not its place."""
        return {"kind": self.kind, "sha256": self.sha256, "options": self.options}

    def again(self, attempt: int, missed: bool) -> Self:
        """Return this config with the options that the file's own `Config` uses for a further attempt."""
        options = self.own().again(attempt, missed).model_dump(mode="json")
        return self.model_copy(update={"options": options})

    def for_controls(self, give_up: float | None) -> Self:
        """Return this config with the options that the file's own `Config` uses for controls."""
        options = self.own().for_controls(give_up).model_dump(mode="json")
        return self.model_copy(update={"options": options})

    def module(self) -> ModuleType:
        """Import the file.

        Raises:
            UserError: it has changed since the config was read, cannot be imported, or is not a finder.
        """
        module = load_file(unchanged(self.path, self.sha256, KEY), KEY)
        config = getattr(module, "Config", None)
        is_config = isinstance(config, type) and issubclass(config, FinderConfigBase)
        if not is_config or not callable(getattr(module, "find", None)):
            raise UserError(
                f"{KEY}: {self.path}: needs a class Config(FinderConfigBase) "
                "and a function find(evaluator, config, targets, seed)"
            )
        return module

    def own(self) -> FinderConfigBase:
        """Build the file's own `Config` from the options.

        Raises:
            UserError: an option is unknown, missing or of the wrong type.
        """
        own: FinderConfigBase = validate(self.module().Config, self.options or {}, "finder.options")
        return own


def find(
    evaluator: "CircuitEvaluator", config: Config, targets: tuple[float, ...], seed: int
) -> dict[float, Found]:
    """Call the file's `find` and check each set that it returns.

    Raises:
        UserError: a set does not fit the model's nodes, misses its target, or is for a target that was not
            asked for.
    """
    with foreign(f"{KEY}: {config.path}: find"):
        found = config.module().find(evaluator, config.own(), targets, seed)
    if not isinstance(found, dict) or not all(isinstance(one, Found) for one in found.values()):
        raise UserError(f"{KEY}: {config.path}: find: must return a dict from target to Found(kept_n, notes)")
    for target, (kept_n, notes) in found.items():
        where = f"{KEY}: {config.path}: find: target {target}"
        if not hasattr(kept_n, "dtype"):
            raise UserError(f"{where}: {type(kept_n).__name__}: allowed: a boolean tensor")
        if target not in targets:
            raise UserError(f"{where}: not asked for; allowed: {', '.join(map(str, targets))}")
        shape, kind = tuple(kept_n.shape), str(kept_n.dtype)
        if (shape, kind) != (tuple(evaluator.means_n.shape), "torch.bool"):
            raise UserError(f"{where}: {kind} {shape}: allowed: torch.bool ({len(evaluator.means_n)},)")
        if (loss := evaluator.select_loss(kept_n)) > target:
            raise UserError(f"{where}: its {int(kept_n.sum())} nodes have loss {loss:.4g}")
        if wrong := [key for key, value in notes.items() if not isinstance(value, str | int | float | None)]:
            raise UserError(
                f"{where}: notes: {', '.join(map(str, wrong))}: allowed: text, numbers, true, null"
            )
    return found
