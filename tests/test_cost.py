"""The cost that is computed is the cost that is measured, on models small enough to run."""

from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from sparsity_lab.config import RunConfig, from_hydra
from sparsity_lab.core.errors import UserError
from sparsity_lab.cost import activation_bytes, cost, duration, main, measure
from sparsity_lab.model.sites import Site
from sparsity_lab.model.transformer import ModelConfig, Transformer
from sparsity_lab.stages import sweep_cost
from sparsity_lab.sweep.sweeper import folder_of, register_sweeper, register_sweeps
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
    register_sweeps()
    register_sweeper()
    with initialize_config_dir(str(folder_of("conf")), version_base="1.3"):
        return from_hydra(compose("config", list(overrides)))


def matrices_by_hand(model: ModelConfig) -> int:
    d, read, channels = model.d_model, model.d_read, model.width(Site.ATTN_Q)
    neurons = model.width(Site.MLP_NEURON)
    return (
        model.n_layer * (3 * read * channels + channels * d + read * neurons + neurons * d) + d * VOCABULARY
    )


@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_the_number_of_weights_is_exact(changes: dict[str, Any]) -> None:
    model = ModelConfig(**BASE | changes)
    channels, neurons = model.width(Site.ATTN_Q), model.width(Site.MLP_NEURON)
    biases = model.n_layer * (3 * channels + model.d_model + neurons + model.d_model) + VOCABULARY
    position_width = {"none": 0, "learned": model.d_model, "concatenated": model.d_pos or 0}[model.positions]
    embeddings = VOCABULARY * model.d_model + model.n_ctx * position_width
    norms = model.n_layer * 2 * model.d_read + model.d_model
    sinks = model.n_layer * model.heads if model.attention_sink else 0
    bigram = VOCABULARY**2 if model.bigram == "learned" else 0
    weights, sparse, _, _ = measure(model, VOCABULARY)
    assert sparse == matrices_by_hand(model) + biases + embeddings
    assert weights == sparse + norms + sinks + bigram


@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_flops_are_those_of_the_products(changes: dict[str, Any]) -> None:
    """Two products of attention forward; five backward, where the scores are computed again."""
    model = ModelConfig(**BASE | changes)
    linear = 2 * matrices_by_hand(model)
    product = 2 * model.n_layer * model.n_ctx * model.width(Site.ATTN_Q)
    assert measure(model, VOCABULARY)[2:] == (linear + 2 * product, 2 * linear + 5 * product)


def test_a_model_that_no_machine_holds_is_one_line() -> None:
    with pytest.raises(UserError, match="too large for any machine"):
        measure(ModelConfig(**BASE | {"d_model": 2**40}), VOCABULARY)


@pytest.mark.parametrize(
    ("hours", "text"),
    [(0.001, "< 2 GPU-minutes"), (0.5, "30 GPU-minutes"), (2.34, "2.3 GPU-hours"), (812.4, "812 GPU-hours")],
)
def test_short_trainings_are_told_in_minutes(hours: float, text: str) -> None:
    assert duration(hours) == text


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


SMALL_SWEEP = [
    "+sweep=frontier",
    "model.n_layer=1",
    "model.n_ctx=8",
    "tokenizer.vocab_size=300",
    "trainer.batch_size=2",
    "trainer.tokens=1000000",
    "hydra.sweeper.choice.values=[0.1]",
    'hydra.sweeper.grids=[{seed:"0,1",model:dense,model.d_model:"16",sparsity:none},'
    '{seed:"0",model:sparse,model.d_model:"32",sparsity:"magnitude,amortised",sparsity.nonzeros:"2000"}]',
]


def test_a_sweeps_cost_is_that_of_its_groups_at_the_speeds_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_cost, "prepare_processor", lambda *_: None)  # it is for the whole process
    measured = {"dense d16 l1": 1000.0, "sparse d32 l1 magnitude": 500.0, "sparse d32 l1 amortised": 2000.0}
    asked = []

    def speed_of(config: RunConfig, seconds: float) -> float:
        asked.append(config)
        assert sweep_cost.work_of(config) is not None
        return measured[sweep_cost.work_of(config).group]  # type: ignore[union-attr]

    monkeypatch.setattr(sweep_cost, "speed_of", speed_of)
    assert main(SMALL_SWEEP) == 0
    told = capsys.readouterr()
    assert told.err.splitlines()[0] == "dense d16 l1: 1,000 tokens a core second"
    lines = told.out.splitlines()
    assert [line.split() for line in lines[1:6]] == [
        ["jobs", "dense", "d16", "l1", "2", "1.0", "1,000", "0.28", "0.6"],
        ["jobs", "sparse", "d32", "l1", "magnitude", "1", "1.0", "500", "0.56", "0.6"],
        ["jobs", "sparse", "d32", "l1", "amortised", "1", "1.0", "2,000", "0.14", "0.1"],
        ["trials", "dense", "d16", "l1", "1", "2.0", "1,000", "0.56", "0.6"],
        ["trials", "sparse", "d32", "l1", "magnitude", "1", "2.0", "500", "1.11", "1.1"],
    ]
    assert lines[6] == "training takes 2.9 core hours; circuits are not included"
    assert len(asked) == 3


def test_a_speed_is_measured_for_every_method() -> None:
    for overrides in (["model=dense", "sparsity=none"], ["sparsity=magnitude"], ["sparsity=amortised"]):
        small = ["model.n_layer=1", "model.n_ctx=8", "model.d_model=32", "tokenizer.vocab_size=300"]
        small += ["trainer.batch_size=2", "trainer.tokens=2000", "trainer.precision=float32"]
        if overrides[-1] != "sparsity=none":
            small.append("sparsity.nonzeros=2000")
        assert sweep_cost.speed_of(config_of(*overrides, *small), seconds=0.0) > 0


def test_the_program_tells_and_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment=paper"]) == 0
    told = capsys.readouterr().out
    assert "411,2" in told
    assert "GPU-hours" in told
    assert main(["tokenizer=tiktoken"]) == 1
    refused = capsys.readouterr()
    expected = "error: tokenizer: tiktoken: its vocab_size must be known; allowed: bpe\n"
    assert (refused.out, refused.err) == ("", expected)
    assert main(["model.dmodel=3"]) == 1
    assert capsys.readouterr().err == "error: model.dmodel: unknown key; did you mean model.d_model?\n"
    assert main(["--help"]) == 0
    assert "experiment=paper" in capsys.readouterr().out
