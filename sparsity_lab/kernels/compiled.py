"""Check whether numba has compiled this package's kernels before. The first time takes half a minute."""

import sys
from pathlib import Path

from numba.core.dispatcher import Dispatcher


def compiled_before() -> bool:
    """Return whether numba's cache holds a compiled version of any kernel imported so far."""
    return any(any(folder.glob("*.nbi")) for folder in _caches())


def _caches() -> set[Path]:
    modules = [module for name, module in list(sys.modules.items()) if name.startswith(__package__)]
    kernels = [v for module in modules for v in vars(module).values() if isinstance(v, Dispatcher)]
    return {Path(kernel.stats.cache_path) for kernel in kernels if kernel.stats.cache_path}
