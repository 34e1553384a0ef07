"""Names that users choose and that become folders: those of sweeps."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from sparsity_lab.core.config import Config, validate
from sparsity_lab.core.paths import UserPath

SINGLE = "single"  # the folder of runs without a sweep
# folders below the root that are no sweeps: those of the stages, and Hydra's logs
RESERVED = (
    *("corpora", "tokens", "baselines", "shortcuts", "models", "bridges", "validations"),
    *("circuits", "evidence", "examples", "agreements", "steering"),
    *(SINGLE, "logs", "report", "null", "none"),
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _sweep_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("allowed: 1 to 64 letters, digits, . _ -, the first a letter or digit")
    if name.lower() in RESERVED:
        raise ValueError(f"this name is taken; allowed: any but {', '.join(RESERVED)}")
    return name


SweepName = Annotated[str, AfterValidator(_sweep_name)]


class Destination(Config):
    """The folder that everything is written below, and the sweep in it, if any."""

    root: UserPath
    sweep_name: SweepName | None

    @property
    def folder(self) -> Path:
        """The folder that holds the folders of the runs."""
        return self.root.absolute / (self.sweep_name or SINGLE)


def destination(root: Any, sweep_name: Any) -> Destination:
    """Check the two values, before anything is written.

    Raises:
        UserError: one line for each value that is not allowed.
    """
    return validate(Destination, {"root": root, "sweep_name": sweep_name})
