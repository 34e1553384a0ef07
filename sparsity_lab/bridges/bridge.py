"""A bridge's maps between a dense model's residual stream and a sparse one's (Gao et al. 2025, App. A.3).

At every boundary an encoder, linear and then AbsTopK, takes dense to sparse, and a linear decoder takes
sparse to dense. Their matrices are dense: the sparsity of the weights is the sparse model's alone.
"""

from pathlib import Path

from pydantic import PositiveInt
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sparsity_lab.core.config import Config, validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json, write_json
from sparsity_lab.model.ops import abs_top_k

TENSORS, CARD = "bridge.safetensors", "bridge_card.json"


class BridgeShape(Config):
    """Widths of the two models, their number of boundaries, and k of the encoders' AbsTopK."""

    d_dense: PositiveInt
    d_sparse: PositiveInt
    boundaries: PositiveInt
    k: PositiveInt


class Bridge(nn.Module):
    """An encoder and a decoder for each boundary."""

    def __init__(self, shape: BridgeShape) -> None:
        super().__init__()
        self.shape = shape
        # an untrained sparse model's stream is as small as its embedding, 0.02
        self.encoders = _linears(shape.boundaries, shape.d_dense, shape.d_sparse, 0.02)
        self.decoders = _linears(shape.boundaries, shape.d_sparse, shape.d_dense, 1.0)

    def encode(self, boundary: int, dense_btd: Tensor) -> Tensor:
        """The dense residual stream as the sparse model's, k nonzero channels at each position."""
        return abs_top_k(self.encoders[boundary](dense_btd), self.shape.k)

    def decode(self, boundary: int, sparse_btd: Tensor) -> Tensor:
        """The sparse residual stream as the dense model's."""
        return self.decoders[boundary](sparse_btd)


def _linears(count: int, width_in: int, width_out: int, scale: float) -> nn.ModuleList:
    layers = nn.ModuleList(nn.Linear(width_in, width_out) for _ in range(count))
    for layer in layers:
        assert isinstance(layer, nn.Linear)
        nn.init.normal_(layer.weight, std=scale * width_in**-0.5)
        nn.init.zeros_(layer.bias)
    return layers


def save_bridge(bridge: Bridge, folder: Path) -> None:
    """Write the maps' tensors and shape into `folder`, beside the sparse model's files."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in bridge.state_dict().items()}
    save_file(tensors, folder / TENSORS)
    write_json(folder / CARD, bridge.shape)


def load_bridge(folder: Path) -> Bridge:
    """Read the maps, in evaluation mode.

    Raises:
        UserError: a file is missing or damaged, or the tensors are not of that shape.
    """
    bridge = Bridge(validate(BridgeShape, read_json(folder / CARD), str(folder / CARD)))
    try:
        bridge.load_state_dict(load_file(folder / TENSORS), strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder / TENSORS}: not the tensors of this bridge ({reason})") from None
    return bridge.eval().requires_grad_(False)


def nmse(guess: Tensor, truth: Tensor) -> Tensor:
    """Normalised mean squared error |guess - truth|² / |truth|² over all entries; 1 for guessing 0."""
    return (guess - truth).float().pow(2).sum() / truth.float().pow(2).sum().clamp(min=1e-12)
