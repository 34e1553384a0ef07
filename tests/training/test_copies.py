"""The checksums of all ranks' weights are compared; a stand-in gathers them."""

import pytest
import torch
from micro import small_model
from torch import Tensor

from sparsity_lab.core.errors import UserError
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.training.copies import checksum, require_same_weights

CPU = torch.device("cpu")


def stand_in(monkeypatch: pytest.MonkeyPatch, *others: Transformer) -> None:
    """Let the ranks after the first hold the models `others`."""

    def gather(found: list[Tensor], mine_n: Tensor) -> None:
        sums = [torch.tensor([*map(checksum, other.state_dict().values())]) for other in others]
        for place, given in zip(found, [mine_n, *sums], strict=True):
            place.copy_(given)

    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1 + len(others))
    monkeypatch.setattr(torch.distributed, "all_gather", gather)


def test_equal_copies_pass_and_another_weight_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, small_model(), small_model())
    require_same_weights(small_model(), CPU, 5)
    other = small_model()
    other.blocks[1].get_parameter("mlp.down.weight").data[2, 3] = 0.0
    stand_in(monkeypatch, small_model(), other)
    with pytest.raises(UserError) as caught:
        require_same_weights(small_model(), CPU, 5)
    assert "rank 2 has other weights than rank 0 at step 5 (blocks.1.mlp.down.weight)" in str(caught.value)
    stand_in(monkeypatch, small_model(1), other)
    with pytest.raises(UserError, match=r"rank 1 .* and \d+ more tensors"):
        require_same_weights(small_model(), CPU, 5)


def test_the_checksum_reads_every_kind_of_tensor() -> None:
    kinds = [torch.ones(3), torch.ones(()), torch.ones(2, 2, dtype=torch.bfloat16), torch.ones(4, 4).T[1:]]
    assert len({checksum(tensor) for tensor in kinds}) == len(kinds)
    assert checksum(torch.tensor([0.0])) != checksum(torch.tensor([1e-45]))
