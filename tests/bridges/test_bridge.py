"""The maps of a bridge: widths, AbsTopK, files; and the error measure by hand."""

from pathlib import Path

import pytest
import torch

from sparsity_lab.bridges.bridge import Bridge, BridgeShape, load_bridge, nmse, save_bridge
from sparsity_lab.core.errors import UserError

SHAPE = BridgeShape(d_dense=6, d_sparse=8, boundaries=3, k=2)


def test_an_encoder_keeps_k_channels_and_a_decoder_is_linear() -> None:
    torch.manual_seed(0)
    bridge, dense_btd, sparse_btd = Bridge(SHAPE), torch.randn(2, 5, 6), torch.randn(2, 5, 8)
    assert len(bridge.encoders) == len(bridge.decoders) == 3
    encoded = bridge.encode(1, dense_btd)
    assert encoded.shape == (2, 5, 8)
    assert encoded.count_nonzero(-1).eq(2).all()
    decoded = bridge.decode(1, sparse_btd)
    assert decoded.shape == (2, 5, 6)
    zero = bridge.decode(1, torch.zeros(1, 8))
    torch.testing.assert_close(bridge.decode(1, 3 * sparse_btd) - zero, 3 * (decoded - zero))
    assert not torch.equal(bridge.decode(2, sparse_btd), decoded)


def test_nmse_by_hand() -> None:
    truth = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    assert nmse(truth, truth) == 0
    assert nmse(torch.zeros(2, 2), truth) == 1
    assert nmse(torch.tensor([[3.0, 0.0], [0.0, 3.0]]), truth).item() == pytest.approx(1 / 25)


def test_a_bridge_read_back_is_the_one_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bridge = Bridge(SHAPE)
    save_bridge(bridge, tmp_path)
    again = load_bridge(tmp_path)
    assert again.shape == SHAPE
    assert not any(parameter.requires_grad for parameter in again.parameters())
    for name, tensor in bridge.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_files_that_do_not_fit_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"bridge_card.json: no such file"):
        load_bridge(tmp_path)
    save_bridge(Bridge(SHAPE), tmp_path)
    (tmp_path / "bridge_card.json").write_text('{"d_dense": 7, "d_sparse": 8, "boundaries": 3, "k": 2}')
    with pytest.raises(UserError, match=r"bridge.safetensors: not the tensors of this bridge: wrong shape: "):
        load_bridge(tmp_path)
    (tmp_path / "bridge.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match=r"bridge.safetensors: not readable as safetensors"):
        load_bridge(tmp_path)
