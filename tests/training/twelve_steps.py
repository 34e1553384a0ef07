"""A training of twelve steps, which the tests of this room change as they need; the models are micro's."""

from micro import SMALL

from sparsity_lab.training.config import SparsityConfig, TrainerConfig

STEPS = 12
CONFIG = TrainerConfig(
    tokens=STEPS * 8 * SMALL.n_ctx,
    batch_size=8,
    learning_rate=0.05,
    precision="float32",
    validation_windows=16,
    validations=2,
    checkpoint_every=5,
    log_every=1,
)
SPARSE = SparsityConfig(kind="sparse", kept_fraction=0.2, at_least=3)
