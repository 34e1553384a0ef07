"""Cross-entropy that overwrites its logits: exact in every precision, strict about targets."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sparsity_lab.kernels.cross_entropy import overwriting_cross_entropy


def test_the_loss_of_extreme_logits_is_finite_where_it_can_be() -> None:
    logits_nv = torch.tensor([[1e4, 0.0, -1e4], [0.0, 1e4, 0.0]])
    tokens_n, targets_n = torch.zeros(2).long(), torch.tensor([1, 1])
    value = overwriting_cross_entropy(logits_nv, None, None, tokens_n, targets_n)
    assert value.item() == pytest.approx(5e3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("vocabulary", [1, 63, 64, 200])
def test_the_loss_and_its_gradient_are_exact_in_every_precision(dtype: torch.dtype, vocabulary: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits_nv = (3 * torch.randn(5, vocabulary, generator=generator)).to(dtype)
    bias_v, table_vv = (
        torch.randn(*shape, generator=generator) for shape in ((vocabulary,), (vocabulary,) * 2)
    )
    tokens_n, targets_n = (torch.randint(vocabulary, (5,), generator=generator) for _ in range(2))
    exact = [x.detach().clone().double().requires_grad_() for x in (logits_nv, bias_v)]
    expected = F.cross_entropy(exact[0] + exact[1] + table_vv.double()[tokens_n], targets_n)
    ours = [x.clone().requires_grad_() for x in (logits_nv, bias_v)]
    value = overwriting_cross_entropy(ours[0] * 1, ours[1], table_vv, tokens_n, targets_n)
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-5)
    value.backward()
    expected.backward()
    for one, other in zip(ours, exact, strict=True):
        assert one.grad is not None
        tolerance = 0.01 if dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=tolerance, atol=tolerance / 10)


@pytest.mark.parametrize("place", [0, 70])
def test_a_logit_that_is_no_number_is_seen_in_the_loss(place: int) -> None:
    logits_nv = torch.zeros(2, 100)
    logits_nv[1, place] = torch.nan
    tokens_n, targets_n = torch.zeros(2).long(), torch.tensor([1, 1])
    assert overwriting_cross_entropy(logits_nv, None, None, tokens_n, targets_n).isnan()


def drawn(vocabulary: int = 70, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, bigram table, tokens and targets of six positions."""
    generator = torch.Generator().manual_seed(0)
    logits_nv = torch.randn(6, vocabulary, generator=generator).to(dtype)
    table_vv = torch.randn(vocabulary, vocabulary, generator=generator)
    tokens_n, targets_n = torch.randint(vocabulary, (2, 6), generator=generator)
    return logits_nv, table_vv, tokens_n, targets_n


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # by the loop, and by operations
def test_ignored_targets_are_left_out_of_the_mean_and_the_gradient(dtype: torch.dtype) -> None:
    logits_nv, table_vv, tokens_n, targets_n = drawn(dtype=dtype)
    targets_n[[1, 4]] = -100
    ours, exact = logits_nv.clone().requires_grad_(), logits_nv.clone().double().requires_grad_()
    value = overwriting_cross_entropy(ours * 1, None, table_vv, tokens_n, targets_n)
    expected = F.cross_entropy(exact + table_vv.double()[tokens_n], targets_n)
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-5)
    value.backward()
    expected.backward()
    assert ours.grad is not None
    assert not ours.grad[[1, 4]].any()
    torch.testing.assert_close(ours.grad.double(), exact.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_mean_over_no_target_is_no_number(dtype: torch.dtype) -> None:
    logits_nv, _, tokens_n, targets_n = drawn(dtype=dtype)
    assert overwriting_cross_entropy(logits_nv, None, None, tokens_n, targets_n.fill_(-100)).isnan()


@pytest.mark.parametrize("target", [-1, -99, -101, 70, 1 << 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_target_outside_the_vocabulary_is_told(target: int, dtype: torch.dtype) -> None:
    logits_nv, table_vv, tokens_n, targets_n = drawn(dtype=dtype)
    targets_n[3] = target
    with pytest.raises(IndexError, match=f"target {target}: there are 0 to 69"):
        overwriting_cross_entropy(logits_nv, None, table_vv, tokens_n, targets_n)


def test_a_token_outside_the_bigram_table_is_told() -> None:
    logits_nv, table_vv, tokens_n, targets_n = drawn()
    tokens_n[5] = 70
    with pytest.raises(IndexError, match="token 70: there are 0 to 69"):
        overwriting_cross_entropy(logits_nv, None, table_vv, tokens_n, targets_n)


def test_shapes_that_do_not_fit_are_told() -> None:
    logits_nv, table_vv, tokens_n, targets_n = drawn()
    with pytest.raises(ValueError, match="6 rows of logits, 6 tokens, 5 targets"):
        overwriting_cross_entropy(logits_nv, None, None, tokens_n, targets_n[:5])
    with pytest.raises(ValueError, match="6 rows of logits, 5 tokens, 6 targets"):
        overwriting_cross_entropy(logits_nv, None, None, tokens_n[:5], targets_n)
    with pytest.raises(ValueError, match="bias of 69 tokens, logits of 70"):
        overwriting_cross_entropy(logits_nv, torch.zeros(69), None, tokens_n, targets_n)
    with pytest.raises(ValueError, match="bigram table of 69 tokens, logits of 70"):
        overwriting_cross_entropy(logits_nv, None, table_vv[:, :69], tokens_n, targets_n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_overwritten_logits_are_used_for_nothing_else(dtype: torch.dtype) -> None:
    logits_nv, _, tokens_n, targets_n = drawn(dtype=dtype)
    leaf_nv = logits_nv.requires_grad_()
    with pytest.raises(RuntimeError, match="a leaf that requires a gradient"):
        overwriting_cross_entropy(leaf_nv, None, None, tokens_n, targets_n)
    x_nv = leaf_nv * 1
    squares = x_nv.square().sum()  # its backward pass needs the logits as they were
    loss = overwriting_cross_entropy(x_nv, None, None, tokens_n, targets_n)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (loss + squares).backward()


def test_a_second_derivative_is_refused() -> None:
    logits_nv, _, tokens_n, targets_n = drawn()
    x_nv = logits_nv.requires_grad_()
    loss = overwriting_cross_entropy(x_nv * 1, None, None, tokens_n, targets_n)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, x_nv, create_graph=True)
