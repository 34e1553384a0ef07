"""Where numba keeps compiled kernels, and whether it has any. Compiling them takes half a minute."""

import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numba
from numba.core.dispatcher import Dispatcher

log = logging.getLogger(__name__)

_temporary: list[tempfile.TemporaryDirectory[str]] = []  # removed when this process ends


def ensure_cache(probe: Callable[[], None]) -> None:
    """Give numba a temporary cache if it can write none: the package is read-only, and so is the user's home.

    `probe` is a function beside the kernels, to be called before the first of them is imported: with
    `cache=True`, numba raises an error there. Worker processes inherit the cache through NUMBA_CACHE_DIR.
    """
    try:
        numba.njit(cache=True)(probe)
    except RuntimeError:
        _temporary.append(tempfile.TemporaryDirectory(prefix="sparsity_lab-kernels-"))
        folder = _temporary[-1].name
        log.info("kernels are compiled anew in each run; to keep them, set NUMBA_CACHE_DIR to a folder")
        os.environ["NUMBA_CACHE_DIR"] = folder
        vars(numba.config)["CACHE_DIR"] = folder  # read when the next kernel is compiled


def compiled_before() -> bool:
    """Return whether numba's cache holds a compiled version of any kernel imported so far."""
    return any(any(folder.glob("*.nbi")) for folder in _caches())


def _caches() -> set[Path]:
    modules = [module for name, module in list(sys.modules.items()) if name.startswith(__package__)]
    kernels = [v for module in modules for v in vars(module).values() if isinstance(v, Dispatcher)]
    return {Path(kernel.stats.cache_path) for kernel in kernels if kernel.stats.cache_path}
