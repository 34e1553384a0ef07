"""Kernels for the processor, compiled by numba."""

from sparsity_lab.kernels.compiled import ensure_cache


def _beside() -> None:
    """Stand for the kernels of this folder."""


ensure_cache(_beside)
