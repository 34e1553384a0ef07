"""The name, unit and better direction of every metric. Imports nothing from this package."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One measured quantity. `name` is used in records, CSV files and W&B; `what` describes it."""

    name: str
    unit: str
    better: Literal["lower", "higher", "neither"]
    what: str


STEP = Metric("step", "optimizer steps", "neither", "optimizer steps done")
TOKENS = Metric("tokens", "tokens", "neither", "training tokens seen")

TRAIN_LOSS = Metric("train/loss", "nats/token", "lower", "cross-entropy on the training batch")
LEARNING_RATE = Metric("train/learning_rate", "1", "neither", "learning rate of the step")
KEPT_FRACTION = Metric("train/kept_fraction", "fraction", "neither", "scheduled share of nonzero weights")
NONZEROS = Metric(
    "train/nonzeros", "weights", "neither", "measured nonzero weights, without the bigram table"
)
DEAD_NEURONS = Metric("train/dead_neurons", "neurons", "lower", "MLP neurons silent on the whole batch")
GRADIENT_RMS = Metric(
    "train/gradient_rms", "1", "neither", "root mean square of the gradient before clipping"
)
THROUGHPUT = Metric("train/tokens_per_second", "tokens/s", "higher", "training throughput")

NMSE_ENCODE = Metric(
    "bridge/nmse_encode", "1", "lower", "NMSE of encoded dense residual streams, sum over boundaries"
)
NMSE_DECODE = Metric(
    "bridge/nmse_decode", "1", "lower", "NMSE of decoded sparse residual streams, sum over boundaries"
)
KL_INTO_SPARSE = Metric(
    "bridge/kl_into_sparse", "nats/token", "lower", "KL of dense-to-sparse passes, sum over boundaries"
)
KL_INTO_DENSE = Metric(
    "bridge/kl_into_dense", "nats/token", "lower", "KL of sparse-to-dense passes, sum over boundaries"
)

VALIDATION_LOSS = Metric(
    "validation/loss", "nats/token", "lower", "cross-entropy on the fixed validation windows"
)
VALIDATION_ERROR = Metric("validation/standard_error", "nats/token", "lower", "standard error of that loss")
VALIDATION_WINDOWS = Metric("validation/windows", "windows", "higher", "windows that loss was measured on")
GRAMMAR, REAL = "grammar", "real"  # components of a corpus
COMPONENTS = (GRAMMAR, REAL)
COMPONENT_LOSS = {
    name: Metric(f"validation/loss_{name}", "nats/token", "lower", f"cross-entropy on its {name} text")
    for name in COMPONENTS
}
COMPONENT_ERROR = {
    name: Metric(f"validation/standard_error_{name}", "nats/token", "lower", "standard error of that loss")
    for name in COMPONENTS
}
EPOCHS = Metric("train/epochs", "1", "neither", "training tokens per token of the corpus")
NGRAMS = (1, 2, 3, 4)
NGRAM_LOSS = {
    (n, name): Metric(
        f"baseline/{n}gram" + (f"_{name}" if name else ""),
        "nats/token",
        "lower",
        f"the validation loss of a {n}-gram model of as many training tokens"
        + (f", {name} text" * bool(name)),
    )
    for n in NGRAMS
    for name in ("", *COMPONENTS)
}
NGRAM_TOKENS = Metric("baseline/tokens", "tokens", "neither", "training tokens of the n-gram models")
KURTOSIS = Metric(
    "validation/kurtosis", "1", "neither", "mean kurtosis of the final residual stream (Fig. 10)"
)

WEIGHTS = Metric(
    "model/weights", "weights", "neither", "weights that can be zeroed: matrices, biases, embeddings"
)
MODEL_NONZEROS = Metric("model/nonzeros", "weights", "neither", "nonzero ones of them after training")

REFERENCE_LOSS = Metric("reference/loss", "nats/token", "lower", "validation loss of the reference model")
REFERENCE_KL = Metric("reference/kl", "nats/token", "lower", "KL(reference model, this model), held-out text")
HYBRID_EXCESS = Metric(
    "bridge/hybrid_excess", "nats/token", "lower", "mean over hybrid passes of loss minus the dense model's"
)
WORST_HYBRID_EXCESS = Metric(
    "bridge/worst_hybrid_excess", "nats/token", "lower", "largest loss of a hybrid pass minus the dense one's"
)
MIXED_EXCESS = Metric(
    "bridge/mixed_excess", "nats/token", "lower", "mean over mixed paths of loss minus the dense model's"
)

TASKS_ASKED = Metric(
    "circuits/tasks_asked", "tasks", "neither", "tasks whose datapoints the tokenizer allows"
)
TASKS_LEARNED = Metric(
    "circuits/tasks_learned", "tasks", "higher", "tasks with unpruned loss at or below the target"
)
TASKS_SOLVED = Metric(
    "circuits/tasks_with_circuit", "tasks", "higher", "learned tasks with a circuit at the target"
)
GEOMEAN_EDGES = Metric("circuits/geomean_edges", "edges", "lower", "geometric mean of edges over those tasks")
GEOMEAN_NODES = Metric("circuits/geomean_nodes", "nodes", "lower", "geometric mean of nodes over those tasks")
GEOMEAN_PRUNED_EDGES = Metric(
    "circuits/geomean_pruned_edges", "edges", "lower", "geometric mean of edges left after edge pruning"
)
TEST_LOSS = Metric(
    "circuits/test_loss", "nats", "lower", "mean over them of the circuit's selection loss on the test pairs"
)

TRAINING = (
    STEP,
    TOKENS,
    TRAIN_LOSS,
    LEARNING_RATE,
    KEPT_FRACTION,
    NONZEROS,
    DEAD_NEURONS,
    GRADIENT_RMS,
    THROUGHPUT,
)
BRIDGING = (NMSE_ENCODE, NMSE_DECODE, KL_INTO_SPARSE, KL_INTO_DENSE)
VALIDATION = (
    VALIDATION_LOSS,
    KURTOSIS,
    VALIDATION_ERROR,
    *COMPONENT_LOSS.values(),
    *COMPONENT_ERROR.values(),
)
SUMMARY = (
    *VALIDATION,
    VALIDATION_WINDOWS,
    EPOCHS,
    *NGRAM_LOSS.values(),
    NGRAM_TOKENS,
    WEIGHTS,
    MODEL_NONZEROS,
    REFERENCE_LOSS,
    REFERENCE_KL,
    *BRIDGING,
    HYBRID_EXCESS,
    WORST_HYBRID_EXCESS,
    MIXED_EXCESS,
    TASKS_ASKED,
    TASKS_LEARNED,
    TASKS_SOLVED,
    GEOMEAN_EDGES,
    GEOMEAN_NODES,
    GEOMEAN_PRUNED_EDGES,
    TEST_LOSS,
)
ALL = tuple(dict.fromkeys(TRAINING + VALIDATION + SUMMARY))
