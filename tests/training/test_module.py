"""One step's parts: gradient scaling, the learning rate, and the numbers logged."""

import math
from typing import Any

import pytest
import torch
from micro import SMALL, VOCABULARY, random_tokens
from twelve_steps import DENSE, new_module

from sparsity_lab.model.transformer import Transformer
from sparsity_lab.training.config import TrainerConfig
from sparsity_lab.training.module import LanguageModule, gradient_rms
from sparsity_lab.training.objective import cross_entropy
from sparsity_lab.training.sparsity.magnitude import Config as Magnitude
from sparsity_lab.training.validation import kurtosis

CONFIG = TrainerConfig(tokens=1000, batch_size=2, learning_rate=0.1, log_every=1)


def parameters(*gradients: list[float] | None) -> list[torch.nn.Parameter]:
    found = []
    for gradient in gradients:
        parameter = torch.nn.Parameter(torch.zeros(len(gradient or [0])))
        parameter.grad = None if gradient is None else torch.tensor(gradient)
        found.append(parameter)
    return found


def test_gradient_rms_by_hand() -> None:
    assert gradient_rms(parameters([3.0, 0.0], None, [0.0, 4.0])).item() == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("gradient", "size", "expected"),
    [("normalise", 7.0, 1), ("normalise", 1e-3, 1), ("clip", 7.0, 1), ("clip", 1e-3, 1e-3)],
)
def test_gradients_are_normalised_or_clipped_by_their_root_mean_square(
    gradient: Any, size: float, expected: float
) -> None:
    module = new_module(DENSE, CONFIG.model_copy(update={"gradient": gradient}))
    cross_entropy(module.model(random_tokens(2, 5)), random_tokens(2, 5, seed=1)).backward()
    before = [p.grad for p in module.model.parameters() if p.grad is not None]
    rms = gradient_rms(list(module.model.parameters()))
    for grad in before:
        grad.mul_(size / rms)
    direction = [grad / size for grad in before]
    module.configure_gradient_clipping(torch.optim.SGD(module.parameters(), lr=0.5))
    assert gradient_rms(list(module.model.parameters())).item() == pytest.approx(expected, rel=1e-5)
    measured = module.measured()
    assert measured["train/gradient_rms"] == pytest.approx(size, rel=1e-5)
    assert measured["train/learning_rate"] == 0.5
    for grad, unit in zip(before, direction, strict=True):
        torch.testing.assert_close(grad, unit * expected)


def test_cross_entropy_of_uniform_logits() -> None:
    loss = cross_entropy(torch.zeros(2, 3, 8, dtype=torch.bfloat16), torch.zeros(2, 3, dtype=torch.long))
    assert loss.item() == pytest.approx(math.log(8))
    assert loss.dtype == torch.float32


def test_kurtosis_by_hand_and_of_a_gaussian() -> None:
    assert kurtosis(torch.tensor([[[1.0, -1.0, 1.0, -1.0], [0.0, 0.0, 0.0, 4.0]]])).tolist() == [
        [1.0, pytest.approx(7 / 3)]
    ]
    normal = torch.randn(1, 1, 200_000, generator=torch.Generator().manual_seed(0))
    assert kurtosis(normal).item() == pytest.approx(3, abs=0.05)


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_kurtosis_does_not_depend_on_the_scale(scale: float) -> None:
    x_btd = torch.tensor([[[1.0, -1.0, 1.0, -1.0], [0.0, 0.0, 0.0, 4.0]]])
    assert kurtosis(scale * x_btd).tolist() == [pytest.approx([1.0, 7 / 3])]


@pytest.mark.parametrize("value", [0.0, 0.1, 3e4])
def test_a_stream_whose_channels_are_equal_has_a_finite_kurtosis(value: float) -> None:
    """Such a stream is that of a model of very few weights; NaN would discard its whole training."""
    assert 1 <= kurtosis(torch.full((1, 2, 48), value)).max().item() < 48
    assert kurtosis(torch.zeros(1, 1, 48)).item() == 1


def factors(module: LanguageModule) -> list[float]:
    """The learning rate's factor at each step."""
    configured = module.configure_optimizers()
    schedule = configured["lr_scheduler"]["scheduler"]
    assert configured["lr_scheduler"]["interval"] == "step"
    return [schedule.lr_lambdas[0](step) for step in range(module.n_steps)]


def test_the_learning_rate_is_never_zero_and_follows_the_kept_fraction() -> None:
    dense = factors(new_module(DENSE, CONFIG, n_steps=100))
    sparse_module = new_module(Magnitude(kept_fraction=0.04), CONFIG, n_steps=100)
    sparse = factors(sparse_module)
    assert min(dense) > 0
    assert dense.index(max(dense)) == 0  # progress 1 / 101 is the end of the warm-up of 1 %
    assert sparse[0] == pytest.approx(dense[0])
    for step, (one, other) in enumerate(zip(sparse, dense, strict=True)):
        assert one == pytest.approx(other / sparse_module.sparsifier.kept_fraction(step) ** 0.5)
    assert sparse[-1] == pytest.approx(5 * dense[-1])


def test_steps() -> None:
    assert TrainerConfig(tokens=10_000, batch_size=10, learning_rate=1.0).steps(32) == 31
    assert TrainerConfig(tokens=1, batch_size=10, learning_rate=1.0).steps(32) == 1


def test_dead_neurons_are_those_silent_on_the_whole_batch() -> None:
    torch.manual_seed(0)
    model: Any = Transformer(SMALL.model_copy(update={"activation_fraction": 1.0}), VOCABULARY)
    with torch.no_grad():
        for layer, dead in ((0, 3), (1, 2)):
            model.blocks[layer].mlp.up.weight[:dead] = 0
            model.blocks[layer].mlp.up.bias[:dead] = 0
    module = new_module(DENSE, CONFIG, model=model)
    loss = module.training_step(random_tokens(3, 9), 0)
    assert module.measured()["train/dead_neurons"] == 5
    assert module.measured()["train/loss"] == loss.item()
