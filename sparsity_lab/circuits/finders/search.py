"""Every way of finding circuits, by the name that the config gives it; each returns the same `Circuit`s."""

from sparsity_lab.circuits.circuit import Circuit
from sparsity_lab.circuits.evaluator import Pruner, PruningConfig, find_circuits
from sparsity_lab.circuits.finders.attribution import attribution_circuits


def search(
    pruner: Pruner, task: str, model_name: str, config: PruningConfig, give_up: float | None = None
) -> list[Circuit]:
    """One circuit for each target that is met, by `config.method`. `give_up` is for learned masks alone."""
    if config.method == "masks":
        return find_circuits(pruner, task, model_name, config, give_up)
    return attribution_circuits(pruner, task, model_name, config, config.method)
