"""Stage `agreements`: how a model's predictions compare with those of its reference model."""

from pathlib import Path

from sparsity_lab.bridges.report import report_agreement
from sparsity_lab.core import metrics
from sparsity_lab.core.files import write_json
from sparsity_lab.core.stage import Stage, run_stage
from sparsity_lab.model.checkpoints import load_model
from sparsity_lab.stages.context import ModelContext, model_hash
from sparsity_lab.stages.reference import FOLDER

AGREEMENT = "agreement.json"
AGREEMENT_VERSION = 1  # raise when the same two models would be compared otherwise


def agreement(context: ModelContext, reference: Path) -> Path:
    """The folder that holds the reference model's loss and the divergence from it, on validation windows."""

    def make(folder: Path) -> None:
        pair = report_agreement(load_model(reference), context.model, context.windows)
        names = (metrics.REFERENCE_LOSS.name, metrics.REFERENCE_KL.name)
        write_json(folder / AGREEMENT, dict(zip(names, pair, strict=True)))

    inputs = context.inputs | {"dense": model_hash(reference, FOLDER)}
    return run_stage(
        Stage("agreements", context.folder.name, AGREEMENT_VERSION, inputs, make), context.root
    ).path
