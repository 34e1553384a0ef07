"""What all tests share: kernels as a run has them; hypothesis tries the same examples, untimed."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

# torch is not imported above this line: the package decides first how OpenMP's threads wait
from sparsity_lab.kernels.install import use_kernels

settings.register_profile("same", derandomize=True, deadline=None, max_examples=60, database=None)
settings.load_profile("same")
use_kernels()


@pytest.fixture(autouse=True)
def _denormals() -> Iterator[None]:
    """A run in this process flushes denormals to zero; hypothesis's floats need them in later tests."""
    yield
    import torch

    torch.set_flush_denormal(False)
