"""What this machine's processor and C library do well."""

import ctypes
import sys

import torch

from sparsity_lab.kernels.install import Switch, use_kernels


def native_bf16() -> bool:
    """Whether the device computes bfloat16 products itself, several times faster than in float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    cpu = torch.cpu
    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())


def prepare_processor(threads: int | None = None, kernels: Switch = "on") -> None:
    """Settle what every later computation in this process relies on; call it before the first tensor is made.

    `threads`: how many cores torch may use; None leaves one thread a core. `kernels`: see `use_kernels`.
    Denormal numbers count as zero: gradients of unused weights and their squared moments decay into them, and
    a processor handles them a hundred times slower.

    Raises:
        UserError: SPARSITY_LAB_KERNELS has a value that is not allowed.
    """
    use_kernels(kernels)
    torch.set_flush_denormal(True)
    if threads is not None:
        torch.set_num_threads(threads)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Make glibc keep freed blocks instead of returning each to the kernel.

    An activation tensor is tens of megabytes; fetching its pages anew each step costs more than computing on
    them (measured: copying 8,192 x 1,024 floats takes 12 ms with fresh pages, 2 ms without). Without effect
    where there is another C library.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, (1 << 31) - 1)
