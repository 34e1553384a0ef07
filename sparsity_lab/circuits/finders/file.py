"""Finder `file`: a finder from a Python file of the user's own, in the shape that `finder.py` shows.

Workers get its path, its plain options and the hash of its content, and import it themselves.
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

if TYPE_CHECKING:
    from sparsity_lab.circuits.evaluator import CircuitEvaluator

KEY = "finder.path"


class Config(FinderConfigBase):
    """`options` are the values of the file's own `Config`.

    `sha256` is filled in, so that config, record and stages' hashes hold the file's content. A value that is
    given must be that of the file.
    """

    kind: Literal["file"] = "file"
    path: str
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
        """The file's name without its ending."""
        return Path(self.path).stem

    @property
    def restored_share(self) -> float:
        """As the file's own `Config` says."""
        return self.own().restored_share

    def identity(self) -> dict[str, Any]:
        """The file's content and options, not its place."""
        return {"kind": self.kind, "sha256": self.sha256, "options": self.own().identity()}

    def for_controls(self, give_up: float | None) -> Self:
        """As the file's own `Config` says."""
        options = self.own().for_controls(give_up).model_dump(mode="json")
        return self.model_copy(update={"options": options})

    def module(self) -> ModuleType:
        """The file, imported.

        Raises:
            UserError: it has changed since the config was read, cannot be imported, or is no finder.
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
        """The file's own config.

        Raises:
            UserError: an option is unknown, missing or of the wrong type.
        """
        own: FinderConfigBase = validate(self.module().Config, self.options or {}, "finder.options")
        return own


def find(
    evaluator: "CircuitEvaluator", config: Config, targets: tuple[float, ...], seed: int
) -> dict[float, Found]:
    """Whatever the file finds, each set checked.

    Raises:
        UserError: a set is not of this model's nodes, is for a target that was not asked for, or misses it.
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
