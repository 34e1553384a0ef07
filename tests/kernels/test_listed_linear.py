"""Products and gradients by a list equal the dense ones at listed entries; so does the projection."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from sparsity_lab.kernels.cpu import listed_linear
from sparsity_lab.kernels.cpu.listed_linear import embed, linear
from sparsity_lab.kernels.cpu.listed_projection import project as project_listed
from sparsity_lab.model.dispatch import kernel_for, plain_operations
from sparsity_lab.model.listing import Embedding, Listing, attach
from sparsity_lab.training.sparsity.magnitude import kept_count, project

FIELDS = {
    "tokens": st.integers(1, 150),
    "inputs": st.integers(1, 40),
    "outputs": st.integers(1, 90),
    "listed": st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    "seed": st.integers(0, 99),
}


def listed_weight(
    rows: int, columns: int, share: float, generator: torch.Generator
) -> tuple[nn.Parameter, Listing]:
    """Integer weights, so that any order of a sum gives the same float; about half of the list is zero."""
    listed = torch.rand(rows, columns, generator=generator) < share
    integers = torch.randint(-1, 2, (rows, columns), generator=generator).float()
    weight = nn.Parameter(integers * listed)
    listing = Listing(weight, listed.view(-1).nonzero().squeeze(1))
    attach(weight, listing)
    return weight, listing


def results(
    product: Any, inputs: Tensor, weight: nn.Parameter, *rest: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Output and input gradient; the weight's gradient stays with the weight."""
    x = inputs.clone().requires_grad_(inputs.is_floating_point())
    y = product(x, weight, *rest)
    upstream = torch.randint(-3, 4, y.shape, generator=torch.Generator().manual_seed(0)).float()
    (y * upstream).sum().backward()
    return y.detach(), x.grad


@pytest.fixture(params=[False, True], ids=["float32 blocks", "bfloat16 blocks"], scope="module")
def blocks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Without the processor's instructions for bfloat16, and with them where it has them."""
    with pytest.MonkeyPatch.context() as patch:
        wanted = request.param and listed_linear.BFLOAT_INSTRUCTIONS
        patch.setattr(listed_linear, "BFLOAT_INSTRUCTIONS", wanted)
        yield


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("wants_dense", [False, True])
@given(**FIELDS)
def test_a_listed_layer_equals_the_dense_one_where_sums_are_exact(
    wants_dense: bool,
    autocast: bool,
    dtype: torch.dtype,
    tokens: int,
    inputs: int,
    outputs: int,
    listed: float,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight, listing = listed_weight(outputs, inputs, listed, generator)
    listing.wants_dense = wants_dense
    bias = torch.randint(-4, 5, (outputs,), generator=generator).float().requires_grad_()
    x_ti = torch.randint(-8, 9, (tokens, inputs), generator=generator).float()
    dtype = dtype if autocast else torch.float32
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y, d_x = results(linear, x_ti.to(dtype), weight, bias)
    whole, part, d_bias = weight.grad, listing.values_n.grad, bias.grad
    weight.grad = bias.grad = None
    expected_y, expected_d_x = results(F.linear, x_ti, weight, bias)
    assert torch.equal(y, expected_y.bfloat16() if autocast else expected_y)
    assert d_x is not None
    assert expected_d_x is not None
    assert torch.equal(d_x, expected_d_x.to(dtype))
    assert d_bias is not None
    assert bias.grad is not None
    assert torch.equal(d_bias, bias.grad)
    assert weight.grad is not None
    if wants_dense:
        assert part is None
        assert whole is not None
        product = weight.grad.bfloat16().float() if autocast else weight.grad  # the dense product rounds
        assert torch.equal(whole, product)
    else:
        assert whole is None
        assert part is not None
        assert torch.equal(part, weight.grad.view(-1)[listing.index_n])


@pytest.mark.parametrize("wants_dense", [False, True])
def test_a_listed_embedding_equals_the_dense_one(wants_dense: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, listing = listed_weight(11, 7, 0.4, generator)
    listing.wants_dense = wants_dense
    tokens = torch.randint(11, (3, 5), generator=generator)  # some occur twice, some never
    y, _ = results(embed, tokens, weight)
    whole, part = weight.grad, listing.values_n.grad
    weight.grad = None
    assert torch.equal(y, results(F.embedding, tokens, weight)[0])
    assert weight.grad is not None
    if wants_dense:
        assert whole is not None
        assert torch.equal(whole, weight.grad)
    else:
        assert part is not None
        assert torch.equal(part, weight.grad.view(-1)[listing.index_n])


def test_two_uses_of_a_weight_add_up() -> None:
    generator = torch.Generator().manual_seed(1)
    weight, listing = listed_weight(6, 5, 0.5, generator)
    x_ti = torch.randint(-3, 4, (4, 5), generator=generator).float()
    results(linear, x_ti, weight, torch.zeros(6))
    once = listing.values_n.grad
    assert once is not None
    once = once.clone()
    results(linear, x_ti, weight, torch.zeros(6))
    again = listing.values_n.grad
    assert again is not None
    assert torch.equal(again, 2 * once)


@pytest.mark.parametrize("autocast", [False, True])
def test_the_number_of_threads_changes_nothing(autocast: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    weight, listing = listed_weight(300, 70, 0.3, generator)
    x_ti, upstream_to = torch.randn(111, 70, generator=generator), torch.randn(111, 300, generator=generator)
    bias = torch.zeros(300, requires_grad=True)
    threads = torch.get_num_threads()
    found: list[Any] = []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            listing.values_n.grad = bias.grad = None
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                y_to = linear(x_ti, weight, bias)
            (y_to * upstream_to).sum().backward()
            found.append((y_to, listing.values_n.grad, bias.grad))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))


def test_no_rows_give_no_rows_and_other_shapes_are_told() -> None:
    weight, listing = listed_weight(6, 5, 0.5, torch.Generator().manual_seed(1))
    y = linear(torch.zeros(2, 0, 5), weight, torch.zeros(6))
    assert y.shape == (2, 0, 6)
    y.sum().backward()
    assert listing.values_n.grad is not None
    assert not listing.values_n.grad.any()
    with pytest.raises(ValueError, match="4 inputs, but the weight has 5"):
        linear(torch.zeros(3, 4), weight, None)


def test_a_listed_weight_is_served_only_where_it_is_trained_by_kernels() -> None:
    weight, _ = listed_weight(6, 5, 0.5, torch.Generator().manual_seed(3))
    x_ti = torch.zeros(4, 5)
    assert kernel_for("linear", x_ti, weight, None) is linear
    assert kernel_for("linear", x_ti.double(), weight, None) is None
    with torch.autocast("cpu", torch.float16):
        assert kernel_for("linear", x_ti, weight, None) is None
    with plain_operations():
        assert kernel_for("linear", x_ti, weight, None) is None
    attach(weight, None)
    assert kernel_for("linear", x_ti, weight, None) is not linear
    layer = Embedding(6, 5)
    weight = nn.Parameter(layer.weight.detach())
    layer.weight = weight
    attach(weight, Listing(weight, torch.arange(30)))
    layer(torch.tensor([1])).sum().backward()
    assert weight.grad is None
    layer.eval()(torch.tensor([1])).sum().backward()
    assert weight.grad is not None


@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    seed=st.integers(0, 999),
    levels=st.sampled_from([1, 3, 1000]),
    fraction=st.floats(0, 0.99),
    axis=st.sampled_from([None, 0, 1]),
    at_least=st.integers(0, 3),
)
def test_s1_s2_a_list_keeps_what_the_projection_of_the_whole_weight_keeps(
    rows: int, columns: int, seed: int, levels: int, fraction: float, axis: int | None, at_least: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    magnitude = torch.randint(1, levels + 1, (rows, columns), generator=generator) / 4
    sign = torch.where(torch.rand(rows, columns, generator=generator) < 0.5, -1, 1)
    listed = torch.rand(rows, columns, generator=generator) < 0.7
    channels = 1 if axis is None else (rows, columns)[axis]
    at_least = 0 if axis is None else min(at_least, rows * columns // channels)
    if axis is not None:  # a list always holds what the channels need
        listed.movedim(axis, 0)[:, :at_least] = True
    weight = nn.Parameter(magnitude * sign * listed)
    listing = Listing(weight, listed.view(-1).nonzero().squeeze(1))
    keep = min(kept_count(weight.numel(), fraction, channels, at_least), len(listing.index_n))
    expected = weight.detach().clone()
    project(expected, keep / weight.numel(), axis, at_least)
    for _ in range(2):
        project_listed(listing, keep, at_least, axis, channels)
        listing.write(weight)
        assert torch.equal(weight.detach(), expected)
    assert weight.count_nonzero() == keep


def test_an_impossible_projection_is_refused() -> None:
    _, listing = listed_weight(6, 5, 1.0, torch.Generator().manual_seed(3))
    with pytest.raises(ValueError, match="keep 5 weights, 1 in each of 6 channels"):
        project_listed(listing, 5, 1, 0, 6)
