"""Rotary position embeddings (Su et al. 2021), as Llama-like models use them; not part of the paper's method.

Channels i and i + d_head/2 of a query or key form a pair. At position t the pair is turned by the angle
t · frequency_i, so that a score depends on the distance between query and key. The sites `attn_q` and
`attn_k` hold the channels before they are turned.

Shape suffixes: b batch, h heads, t time, k d_head, f pairs of channels.
"""

import math

import torch
from torch import Tensor

from sparsity_lab.model.config import ModelConfig


def rotate(x_bhtk: Tensor, config: ModelConfig, position_b: Tensor | None = None) -> Tensor:
    """Turn queries or keys by their positions: 0, 1, ... along t, or one position per row, `position_b`."""
    length, device = x_bhtk.shape[-2], x_bhtk.device
    positions_bt = torch.arange(length, device=device)[None] if position_b is None else position_b[:, None]
    angle_b1tf = positions_bt[:, None, :, None].float() * frequencies(config, device)
    cos, sin = angle_b1tf.cos(), angle_b1tf.sin()
    first, second = x_bhtk.float().chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x_bhtk.dtype)


def frequencies(config: ModelConfig, device: torch.device | None = None) -> Tensor:
    """Return the angle per position of each pair of channels, in radians, float32 (f)."""
    exponent_f = torch.arange(0, config.d_head, 2, device=device).float() / config.d_head
    frequency_f = 1.0 / config.rotary_theta**exponent_f
    scaling = config.rotary_scaling
    if scaling is None:
        return frequency_f
    if scaling.kind == "linear":
        return frequency_f / scaling.factor
    turns_f = scaling.original_n_ctx * frequency_f / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept_f = ((turns_f - low) / (high - low)).clamp(0, 1)
    return frequency_f * (kept_f + (1 - kept_f) / scaling.factor)
