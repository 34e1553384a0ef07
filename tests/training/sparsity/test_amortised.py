"""The amortised method: exact among listed entries, growth by dense gradients, the same without kernels."""

from pathlib import Path
from typing import Any

import pytest
import torch
from micro import SMALL, write_tokens_folder
from torch import Tensor, nn
from twelve_steps import STEPS, new_model, new_module, weights

from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.data.datamodule import TokenDataModule
from sparsity_lab.model.dispatch import plain_operations
from sparsity_lab.model.listing import listing_of
from sparsity_lab.training.fit import fit
from sparsity_lab.training.listed.weight import ListedWeight, largest
from sparsity_lab.training.sparsity import make_sparsifier
from sparsity_lab.training.sparsity.amortised import Config
from sparsity_lab.training.sparsity.magnitude import project

GROUP = {"lr": 0.1, "betas": (0.9, 0.95), "eps": 0.1, "weight_decay": 0.1, "fused": True}


def gradients(shape: tuple[int, int], count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def test_with_every_weight_listed_a_step_is_the_exact_methods() -> None:
    start = 0.1 * torch.randn(12, 9, generator=torch.Generator().manual_seed(1))
    project(start, 0.2, 0, 1)
    exact, ours = (nn.Parameter(start.clone()) for _ in range(2))
    listed = ListedWeight(ours, 0, 1, 4.0, torch.arange(start.numel()))
    optimizer = torch.optim.AdamW([{"params": [exact]} | GROUP])
    for step, gradient in enumerate(gradients((12, 9), 8), start=1):
        exact.grad, ours.grad = gradient.clone(), gradient.clone()
        optimizer.step()
        project(exact, 0.2, 0, 1)
        assert torch.equal(listed.collect(), gradient.flatten())
        listed.update(GROUP, step, 0.2)
        listed.project(0.2)
        assert torch.equal(ours, exact)
    assert (exact.detach() != 0).ne(start != 0).any()  # the set of nonzeros has changed


def test_growth_of_a_short_list_stays_on_the_weights_device() -> None:
    """All listed entries stay; nothing is made on the default device, here another than the weight's."""
    weight = nn.Parameter(torch.zeros(2, 10))
    weight.data[0, :2] = torch.tensor([5.0, -6.0])
    listed = ListedWeight(weight, None, 0, 1.0, torch.tensor([0, 1]))
    gradient = torch.arange(20.0).view(2, 10)
    with torch.device("meta"):
        listed._grow(gradient, 0.2, 0.9, 1e-8)
    # largest over the mean squares of row and column
    assert listed.listing.index_n.tolist() == [0, 1, 7, 8, 9, 10, 11, 12]


def test_growth_takes_the_zeros_of_largest_step_and_keeps_the_better_half_of_the_candidates() -> None:
    weight = nn.Parameter(torch.zeros(2, 10))
    weight.data[0, :4] = torch.tensor([5.0, -6.0, 7.0, 8.0])
    listed = ListedWeight(weight, None, 0, 1.0, torch.tensor([0, 1, 2, 3, 4, 5, 6, 7]))
    listed.m_n[4:] = torch.tensor([0.4, 0.01, -0.3, 0.02])  # 4 and 6 are the better half
    listed.v_n[4:] = 0.04
    gradient = torch.full((2, 10), 0.001)
    gradient[1, 5], gradient[1, 8], gradient[0, 5] = -3.0, 2.0, 1.0
    listed.listing.wants_dense, weight.grad = True, gradient.clone()
    assert torch.equal(listed.collect(), gradient)
    assert weight.grad is None
    listed.update(GROUP | {"lr": 0.0, "eps": 0.1}, 1, 0.2)
    square = gradient.square()
    usual = square.mean(1, keepdim=True) * square.mean(0) / square.mean()
    step = (gradient.abs() / (usual.sqrt() + 0.1)).view(-1)
    assert step[5] > step[18] > step[15]  # by size alone 15 would be first and 5 last
    assert listed.listing.index_n.tolist() == [0, 1, 2, 3, 4, 5, 6, 18]
    assert listed.spread == pytest.approx(float(gradient.square().sum() / gradient[0, :8].square().sum()))
    grown = gradient.view(-1)[listed.listing.index_n]
    before_m, before_v = torch.zeros(8), torch.zeros(8)
    before_m[4:7], before_v[4:7] = torch.tensor([0.4, 0.01, -0.3]), 0.04  # 5 keeps its own
    before_v[7] = usual[1, 8]
    torch.testing.assert_close(listed.m_n, 0.9 * before_m + 0.1 * grown)
    torch.testing.assert_close(listed.v_n, 0.95 * before_v + 0.05 * grown.square())
    listed.project(0.2)
    assert weight.detach().flatten().nonzero().flatten().tolist() == [0, 1, 2, 3]


def test_mean_squares_of_rows_and_columns_move_by_a_quarter() -> None:
    listed = ListedWeight(nn.Parameter(torch.ones(2, 2)), None, 0, 1.0, torch.tensor([0]))
    listed.note_squares(torch.tensor([[1.0, 3.0], [5.0, 7.0]]))
    assert (listed.row_o.tolist(), listed.column_i.tolist()) == ([2, 6], [3, 5])
    listed.note_squares(torch.zeros(2, 2))
    assert (listed.row_o.tolist(), listed.column_i.tolist()) == ([1.5, 4.5], [2.25, 3.75])


def test_largest() -> None:
    assert largest(torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 4.0]]), 2).tolist() == [1, 5]
    assert largest(torch.tensor([[0.0, 3.0], [0.0, 0.0]]), 3).tolist() == [1]
    assert largest(torch.ones(1, 2), 5).tolist() == [0, 1]


def test_the_schedule() -> None:
    def at(progress: float, **changes: Any) -> float:
        config = Config(kept_fraction=0.01, start=4.0, anneal_until=0.5, anneal="linear")
        return config.model_copy(update=changes).kept_at(progress, changes.get("kept_fraction", 0.01))

    assert [at(p) for p in (0, 0.25, 0.5, 1)] == pytest.approx([0.04, 0.025, 0.01, 0.01])
    falling = [at(p, anneal="geometric") for p in (0, 0.25, 0.5, 1)]
    assert falling == pytest.approx([0.04, 0.02, 0.01, 0.01])
    assert [at(p, start=None, anneal="geometric") for p in (0, 0.25, 0.5)] == pytest.approx([1, 0.1, 0.01])
    assert at(0, kept_fraction=0.5) == 1
    assert at(0, kept_fraction=0.5, anneal_until=0.0) == 0.5


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"start": 0.5}, "sparsity.start: 0.5: must be at least 1"),
        ({"anneal_until": 1.5}, "sparsity.anneal_until: 1.5: must lie between 0 and 1"),
        ({"candidates": 0.0}, "sparsity.candidates: 0.0: input should be greater than 0"),
        ({"dense_every": 0}, "sparsity.dense_every: 0: input should be greater than 0"),
    ],
)
def test_wrong_values_are_told(values: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as caught:
        validate(Config, {"nonzeros": 5} | values, "sparsity")
    assert str(caught.value).startswith(told)


def train(config: Config, folder: Path) -> Any:
    tokens = write_tokens_folder(folder / "tokens")
    module = new_module(config)
    fit(module, TokenDataModule(tokens, SMALL.n_ctx, 8, STEPS, 7, 16), folder, [], "test")
    return module


@pytest.mark.parametrize("start", [1.5, 6.0])  # lists from the first step on; after some dense steps
def test_training_is_the_same_without_kernels(start: float, tmp_path: Path) -> None:
    config = Config(kept_fraction=0.1, at_least=1, start=start, anneal_until=0.4, dense_every=4)
    with plain_operations():
        plain = train(config, tmp_path / "plain")
    ours = train(config, tmp_path / "kernels")
    for name, tensor in weights(ours).items():
        torch.testing.assert_close(tensor, weights(plain)[name], rtol=1e-3, atol=1e-5)
    assert sorted(ours.sparsifier.lists) == sorted(
        name
        for name, (weight, _) in ours.model.sparse_weights().items()
        if weight.dim() == 2 and listing_of(weight) is not None
    )
    assert ours.sparsifier.lists


def test_no_dense_gradient_or_moment_is_made_between_dense_steps() -> None:
    module = new_module(Config(kept_fraction=0.05, at_least=1, start=1.0, dense_every=100))
    optimizer = module.configure_optimizers()["optimizer"]
    windows = torch.randint(5, (2, SMALL.n_ctx + 1), generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        loss, _ = module.objective(module.model, windows, 0, None)
        loss.backward()
        matrices = module.sparsifier.matrices.values()
        assert all(weight.grad is None for weight, _ in matrices)
        module.scale_gradients()
        optimizer.step()
        optimizer.zero_grad()
        assert not any(weight in optimizer.state for weight, _ in matrices)


def test_the_matrices_take_turns() -> None:
    sparsifier: Any = make_sparsifier(
        Config(kept_fraction=0.05, at_least=1, start=1.0, dense_every=4), new_model(), STEPS, 0
    )
    asked = {name: 0 for name in sparsifier.lists}
    for sparsifier.steps in range(8):
        sparsifier._ask_for_dense()
        due = [name for name, listed in sparsifier.lists.items() if listed.listing.wants_dense]
        assert 0 < len(due) < len(asked)
        for name in due:
            asked[name] += 1
    assert set(asked.values()) == {2}
