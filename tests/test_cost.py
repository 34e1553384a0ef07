"""The cost that is computed is the cost that is measured, on models small enough to run."""

from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch.utils.flop_counter import FlopCounterMode

from sparsity_lab.config import RunConfig, from_hydra
from sparsity_lab.cost import activation_bytes, cost, count, flops_per_token, main
from sparsity_lab.model.transformer import ModelConfig, Transformer
from sparsity_lab.sweep.sweeper import folder_of
from sparsity_lab.training.objective import cross_entropy

VOCABULARY = 96
BASE: dict[str, Any] = {"n_layer": 3, "d_model": 64, "n_ctx": 32, "d_head": 16, "activation_fraction": 0.25}
SHAPES: list[dict[str, Any]] = [
    {},
    {"attention_sink": False, "bigram": "none", "activation_fraction": 1.0},
    {"n_head": 3, "d_mlp": 40, "bigram": "learned"},
    {"positions": "learned"},
    {"positions": "concatenated", "d_pos": 8},
]


def config_of(*overrides: str) -> RunConfig:
    with initialize_config_dir(str(folder_of("conf")), version_base="1.3"):
        return from_hydra(compose("config", list(overrides)))


@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_the_number_of_weights_is_exact(changes: dict[str, Any]) -> None:
    shape = ModelConfig(**BASE | changes)
    model = Transformer(shape, VOCABULARY)
    _, sparse, others = count(shape, VOCABULARY)
    assert sparse == sum(weight.numel() for weight, _ in model.sparse_weights().values())
    assert sparse + others == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_flops_are_those_that_torch_counts(changes: dict[str, Any]) -> None:
    shape = ModelConfig(**BASE | changes)
    model, rows = Transformer(shape, VOCABULARY), 2
    tokens = torch.zeros(rows, shape.n_ctx, dtype=torch.long)
    counters = [FlopCounterMode(display=False) for _ in range(2)]
    with counters[0]:
        loss = cross_entropy(model(tokens), tokens)
    with counters[1]:
        loss.backward()
    # torch knows no formula for the CPU's fused attention: seven products a layer, counted by hand here
    product = 2 * rows * shape.heads * shape.n_ctx**2 * shape.d_head * shape.n_layer
    fused = [2 * product, 5 * product]
    for counter, expected, by_hand in zip(counters, flops_per_token(shape, VOCABULARY), fused, strict=True):
        names = {str(name) for name in counter.get_flop_counts()["Global"]}
        assert not any("attention" in name for name in names)
        assert counter.get_total_flops() + by_hand == expected * tokens.numel()


@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_activations_are_what_autograd_keeps(changes: dict[str, Any]) -> None:
    shape = ModelConfig(**BASE | changes)
    model = Transformer(shape, VOCABULARY)
    tokens, kept = torch.zeros(8, shape.n_ctx, dtype=torch.long), dict[int, tuple[torch.Tensor, int]]()
    own = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}

    def pack(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = x, storage.nbytes()  # and held, so that its address stays its own
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        loss = cross_entropy(model(tokens), tokens)
    measured = sum(size for _, size in kept.values()) / tokens.numel()
    assert loss.requires_grad
    assert activation_bytes(shape, VOCABULARY) == pytest.approx(measured, rel=0.03)


def test_a_runs_cost_is_its_configs() -> None:
    one = cost(config_of("trainer.tokens=200000"))
    shared = cost(config_of("trainer.tokens=200000", "trainer.devices=2"))
    assert one.tokens == one.steps * 16 * 128 <= 200_000
    assert one.train_flops == shared.train_flops
    assert one.memory["Adam's two moments"] == 8 * one.weights == shared.memory["Adam's two moments"]
    assert one.memory["activations"] == 2 * shared.memory["activations"]
    assert one.gpu_hours(1.0, 1.0) == pytest.approx(one.train_flops / 3.6e15)


def test_the_papers_scale() -> None:
    paper = cost(config_of("experiment=paper"))
    assert paper.weights == pytest.approx(411.2e6, rel=1e-3)
    assert cost(config_of("experiment=paper", "model.d_model=4400")).weights == pytest.approx(1.9e9, rel=0.02)
    assert paper.tokens == pytest.approx(35e9, rel=1e-4)
    assert paper.train_flops == pytest.approx(6 * 403e6 * 35e9, rel=0.1)  # the rule of six FLOPs a weight


def test_the_program_tells_and_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment=paper"]) == 0
    told = capsys.readouterr().out
    assert "411,2" in told
    assert "GPU-hours" in told
    assert main(["tokenizer=tiktoken"]) == 1
    refused = capsys.readouterr()
    expected = "error: tokenizer: tiktoken: its vocab_size must be known; allowed: bpe\n"
    assert (refused.out, refused.err) == ("", expected)
