"""Sparsity methods: every module here that defines `make` is one. Its `Config` is part of the run's config.

To add a method, add `conf/sparsity/name.yaml` and a module with
1. `Config`, a subclass of `SparsifierConfig` with `kind: Literal["name"] = "name"`;
2. `make(config, model, n_steps, seed)`, which returns a `Sparsifier`.
No module here imports torch at the top level, since configs are read without it.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Union, get_args

from pydantic import Field

from sparsity_lab.training.sparsity.sparsifier import Sparsifier, SparsifierConfig

if TYPE_CHECKING:
    from sparsity_lab.model.transformer import Transformer


def _discover() -> dict[str, ModuleType]:
    names = sorted(module.name for module in iter_modules(__path__))
    modules = [import_module(f"{__name__}.{name}") for name in names]
    methods = [module for module in modules if hasattr(module, "make")]
    return {get_args(module.Config.model_fields["kind"].annotation)[0]: module for module in methods}


METHODS = _discover()
if TYPE_CHECKING:
    SparsityConfig = SparsifierConfig
else:
    SparsityConfig = Annotated[
        Union[tuple(module.Config for module in METHODS.values())],  # noqa: UP007
        Field(discriminator="kind"),
    ]


def make_sparsifier(config: SparsifierConfig, model: Transformer, n_steps: int, seed: int) -> Sparsifier:
    """Build the sparsifier that `config` describes, for a training of `n_steps` optimizer steps.

    Raises:
        UserError: the method does not fit the model.
    """
    made: Sparsifier = METHODS[config.kind].make(config, model, n_steps, seed)
    return made
