"""What all tests share: kernels as a run has them; hypothesis tries the same examples, untimed."""

from hypothesis import settings

from sparsity_lab.kernels.install import use_kernels

settings.register_profile("same", derandomize=True, deadline=None, max_examples=60, database=None)
settings.load_profile("same")
use_kernels()
