"""A bridge: maps between the residual streams of a dense and a sparse model (Gao et al. 2025, App. A.3).

At every boundary between sublayers, an encoder (linear, then AbsTopK) maps dense to sparse, and a linear
decoder maps sparse to dense. The maps' own matrices are dense; only the sparse model has sparse weights.
"""

from pathlib import Path

from pydantic import PositiveInt
from safetensors.torch import save_file
from torch import Tensor, nn

from sparsity_lab.core.config import Config, validate
from sparsity_lab.core.files import read_json, write_json
from sparsity_lab.model.checkpoints import read_safetensors, require_finite, require_tensors
from sparsity_lab.model.ops import abs_top_k

TENSORS, CARD = "bridge.safetensors", "bridge_card.json"


class BridgeShape(Config):
    """The widths of the two models, the number of boundaries, and k of the encoders' AbsTopK."""

    d_dense: PositiveInt
    d_sparse: PositiveInt
    boundaries: PositiveInt
    k: PositiveInt


class Bridge(nn.Module):
    """An encoder and a decoder for each boundary."""

    def __init__(self, shape: BridgeShape) -> None:
        super().__init__()
        self.shape = shape
        # matches the scale of an untrained sparse model's residual stream
        self.encoders = _linears(shape.boundaries, shape.d_dense, shape.d_sparse, 0.02)
        self.decoders = _linears(shape.boundaries, shape.d_sparse, shape.d_dense, 1.0)

    def encode(self, boundary: int, dense_btd: Tensor) -> Tensor:
        """Map the dense residual stream to the sparse one, with k nonzero channels at each position."""
        return abs_top_k(self.encoders[boundary](dense_btd), self.shape.k)

    def decode(self, boundary: int, sparse_btd: Tensor) -> Tensor:
        """Map the sparse residual stream to the dense one."""
        return self.decoders[boundary](sparse_btd)


def _linears(count: int, width_in: int, width_out: int, scale: float) -> nn.ModuleList:
    layers = nn.ModuleList(nn.Linear(width_in, width_out) for _ in range(count))
    for layer in layers:
        assert isinstance(layer, nn.Linear)
        nn.init.normal_(layer.weight, std=scale * width_in**-0.5)
        nn.init.zeros_(layer.bias)
    return layers


def save_bridge(bridge: Bridge, folder: Path) -> None:
    """Write the maps' tensors and shape into `folder`, next to the sparse model's files."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in bridge.state_dict().items()}
    save_file(tensors, folder / TENSORS)
    write_json(folder / CARD, bridge.shape)


def load_bridge(folder: Path) -> Bridge:
    """Read the maps, in evaluation mode.

    Raises:
        UserError: a file is missing or damaged, the tensors do not match the shape, or a number
            is not finite.
    """
    bridge = Bridge(validate(BridgeShape, read_json(folder / CARD), str(folder / CARD)))
    path, tensors = folder / TENSORS, read_safetensors(folder / TENSORS)
    expected = {name: tuple(tensor.shape) for name, tensor in bridge.state_dict().items()}
    require_tensors(tensors, expected, f"{path}: not the tensors of this bridge")
    require_finite(tensors, str(path))
    bridge.load_state_dict(tensors, strict=True)
    return bridge.eval().requires_grad_(False)


def nmse(guess: Tensor, truth: Tensor) -> Tensor:
    """Return the normalised mean squared error |guess - truth|² / |truth|²; a guess of 0 scores 1."""
    return (guess - truth).float().pow(2).sum() / truth.float().pow(2).sum().clamp(min=1e-12)
