"""Stage `agreements`: how a model's predictions compare with those of its reference model."""

from pathlib import Path

from sparsity_lab.bridges.report import report_agreement
from sparsity_lab.core import metrics
from sparsity_lab.core.files import write_json
from sparsity_lab.core.stage import Stage, run_stage
from sparsity_lab.model.checkpoints import load_model
from sparsity_lab.stages.context import ModelContext, model_hash, validation_windows
from sparsity_lab.stages.reference import FOLDER

AGREEMENT = "agreement.json"
AGREEMENT_VERSION = 2  # raise when the same two models would be compared otherwise


def agreement(context: ModelContext, reference: Path, n_windows: int) -> Path:
    """The folder with the reference model's loss and the divergence from it, on `n_windows` windows."""

    def make(folder: Path) -> None:
        windows = validation_windows(context.tokens, context.n_ctx, n_windows, context.batch_size)
        pair = report_agreement(load_model(reference), context.model, windows)
        names = (metrics.REFERENCE_LOSS.name, metrics.REFERENCE_KL.name)
        write_json(folder / AGREEMENT, dict(zip(names, pair, strict=True)))

    inputs = context.inputs | {"dense": model_hash(reference, FOLDER), "windows": n_windows}
    return run_stage(
        Stage("agreements", context.folder.name, AGREEMENT_VERSION, inputs, make), context.root
    ).path
