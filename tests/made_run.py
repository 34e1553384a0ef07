"""The parts of a finished run that export and score read: a small model, its tokenizer, and one circuit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sparsity_lab.circuits.beside_whole import beside_whole
from sparsity_lab.circuits.circuit import Circuit, load_circuit, save_circuit
from sparsity_lab.circuits.edge_pruning import prune_edges
from sparsity_lab.circuits.evaluator import CircuitEvaluator, TaskData
from sparsity_lab.circuits.nodes import NodeLayout, mean_activations
from sparsity_lab.circuits.search import make_circuit
from sparsity_lab.circuits.standalone import MEANS, references, save_means, save_pairs
from sparsity_lab.core.files import write_json
from sparsity_lab.data.tokenizer import Tokenizer, train_bpe
from sparsity_lab.model.checkpoints import save_model
from sparsity_lab.model.transformer import ModelConfig, Transformer
from sparsity_lab.stages.context import model_hash
from sparsity_lab.tasks.batch import TaskBatch, encode_pairs
from sparsity_lab.tasks.task import Pair, Split, Task

TEXTS = [f"def area_{i}(width, height):\n    return width * {i} + height\n\n\n" for i in range(50)]
SHAPE: dict[str, Any] = {"n_layer": 2, "d_model": 16, "n_ctx": 16, "d_head": 4, "d_mlp": 24}
WORDS = [first + second for first in "cdfgh" for second in ("at", "ow", "in")]
TARGET = 5.0  # nats; the random model's losses are large


def pairs_of(split: str) -> list[Pair]:
    """Fifteen pairs of a question that only the first letter decides; other prompts in each split."""
    return [Pair(f"a {word} {split};", f"b {word} {split};", ("7", "8")) for word in WORDS]


def tokenizer() -> Tokenizer:
    """A byte-pair encoding of 300 tokens."""
    return train_bpe(TEXTS, 300)


def random_model(**changes: Any) -> Transformer:
    """A model of 300 tokens whose every tensor matters."""
    generator = torch.Generator().manual_seed(0)
    model = Transformer(ModelConfig(**(SHAPE | {"activation_fraction": 0.5} | changes)), 300)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            scale = 1.0 if tensor.dim() == 1 else 2.0 / tensor.shape[-1] ** 0.5
            tensor.copy_(scale * torch.randn(tensor.shape, generator=generator))
    return model.eval().requires_grad_(False)


def evaluator_of(model: Transformer, closed: bool = False) -> CircuitEvaluator:
    """The evaluator of `pairs_of`, with means over random tokens."""
    task, own = Task("letter", "", lambda rng: pairs_of("train")[0]), tokenizer()
    data = TaskData(*(encode_pairs(task, pairs_of(split), own) for split in ("train", "select", "test")))
    tokens_bt = torch.randint(300, (20, 8), generator=torch.Generator().manual_seed(1))
    return CircuitEvaluator(model, mean_activations(model, [tokens_bt]), data, "raw", closed=closed)


def write_circuit(
    folder: Path, evaluator: CircuitEvaluator, model_folder: Path, pruned: bool = False, **found: Any
) -> Path:
    """Write the circuit of two thirds of the nodes, with the files beside it; return its path.

    `found`: more of its provenance.
    """
    layout = NodeLayout(evaluator.model.config)
    kept_n = torch.rand(layout.size, generator=torch.Generator().manual_seed(2)) < 0.67
    circuit = make_circuit(evaluator, kept_n, "letter", "m", TARGET, {"method": "random", **found})
    circuit = prune_edges(evaluator, circuit, rounds=1) if pruned else circuit
    folder.mkdir(parents=True)
    if found.get("ablation") != "other_prompt":
        save_means(evaluator.means_n, evaluator.model.config, folder / MEANS)
    splits: tuple[Split, ...] = ("select", "test")
    batches: dict[Split, TaskBatch] = {"select": evaluator.data.select, "test": evaluator.data.test}
    save_pairs({split: pairs_of(split) for split in splits}, batches, folder)
    update = references(folder) | {"model_hash": model_hash(model_folder), "task_hash": "0" * 12}
    save_circuit(circuit.model_copy(update=update), folder / f"circuit-{TARGET:g}.json")
    write_json(folder / "result.json", {})
    return folder / f"circuit-{TARGET:g}.json"


def write_run(
    folder: Path, pruned: bool = False, closed: bool = False, freeze_norm: bool = False, **changes: Any
) -> tuple[Path, Circuit]:
    """Write a run's folder; return the path of its circuit, and the circuit."""
    model = random_model(**changes)
    evaluator, found = evaluator_of(model, closed), {"freeze_norm": True} if freeze_norm else {}
    evaluator = replace(evaluator, model=beside_whole(model, False, freeze_norm))
    save_model(model, folder / "model")
    (folder / "tokens").mkdir()
    tokenizer().save(folder / "tokens" / "tokenizer.json")
    path = write_circuit(folder / "circuits" / "letter", evaluator, folder / "model", pruned, **found)
    return path, load_circuit(path)
