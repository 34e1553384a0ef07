"""Whether all ranks of a data-parallel training hold the same weights, and so the same masks (S1)."""

import zlib

import torch
import torch.distributed as dist
from torch import Tensor

from sparsity_lab.core.errors import UserError
from sparsity_lab.model.transformer import Transformer


def require_same_weights(model: Transformer, device: torch.device, step: int) -> None:
    """Compare a checksum of every tensor across all ranks, which must all call this.

    `device` is the rank's own: some backends exchange tensors only between such devices.

    Raises:
        UserError: a rank has other weights than rank 0. All ranks raise it.
    """
    tensors = model.state_dict()
    mine_n = torch.tensor([checksum(tensor) for tensor in tensors.values()], device=device)
    found = [torch.empty_like(mine_n) for _ in range(dist.get_world_size())]
    dist.all_gather(found, mine_n)
    all_rn = torch.stack(found)
    for rank, differs_n in enumerate(all_rn != all_rn[0]):
        if differs_n.any():
            names = [name for name, differs in zip(tensors, differs_n.tolist(), strict=True) if differs]
            more = f" and {len(names) - 1} more tensors" if len(names) > 1 else ""
            raise UserError(
                f"training: rank {rank} has other weights than rank 0 at step {step} ({names[0]}{more}) and "
                "perhaps other masks: check that all ranks run the same versions on the same kind of device; "
                "the last checkpoint is kept"
            )


def checksum(tensor: Tensor) -> int:
    """Return the CRC-32 of a tensor's bytes."""
    return zlib.crc32(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
