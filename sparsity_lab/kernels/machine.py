"""Adapt a process to this machine's processor and C library."""

import ctypes
import os
import sys

import torch

from sparsity_lab.core.processors import processors
from sparsity_lab.core.threads import limit_threads
from sparsity_lab.kernels.install import Switch, use_kernels


def native_bf16() -> bool:
    """Return whether the device has native bfloat16 products, several times faster than float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    cpu = torch.cpu
    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())


def number_format(precision: str) -> str:
    """Return the number format of a `trainer.precision`: "auto" is bfloat16 if the device has it natively."""
    if precision != "auto":
        return precision
    return "bfloat16" if native_bf16() else "float32"


def prepare_processor(threads: int | None = None, kernels: Switch = "on") -> None:
    """Set up this process for computation. Call it before the first tensor is made.

    `threads` is the number of cores that torch, tokenisation and the generation of text may use. None means
    OMP_NUM_THREADS for torch or, without it, and for the others, each core that this process may use.
    `kernels`: see `use_kernels`. Denormal numbers are flushed to zero: gradients of unused weights and their
    squared moments decay into them, and a processor handles them a hundred times slower.

    Raises:
        UserError: SPARSITY_LAB_KERNELS has a value that is not allowed.
    """
    use_kernels(kernels)
    limit_threads(threads)
    torch.set_flush_denormal(True)
    if threads is None and "OMP_NUM_THREADS" not in os.environ:
        threads = min(torch.get_num_threads(), processors())  # torch knows nothing of a container's quota
    if threads is not None:
        torch.set_num_threads(threads)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Make glibc keep freed blocks instead of returning each to the kernel.

    An activation tensor takes tens of megabytes. Mapping its pages anew each step costs more than computing
    on them (measured: copying 8,192 x 1,024 floats takes 12 ms with fresh pages, 2 ms without). Other C
    libraries are left as they are.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, (1 << 31) - 1)
