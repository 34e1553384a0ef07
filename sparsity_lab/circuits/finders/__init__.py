"""Circuit finders: every module here that defines `Config` and `find` is one (contract: `finder.py`).

To add a finder, add a module here and its values in `conf/finder/KIND.yaml`. Importing this package does not
import torch.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Union

from sparsity_lab.circuits.finders.finder import Find, FinderConfigBase


def _discover() -> dict[type[FinderConfigBase], Find]:
    modules = [import_module(f"{__name__}.{name}") for name in sorted(m.name for m in iter_modules(__path__))]
    return {module.Config: module.find for module in modules if hasattr(module, "find")}


FINDERS = _discover()

if TYPE_CHECKING:
    FinderConfig = FinderConfigBase
else:
    FinderConfig = Union[tuple(FINDERS)]  # noqa: UP007
"""The union of all finders' configs, discriminated by `kind`."""
