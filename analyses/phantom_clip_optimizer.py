"""Muon for the towers' matrices, AdamW for all else: about the same result as AdamW alone from fewer images."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

LEARNING_RATE, MATRIX_RATE, WEIGHT_DECAY = 1e-3, 2e-3, 0.05


class Muon(torch.optim.Optimizer):
    """Momentum whose direction is made orthogonal, for matrices within a network.

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks" (the quintic iteration), with
    the step length of Liu et al. 2025, "Muon is scalable for LLM training", which makes AdamW's rates and decay fit.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float, momentum: float = 0.95
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            for parameter in (p for p in group["params"] if p.grad is not None):
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                direction = orthogonal(parameter.grad.lerp(state["momentum"], group["momentum"]))
                length = 0.2 * math.sqrt(max(parameter.shape))
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-group["lr"] * length)


def orthogonal(matrix: Tensor) -> Tensor:
    """Return about U V' of a matrix U S V': five steps of a quintic iteration that drives singular values towards 1."""
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.T if tall else x).float()


def optimizers_for(student: nn.Module) -> list[torch.optim.Optimizer]:
    """Return the two optimizers of a student; biases, norms and the like do not decay."""
    named = list(student.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and (".blocks." in name or ".layer." in name)]
    theirs = {id(p) for p in matrices}
    decayed = [p for _, p in named if p.ndim > 1 and id(p) not in theirs]
    plain = [p for _, p in named if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98))
    return [adamw, Muon(matrices, lr=MATRIX_RATE, weight_decay=WEIGHT_DECAY)]


def scale_rates(optimizers: list[torch.optim.Optimizer], share: float) -> None:
    """Set every learning rate to a share of its full value."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("full", group["lr"])
            group["lr"] = group["full"] * share
