"""Which kernel, if any, computes an operation: the only link between the model and `kernels/`.

A kernel registers itself under an operation's name with two functions of the same arguments: `serves` says if
it can take them (device, precision, shapes) and `run` computes what the operation's plain PyTorch would. The
plain operations are in `model/ops.py`, the projection in `training/sparsity/magnitude.py`, the gates'
gradient in `circuits/mask_learning.py`. They do the work where no kernel serves or kernels are switched off.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

Operation = Literal[
    "abs_top_k", "attention", "linear", "frozen_linear", "cross_entropy", "projection", "gate_gradient"
]


class Kernel(NamedTuple):
    """`run` computes an operation for the arguments that `serves` accepts."""

    serves: Callable[..., bool]
    run: Callable[..., Any]


class _Switch:
    on = True


_kernels: dict[Operation, list[Kernel]] = {}


def register(operation: Operation, serves: Callable[..., bool], run: Callable[..., Any]) -> None:
    """Offer a kernel for `operation`; of several that serve, the one registered first is used."""
    _kernels.setdefault(operation, []).append(Kernel(serves, run))


def kernel_for(operation: Operation, *arguments: Any) -> Callable[..., Any] | None:
    """The kernel that serves these arguments of `operation`, or None."""
    if _Switch.on:
        for kernel in _kernels.get(operation, ()):
            if kernel.serves(*arguments):
                return kernel.run
    return None


def kernels_are_on() -> bool:
    """Whether registered kernels are used."""
    return _Switch.on


def switch_kernels(on: bool) -> None:
    """Use registered kernels from now on, or plain PyTorch alone."""
    _Switch.on = on


@contextmanager
def plain_operations() -> Iterator[None]:
    """No kernel is used inside the block; a backward pass follows what its forward pass used."""
    before = _Switch.on
    _Switch.on = False
    try:
        yield
    finally:
        _Switch.on = before
