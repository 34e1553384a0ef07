"""A model small enough to work by hand, small random ones, and what they are trained and asked on.

The micro model has one layer, two channels, one head of width 1, two neurons and three tokens. Embeddings
have entries ±1, so RMSNorm leaves them as they are; query and key are zero, so attention averages the values
of all positions so far. With m the mean over positions of channel 0:

    after attention  x = (e₀, e₁ + 2m);    after the MLP  x = (x₀ + 3·gelu(read₁), x₁)

Its nonzero weights, so its edges, are five: attn_in 0 → v 0 → attn_out 1, mlp_in 1 → neuron 0 → mlp_out 0,
and mlp_in 0 → neuron 1, which leads nowhere.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsity_lab.circuits.config import PruningConfig
from sparsity_lab.circuits.evaluator import CircuitEvaluator, TaskData
from sparsity_lab.circuits.finders import FinderConfig
from sparsity_lab.circuits.finders.masks import Config as MasksConfig
from sparsity_lab.circuits.nodes import mean_activations
from sparsity_lab.circuits.search import make_evaluator
from sparsity_lab.core.config import validate
from sparsity_lab.core.files import write_json
from sparsity_lab.data.packed import TokensMeta, write_tokens
from sparsity_lab.model.transformer import ModelConfig, Transformer
from sparsity_lab.tasks.batch import TaskBatch

MICRO = ModelConfig(
    n_layer=1, d_model=2, n_ctx=4, d_head=1, n_head=1, d_mlp=2, attention_sink=False, bigram="fixed"
)
MICRO_BIGRAM = [[0.0, 1.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 2.0]]
SMALL = ModelConfig(n_layer=2, d_model=16, n_ctx=12, d_head=4, d_mlp=24, activation_fraction=0.5)
VOCABULARY = 11


@torch.no_grad()
def micro_model() -> Transformer:
    """The model of this file's head."""
    model = Transformer(MICRO, 3, torch.tensor(MICRO_BIGRAM))
    for weight, _ in model.sparse_weights().values():
        weight.zero_()
    model.embedding.weight.copy_(torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]]))
    block: Any = model.blocks[0]
    block.attention.v.weight[0, 0] = 1.0
    block.attention.out.weight[1, 0] = 2.0
    block.mlp.up.weight[0, 1] = 1.0
    block.mlp.up.weight[1, 0] = 5.0
    block.mlp.down.weight[0, 0] = 3.0
    model.unembedding.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    return model.eval().requires_grad_(False)


@torch.no_grad()
def small_model(seed: int = 0, **changes: Any) -> Transformer:
    """Random weights of a size at which everything matters: norms, biases, sinks, bigram table."""
    generator = torch.Generator().manual_seed(seed)
    model = Transformer(SMALL.model_copy(update=changes), VOCABULARY)
    for tensor in model.state_dict().values():
        scale = 1.0 if tensor.dim() == 1 else 2.0 / tensor.shape[-1] ** 0.5
        tensor.copy_(scale * torch.randn(tensor.shape, generator=generator))
    return model.eval().requires_grad_(False)


def random_tokens(rows: int, length: int, seed: int = 0) -> Tensor:
    """Tokens of the small models' vocabulary, int64 (rows, length)."""
    return torch.randint(VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def question(pairs: int, seed: int = 0) -> TaskBatch:
    """A task for small models: the first of four tokens, 1 or 2, says if 3 or 4 next; all end in 5."""
    generator = torch.Generator().manual_seed(seed)
    middle_p2 = torch.randint(6, VOCABULARY, (pairs, 2), generator=generator)
    rows = [torch.cat([torch.full((pairs, 1), t), middle_p2, torch.full((pairs, 1), 5)], 1) for t in (1, 2)]
    return TaskBatch(
        tokens_bt=torch.cat(rows),
        last_b=torch.full((2 * pairs,), 3),
        answers_b2=torch.tensor([[3, 4]]).expand(2 * pairs, 2),
        label_b=torch.tensor([0, 1]).repeat_interleave(pairs),
    )


def quick_pruning(**changes: Any) -> PruningConfig:
    """The project's default demands on a circuit."""
    return validate(PruningConfig, changes)


def quick_masks(**changes: Any) -> MasksConfig:
    """The project's default finder with few steps, as small models need them."""
    return validate(MasksConfig, {"steps": 60} | changes)


def questions() -> TaskData:
    """`question` three times, with other pairs in each split."""
    return TaskData(*(question(48, seed) for seed in (1, 2, 3)))


def evaluator_of(
    model: Transformer,
    pruning: PruningConfig,
    finder: FinderConfig | None = None,
    data: TaskData | None = None,
) -> CircuitEvaluator:
    """The evaluator of a small model on `question`."""
    means_n = mean_activations(model, [random_tokens(20, 8)])
    return make_evaluator(model, means_n, data or questions(), finder or quick_masks(), pruning)


def write_tokens_folder(folder: Path, vocab_size: int = VOCABULARY) -> Path:
    """A folder of random tokens, each depending on the one before it, so that there is something to learn."""
    random, ids = np.random.default_rng(0), [0]
    for noise in random.integers(0, 3, size=4000).tolist():
        ids.append((2 * ids[-1] + noise) % (vocab_size - 1))
    folder.mkdir(parents=True, exist_ok=True)
    meta = TokensMeta(
        vocab_size=vocab_size,
        end_of_text=vocab_size - 1,
        dtype="uint16",
        train=write_tokens(folder / "train.bin", [ids[:3000]], "uint16", vocab_size - 1),
        validation=write_tokens(folder / "validation.bin", [ids[3000:]], "uint16", vocab_size - 1),
    )
    write_json(folder / "meta.json", meta)
    return folder


@torch.no_grad()
def planted_model(seed: int = 0) -> Transformer:
    """A small model that answers `question` by three nodes of layer 0, amid weak noise.

    They are attn_in 0 → v 0 → attn_out 1.
    """
    model = small_model(seed, activation_fraction=1.0, attention_sink=False, bigram="none")
    for weight, _ in model.sparse_weights().values():
        weight.mul_(0.03)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            parameter.fill_(1.0)
    model.embedding.weight.add_(1.0)
    model.embedding.weight[:, 0] = 0.0
    model.embedding.weight[1, 0], model.embedding.weight[2, 0] = 4.0, -4.0
    block: Any = model.blocks[0]
    block.attention.v.weight[0, 0] = 4.0
    block.attention.out.weight[1, 0] = 4.0
    model.unembedding.weight[3, 1], model.unembedding.weight[4, 1] = 0.5, -0.5
    return model


PLANTED = ((0, "attn_in", 0), (0, "attn_v", 0), (0, "attn_out", 1))
