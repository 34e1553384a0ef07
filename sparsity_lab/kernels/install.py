"""Switch kernels on or off, by the run's config and the environment."""

import os
from importlib.util import find_spec
from typing import Literal

import torch

from sparsity_lab.core.errors import UserError
from sparsity_lab.model.dispatch import switch_kernels

Switch = Literal["on", "off"]
VARIABLE = "SPARSITY_LAB_KERNELS"


def use_kernels(wanted: Switch = "on") -> None:
    """Use the kernels that this machine can run from now on, or none.

    They are off if either `wanted` or the environment variable SPARSITY_LAB_KERNELS says so.

    Raises:
        UserError: the variable is neither `on` nor `off`.
    """
    allowed = os.environ.get(VARIABLE, "on")
    if allowed not in ("on", "off"):
        raise UserError(f"{VARIABLE}: {allowed!r}: allowed: on, off")
    on = wanted == allowed == "on"
    if on:
        _register_all()
    switch_kernels(on)


def _register_all() -> None:
    """Import the kernels, which register themselves. Imports are local because numba loads slowly."""
    import sparsity_lab.kernels.cpu.attention
    import sparsity_lab.kernels.cpu.gates
    import sparsity_lab.kernels.cpu.listed_linear
    import sparsity_lab.kernels.cpu.listed_projection
    import sparsity_lab.kernels.cpu.projection
    import sparsity_lab.kernels.cpu.rms_norm
    import sparsity_lab.kernels.cpu.sparse_linear
    import sparsity_lab.kernels.cpu.top_k
    import sparsity_lab.kernels.cross_entropy

    if torch.cuda.is_available() and find_spec("triton") is not None:
        import sparsity_lab.kernels.gpu.top_k  # noqa: F401
