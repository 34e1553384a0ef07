"""Sums of rows in float32, exact for integers, for any number of threads."""

import pytest
import torch

from sparsity_lab.kernels.cpu.row_sums import add_rows, sum_rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [0, 1, 77])
@pytest.mark.parametrize("threads", [1, 3])
def test_rows_are_added_to_those_of_their_tokens(threads: int, rows: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x_nc = torch.randint(-200, 201, (rows, 50), generator=generator).to(dtype)
    tokens_n = torch.randint(4, (rows,), generator=generator)  # several rows each
    sums_vc = torch.ones(6, 50)
    expected = sums_vc.index_add(0, tokens_n, x_nc.float())
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        add_rows(x_nc, tokens_n, sums_vc)
        assert torch.equal(sum_rows(x_nc), x_nc.float().sum(0))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(sums_vc, expected)
