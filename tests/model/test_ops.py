"""Kernels behind one switch: with and without them the model computes the same."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from micro import random_tokens, small_model
from torch import Tensor

from sparsity_lab.core.errors import UserError
from sparsity_lab.kernels.install import VARIABLE, use_kernels
from sparsity_lab.model.dispatch import kernel_for, kernels_are_on, plain_operations
from sparsity_lab.model.ops import FrozenLinear
from sparsity_lab.training.sparsity.magnitude import project

ROOT = Path(__file__).parents[2]
VARIANTS: list[dict[str, Any]] = [
    {},
    {"activation_fraction": 1.0, "attention_sink": False, "bigram": "none"},
    {"bigram": "learned", "positions": "learned", "tied_embeddings": True},
]


def loss_and_gradients(**changes: Any) -> list[Tensor]:
    """One training pass of a sparse model; two targets are left out."""
    model = small_model(**changes).requires_grad_().train()
    for weight, axis in model.sparse_weights().values():
        project(weight.data, 0.1, axis, at_least=1)
    targets_bt = random_tokens(3, 9, seed=1)
    targets_bt[0, 3] = targets_bt[2, 0] = -100
    loss = model.loss(random_tokens(3, 9), targets_bt)
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("changes", VARIANTS)
def test_a_training_pass_is_the_same_without_kernels(changes: dict[str, Any]) -> None:
    by_kernels = loss_and_gradients(**changes)
    with plain_operations():
        plain = loss_and_gradients(**changes)
    assert len(plain) == len(by_kernels)
    for one, other in zip(plain, by_kernels, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(one, other) for one, other in zip(plain, by_kernels, strict=True))


def test_plain_operations_have_second_derivatives() -> None:
    model, tokens_bt = small_model().double(), random_tokens(1, 4)
    weight = model.blocks[0].get_parameter("mlp.down.weight").requires_grad_()
    with plain_operations():
        loss = model.loss(tokens_bt, tokens_bt)
        (slope,) = torch.autograd.grad(loss, weight, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.square().sum(), weight)
    assert curvature.abs().sum() > 0


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(("target", "error"), [(11, IndexError), (-1, IndexError)])
def test_a_target_outside_the_vocabulary_is_told(target: int, error: type[Exception], plain: bool) -> None:
    model, tokens_bt, targets_bt = small_model(), random_tokens(2, 5), random_tokens(2, 5)
    targets_bt[1, 2] = target
    with plain_operations() if plain else torch.no_grad(), pytest.raises(error):
        model.loss(tokens_bt, targets_bt)
    with pytest.raises(ValueError, match="10 tokens, but 8 targets"):
        model.loss(tokens_bt, targets_bt[:, :4])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("changes", [{}, {"bigram": "learned"}, {"norm": "layer", "bigram": "none"}])
def test_a_whole_model_runs_in_half_precision(dtype: torch.dtype, changes: dict[str, Any]) -> None:
    model = small_model(activation_fraction=1.0, **changes).to(dtype)
    exact = copy.deepcopy(model).float()
    tokens_bt, targets_bt = random_tokens(3, 9), random_tokens(3, 9, seed=1)
    torch.testing.assert_close(model(tokens_bt).float(), exact(tokens_bt), rtol=0.1, atol=0.1)
    loss = model.requires_grad_().train().loss(tokens_bt, targets_bt)
    torch.testing.assert_close(loss.float(), exact.loss(tokens_bt, targets_bt), rtol=0.03, atol=0.03)
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(grad is not None and grad.isfinite().all() and grad.dtype == dtype for grad in gradients)


@pytest.mark.parametrize("kept", [0.05, 0.9])
def test_a_frozen_linear_layer_is_a_linear_layer(kept: float) -> None:
    generator = torch.Generator().manual_seed(0)
    weight_oi = torch.randn(30, 20, generator=generator) * (torch.rand(30, 20, generator=generator) < kept)
    bias_o, x_bti = torch.randn(30, generator=generator), torch.randn(2, 5, 20, generator=generator)
    layer = FrozenLinear(weight_oi, bias_o)
    with plain_operations():
        plain = FrozenLinear(weight_oi, bias_o)
    assert (layer.by_kernel is not None) == (kept < 0.2)
    assert plain.by_kernel is None
    torch.testing.assert_close(layer(x_bti), plain(x_bti))


def test_the_block_without_kernels_ends_with_it_whatever_happens() -> None:
    def fail() -> None:
        with plain_operations():
            assert kernel_for("abs_top_k", torch.zeros(2, 4), 1) is None
            raise KeyError

    assert kernel_for("abs_top_k", torch.zeros(2, 4), 1) is not None
    with pytest.raises(KeyError):
        fail()
    assert kernel_for("abs_top_k", torch.zeros(2, 4), 1) is not None


@pytest.mark.parametrize(
    ("wanted", "variable", "on"),
    [
        ("on", None, True),
        ("off", None, False),
        ("on", "on", True),
        ("on", "off", False),
        ("off", "on", False),
    ],
)
def test_kernels_are_on_where_config_and_environment_agree(
    wanted: Any, variable: str | None, on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    try:
        if variable is not None:
            monkeypatch.setenv(VARIABLE, variable)
        use_kernels(wanted)
        assert kernels_are_on() == on
    finally:
        monkeypatch.undo()
        use_kernels()


def test_another_word_in_the_environment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "no")
    with pytest.raises(UserError, match="SPARSITY_LAB_KERNELS: 'no': allowed: on, off"):
        use_kernels()


def test_the_model_needs_no_compiler() -> None:
    """In a process of its own: what is imported once stays."""
    code = (
        "import sys, torch, sparsity_lab.model.taps, sparsity_lab.circuits.compaction\n"
        "from sparsity_lab.model.transformer import ModelConfig, Transformer\n"
        "model = Transformer(ModelConfig(n_layer=1, d_model=16, n_ctx=8, activation_fraction=0.5), 5)\n"
        "model.loss(torch.zeros(1, 3).long(), torch.ones(1, 3).long()).backward()\n"
        "sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
