"""Stage `validations`: a finished model's loss on held-out text, and the counts of its weights.

It is a stage of its own, so that a change of `trainer.final_windows` measures the model anew and does not
train it again.
"""

import logging
from pathlib import Path

from sparsity_lab.config import RunConfig
from sparsity_lab.core import metrics
from sparsity_lab.core.files import write_json
from sparsity_lab.core.stage import Stage, content_hash_of, run_stage
from sparsity_lab.core.waiting import told
from sparsity_lab.data.validation_text import validation_text
from sparsity_lab.importers.imported import ImportedConfig
from sparsity_lab.model.checkpoints import count_weights, load_model
from sparsity_lab.model.dispatch import kernels_are_on
from sparsity_lab.stages.context import model_hash
from sparsity_lab.training.fit import device_type, precision
from sparsity_lab.training.validation import validate_model

log = logging.getLogger(__name__)

VALIDATION = "validation.json"
VALIDATION_VERSION = 1  # raise when the same model would be measured otherwise
LARGE_ERROR = 0.01  # nats: differences between models of a sweep are a few times as large


def validation(config: RunConfig, tokens: Path, model: Path, root: Path) -> Path:
    """The folder with the validation metrics of the model in `model`, on `trainer.final_windows` windows."""
    trainer, n_ctx = config.trainer, config.model.n_ctx
    # a model from elsewhere is measured as it is, in float32
    numbers = "32-true" if isinstance(config.model, ImportedConfig) else precision(trainer.precision)

    def make(folder: Path) -> None:
        text = validation_text(tokens, n_ctx, trainer.final_windows)
        measured_model, count = load_model(model), len(text.windows_wc)
        with told(f"{config.name}: loss on {count} validation windows"):
            measured = validate_model(
                measured_model, text, trainer.batch_size, numbers, device_type(trainer.accelerator)
            )
        if measured[metrics.VALIDATION_ERROR.name] > LARGE_ERROR:
            log.warning(
                "validation loss: its standard error, %.3f nats, is above %g: in the next run, raise "
                "trainer.final_windows or add text",
                measured[metrics.VALIDATION_ERROR.name], LARGE_ERROR,
            )  # fmt: skip
        weights, nonzeros = count_weights(measured_model)
        counts = {
            metrics.VALIDATION_WINDOWS.name: float(count),
            metrics.WEIGHTS.name: weights,
            metrics.MODEL_NONZEROS.name: nonzeros,
        }
        write_json(folder / VALIDATION, measured | counts)

    inputs = {
        "model": model_hash(model),
        "tokens": content_hash_of(tokens),
        "n_ctx": n_ctx,
        "final_windows": trainer.final_windows,
        "batch_size": trainer.batch_size,  # products of other shapes round otherwise
        "precision": numbers,
        "kernels": kernels_are_on(),
    }
    return run_stage(Stage("validations", config.name, VALIDATION_VERSION, inputs, make), root).path
