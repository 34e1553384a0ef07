"""Benchmarks of training and of circuits; not part of the wheel."""

import sparsity_lab  # noqa: F401  sets how OpenMP waits, before torch is imported
