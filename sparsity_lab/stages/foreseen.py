"""What is known of a sweep's job before it runs: its name, its work, and its record from another machine."""

from sparsity_lab.config import RunConfig, number_of_weights
from sparsity_lab.model.config import ModelConfig
from sparsity_lab.sweep.job_status import Foreseen, Work


def foreseen(config: RunConfig, trains: bool = True) -> Foreseen:
    """Return what is known of the job; with `trains` false, it takes the model of a finished run.

    Torch is imported only if the config names a folder of records.
    """
    record = None
    if config.records is not None:
        from sparsity_lab.stages.recorded import record_of

        record = record_of(config)
    return Foreseen(config.name, work_of(config) if trains else None, record)


def work_of(config: RunConfig) -> Work | None:
    """Return the training that a job has to do; None if nothing is trained or the vocabulary is unknown."""
    vocab_size = getattr(config.tokenizer, "vocab_size", None)
    if not isinstance(config.model, ModelConfig) or vocab_size is None:
        return None
    method = f" {config.sparsity.kind}" if config.sparsity.is_sparse else ""
    shape = f"{config.kind} d{config.model.d_model} l{config.model.n_layer}{method}"
    weights = number_of_weights(config.model, vocab_size)
    return Work(group=shape, tokens=config.trainer.tokens, weights=weights)
