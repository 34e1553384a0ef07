"""Refuse second derivatives: autograd cannot see inside the compiled backward pass of a kernel."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch

R = TypeVar("R")


def refuse_graph() -> None:
    """Raise if the current backward pass is to be differentiated itself (`create_graph=True`).

    Raises:
        RuntimeError: a second derivative was requested.
    """
    if torch.is_grad_enabled():
        raise RuntimeError("a kernel has no second derivative; compute with plain operations: kernels off")


def differentiable_once(backward: Callable[..., R]) -> Callable[..., R]:
    """Make the `backward` of a Function refuse to be differentiated.

    PyTorch's `once_differentiable` does not refuse when the incoming gradient is constant, as after a sum.
    """

    @wraps(backward)
    def checked(ctx: Any, *grads: Any) -> R:
        refuse_graph()
        return backward(ctx, *grads)

    return checked
