"""Choose the kernel, if any, for an operation. This is the only link between the model and `kernels/`.

A kernel registers two functions of the same arguments under an operation's name. `serves` returns whether it
accepts them (device, precision, shapes). `run` computes the same as the plain PyTorch operation. The plain
operations are in `model/ops.py`, the projection in `training/sparsity/magnitude.py`, the gates' gradient in
`circuits/mask_learning.py`. They run where no kernel serves or kernels are switched off.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

Operation = Literal[
    "abs_top_k",
    "attention",
    "linear",
    "frozen_linear",
    "cross_entropy",
    "projection",
    "listed_projection",
    "embedding",
    "rms_norm",
    "gate_gradient",
]


class Kernel(NamedTuple):
    """A kernel: `run` computes an operation for the arguments that `serves` accepts."""

    serves: Callable[..., bool]
    run: Callable[..., Any]


class _Switch:
    on = True


_kernels: dict[Operation, list[Kernel]] = {}


def register(operation: Operation, serves: Callable[..., bool], run: Callable[..., Any]) -> None:
    """Register a kernel for `operation`. If several serve, the first registered is used."""
    _kernels.setdefault(operation, []).append(Kernel(serves, run))


def kernel_for(operation: Operation, *arguments: Any) -> Callable[..., Any] | None:
    """Return the kernel that serves these arguments of `operation`, or None."""
    if _Switch.on:
        for kernel in _kernels.get(operation, ()):
            if kernel.serves(*arguments):
                return kernel.run
    return None


def kernels_are_on() -> bool:
    """Return whether registered kernels are used."""
    return _Switch.on


def switch_kernels(on: bool) -> None:
    """Switch registered kernels on or off."""
    _Switch.on = on


@contextmanager
def plain_operations() -> Iterator[None]:
    """Use no kernel in forward passes inside the block. A backward pass follows its forward pass."""
    before = _Switch.on
    _Switch.on = False
    try:
        yield
    finally:
        _Switch.on = before
