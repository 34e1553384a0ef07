"""RMSNorm and LayerNorm."""

import torch
from torch import Tensor, nn

from sparsity_lab.model.config import ModelConfig
from sparsity_lab.model.dispatch import kernel_for

FLOAT32_EPS = torch.finfo(torch.float32).eps


class RMSNorm(nn.RMSNorm):
    """`nn.RMSNorm` that may use a kernel in training."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width, eps)

    def forward(self, x: Tensor) -> Tensor:
        trained = self.training and torch.is_grad_enabled() and self.weight.requires_grad
        kernel = kernel_for("rms_norm", x, self.weight, self.eps) if trained else None
        return super().forward(x) if kernel is None else kernel(x, self.weight, self.eps)


def make_norm(config: ModelConfig, width: int) -> RMSNorm | nn.LayerNorm:
    """Make the normalisation of `width` channels, with weight 1 and bias, if any, 0."""
    if config.norm == "rms":
        # PyTorch's default depends on the input's type: bfloat16 would compute another function
        return RMSNorm(width, config.norm_eps or FLOAT32_EPS)
    return nn.LayerNorm(width, config.norm_eps or 1e-5, bias=config.norm_bias)
