"""Weight-sparse transformers and their circuits (Gao et al. 2025). Notebooks start here: docs/python.md.

    import sparsity_lab
    lab = sparsity_lab.load("runs/single/RUN")

Importing the package is cheap: torch is imported by the first name that needs it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sparsity_lab.core.processors import wait_briefly

if TYPE_CHECKING:
    from sparsity_lab.circuits.circuit import Circuit, Node, load_circuit, save_circuit
    from sparsity_lab.core.errors import UserError
    from sparsity_lab.lab.lab import Lab, load, runs
    from sparsity_lab.tasks.task import Pair

wait_briefly()  # here, because nothing of the package is imported earlier, torch included

__all__ = ["Circuit", "Lab", "Node", "Pair", "UserError", "load", "load_circuit", "runs", "save_circuit"]

_HOMES = {
    "Circuit": "circuits.circuit",
    "Lab": "lab.lab",
    "Node": "circuits.circuit",
    "Pair": "tasks.task",
    "UserError": "core.errors",
    "load": "lab.lab",
    "load_circuit": "circuits.circuit",
    "runs": "lab.lab",
    "save_circuit": "circuits.circuit",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sparsity_lab' has no attribute {name!r}")
    return getattr(import_module(f"sparsity_lab.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
