"""One step's parts: gradient scaling, the numbers logged, and the configs that say what is allowed."""

import math
from typing import Any

import pytest
import torch
from micro import SMALL, VOCABULARY, random_tokens

from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.training.module import (
    DenseModule,
    SparseModule,
    SparsityConfig,
    TrainerConfig,
    cross_entropy,
    gradient_rms,
    kurtosis,
)

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
    torch.manual_seed(0)
    module = DenseModule(Transformer(SMALL, VOCABULARY), CONFIG.model_copy(update={"gradient": gradient}), 10)
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


def factors(module: DenseModule) -> list[float]:
    """The learning rate's factor at each step."""
    configured = module.configure_optimizers()
    schedule = configured["lr_scheduler"]["scheduler"]
    assert configured["lr_scheduler"]["interval"] == "step"
    return [schedule.lr_lambdas[0](step) for step in range(module.n_steps)]


def test_the_learning_rate_is_never_zero_and_follows_the_kept_fraction() -> None:
    model = Transformer(SMALL, VOCABULARY)
    dense = factors(DenseModule(model, CONFIG, 100))
    sparse_module = SparseModule(model, CONFIG, 100, SparsityConfig(kind="sparse", kept_fraction=0.04))
    sparse = factors(sparse_module)
    assert min(dense) > 0
    assert dense.index(max(dense)) == 0  # progress 1 / 101 is the end of the warm-up of 1 %
    assert sparse[0] == pytest.approx(dense[0])
    for step, (one, other) in enumerate(zip(sparse, dense, strict=True)):
        assert one == pytest.approx(other / sparse_module.kept_fraction(step) ** 0.5)
    assert sparse[-1] == pytest.approx(5 * dense[-1])


def test_the_kept_fraction_reaches_the_target() -> None:
    model = Transformer(SMALL, VOCABULARY)
    total = sum(weight.numel() for weight, _ in model.sparse_weights().values())
    by_share = SparseModule(
        model, CONFIG, 100, SparsityConfig(kind="sparse", kept_fraction=0.1, anneal_until=0.8)
    )
    by_count = SparseModule(
        model, CONFIG, 100, SparsityConfig(kind="sparse", nonzeros=total // 10, anneal_until=0.8)
    )
    assert [by_share.kept_fraction(step) for step in (0, 40, 80, 100)] == pytest.approx([1, 0.55, 0.1, 0.1])
    assert by_count.kept_fraction(100) == pytest.approx(0.1, rel=1e-2)
    assert DenseModule(model, CONFIG, 100).kept_fraction(100) == 1


def test_more_nonzeros_than_weights_are_told() -> None:
    with pytest.raises(UserError, match=r"sparsity.nonzeros: 1000000: this model has \d+ weights"):
        SparseModule(
            Transformer(SMALL, VOCABULARY), CONFIG, 9, SparsityConfig(kind="sparse", nonzeros=1_000_000)
        )


def test_steps() -> None:
    assert TrainerConfig(tokens=10_000, batch_size=10, learning_rate=1.0).steps(32) == 31
    assert TrainerConfig(tokens=1, batch_size=10, learning_rate=1.0).steps(32) == 1


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"kind": "dense", "nonzeros": 5}, "kind dense takes neither kept_fraction nor nonzeros"),
        ({"kind": "sparse"}, "kind sparse takes either kept_fraction or nonzeros"),
        (
            {"kind": "sparse", "nonzeros": 5, "kept_fraction": 0.5},
            "kind sparse takes either kept_fraction or nonzeros",
        ),
        ({"kind": "sparse", "kept_fraction": 0.0}, "kept_fraction 0.0 must be above 0 and at most 1"),
        ({"kind": "sparse", "kept_fraction": 1.1}, "kept_fraction 1.1 must be above 0 and at most 1"),
        ({"kind": "sparse", "nonzeros": 5, "anneal_until": 2.0}, "anneal_until 2.0 must lie between 0 and 1"),
        ({"kind": "sparse", "nonzeros": 0}, "sparsity.nonzeros: 0: input should be greater than 0"),
        ({"kind": "spars", "nonzeros": 5}, "sparsity.kind: 'spars': input should be 'dense' or 'sparse'"),
    ],
)
def test_wrong_sparsity_is_told(values: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as caught:
        validate(SparsityConfig, values, "sparsity")
    assert told in str(caught.value)


def test_dead_neurons_are_those_silent_on_the_whole_batch() -> None:
    torch.manual_seed(0)
    model: Any = Transformer(SMALL.model_copy(update={"activation_fraction": 1.0}), VOCABULARY)
    with torch.no_grad():
        for layer, dead in ((0, 3), (1, 2)):
            model.blocks[layer].mlp.up.weight[:dead] = 0
            model.blocks[layer].mlp.up.bias[:dead] = 0
    module = DenseModule(model, CONFIG, 10)
    loss = module.training_step(random_tokens(3, 9), 0)
    assert module.measured()["train/dead_neurons"] == 5
    assert module.measured()["train/loss"] == loss.item()
