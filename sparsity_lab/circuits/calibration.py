"""How well two-way logits answer a task, raw and after a scale and a shift (Gao et al. 2025, App. A.5)."""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from sparsity_lab.circuits.circuit import Calibration, Scores

IDENTITY = Calibration(scale=1.0, shift=0.0)


def two_way_loss(logit_diff_b: Tensor, label_b: Tensor) -> Tensor:
    """Mean cross-entropy in nats between a pair's two answers.

    `logit_diff_b` is the logit of the positive prompt's answer minus that of the other; `label_b` is 0 for
    rows where the former is right, 1 for the others.
    """
    return softplus(torch.where(label_b == 0, -logit_diff_b, logit_diff_b)).mean()


def calibrate(logit_diff_b: Tensor, label_b: Tensor) -> Calibration:
    """Scale and shift of the two-way logit that minimise the loss.

    By 16 LBFGS steps, started from the logits' own mean and spread.
    """
    logit_diff_b = logit_diff_b.double()
    spread, middle = logit_diff_b.std(correction=0).clamp(min=1e-6), logit_diff_b.mean()
    parameters = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    standard_b = (logit_diff_b - middle) / spread
    optimizer = torch.optim.LBFGS([parameters], max_iter=16, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = two_way_loss(parameters[0] * standard_b + parameters[1], label_b)
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    scale, shift = parameters.detach().tolist()
    return Calibration(scale=scale / spread.item(), shift=shift - scale * middle.item() / spread.item())


def score(logit_diff_b: Tensor, label_b: Tensor, calibration: Calibration) -> Scores:
    """Raw loss and accuracy, and the loss under `calibration`."""
    logit_diff_b = logit_diff_b.double()
    right_b = (logit_diff_b > 0) == (label_b == 0)
    calibrated_b = calibration.scale * logit_diff_b + calibration.shift
    return Scores(
        raw_loss=two_way_loss(logit_diff_b, label_b).item(),
        selection_loss=two_way_loss(calibrated_b, label_b).item(),
        accuracy=right_b.double().mean().item(),
    )
