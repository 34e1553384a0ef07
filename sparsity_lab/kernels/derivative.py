"""Kernels are differentiable once: a graph of their gradients would lack what the compiled code did."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch

R = TypeVar("R")


def refuse_graph() -> None:
    """Called in a backward pass, raise if that is to be differentiated itself (`create_graph=True`).

    Raises:
        RuntimeError: it is.
    """
    if torch.is_grad_enabled():
        raise RuntimeError("a kernel has no second derivative; compute with plain operations: kernels off")


def differentiable_once(backward: Callable[..., R]) -> Callable[..., R]:
    """Make the `backward` of a Function refuse a graph of its own.

    PyTorch's `once_differentiable` lets one pass where the incoming gradient is a constant, as that of a sum.
    """

    @wraps(backward)
    def checked(ctx: Any, *grads: Any) -> R:
        refuse_graph()
        return backward(ctx, *grads)

    return checked
