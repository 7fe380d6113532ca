"""Losses for several labels an image, each yes, no or not known: what is not known adds nothing to the loss.

Each takes logits (N, L) and labels (N, L) of 1, 0 or NaN, and returns the mean over the known entries as a scalar,
0 or more, smaller better; gradients flow to the logits. Without a known entry it is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from medvlm_probe.errors import InputError, unknown_name

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from medvlm_probe.types import FloatArray

MOST_WEIGHT = 100.0
"""Largest weight of a label's positives: two positives in a thousand images must not decide every step."""


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of -log p over positives and -log(1 - p) over negatives, p the logistic function of the logit."""
    from torch.nn import functional

    known, target = _known(logits, labels)
    return _mean(functional.binary_cross_entropy_with_logits(logits, target, reduction="none"), known)


def positive_weighted(logits: Tensor, labels: Tensor, *, positive_weight: Tensor) -> Tensor:
    """Return the cross-entropy with each label's positives counted `positive_weight` times, (L,), above 0.

    `positive_weights` gives the weights that make a label's positives and negatives count alike.
    """
    from torch.nn import functional

    known, target = _known(logits, labels)
    if positive_weight.shape != logits.shape[1:]:
        raise InputError(
            f"Positive weights of shape {tuple(positive_weight.shape)} do not fit {logits.shape[1]} labels."
        )
    losses = functional.binary_cross_entropy_with_logits(
        logits, target, reduction="none", pos_weight=positive_weight.to(logits)
    )
    return _mean(losses, known)


def asymmetric(
    logits: Tensor, labels: Tensor, *, gamma_positive: float = 1.0, gamma_negative: float = 4.0, margin: float = 0.05
) -> Tensor:
    """Return the asymmetric loss: easy negatives count little, and those below the margin nothing.

    Positives: -(1 - p)^gamma_positive log p. Negatives: -q^gamma_negative log(1 - q) with q = max(p - margin, 0).
    Both gammas and the margin 0: the cross-entropy. The published code sums over entries; this is their mean.

    Args:
        logits, labels: see the module.
        gamma_positive, gamma_negative: 0, or at least 1 (between them the gradient has a pole).
        margin: at least 0, below 1.

    Raises:
        InputError: a shape or number that does not fit.

    Source: Ridnik et al. 2021, "Asymmetric loss for multi-label classification", equations 5 to 7.
    """
    import torch
    from torch.nn import functional

    if any(gamma < 0 or 0 < gamma < 1 for gamma in (gamma_positive, gamma_negative)) or not 0 <= margin < 1:
        raise InputError(
            f"Asymmetric loss with gammas {gamma_positive:g} and {gamma_negative:g}, margin {margin:g}: expected "
            "gammas of 0 or at least 1, and a margin from 0 to below 1."
        )
    known, target = _known(logits, labels)
    absent = torch.sigmoid(-logits)
    positives = -functional.logsigmoid(logits) * absent**gamma_positive
    if margin:
        shifted = (torch.sigmoid(logits) - margin).clamp(min=0)
        log_absent = torch.log1p(-shifted)
    else:
        shifted, log_absent = torch.sigmoid(logits), functional.logsigmoid(-logits)
    negatives = -log_absent * shifted**gamma_negative
    return _mean(torch.where(target > 0, positives, negatives), known)


LOSSES: Mapping[str, Callable[..., Tensor]] = {
    "bce": binary_cross_entropy,
    "weighted-bce": positive_weighted,
    "asymmetric": asymmetric,
}
"""The losses by the name that commands take."""


def loss_named(name: str) -> Callable[..., Tensor]:
    """Return a loss of `LOSSES`; raises UnknownNameError."""
    if name not in LOSSES:
        raise unknown_name("loss", name, LOSSES)
    return LOSSES[name]


def positive_weights(targets: FloatArray) -> NDArray[np.float32]:
    """Return negatives over positives of each label, (L,), of targets (n, L) with NaN; at most `MOST_WEIGHT`.

    A label without positives or without negatives gets 1.
    """
    positive, negative = (targets == 1).sum(axis=0), (targets == 0).sum(axis=0)
    ratio = negative / np.maximum(positive, 1)
    return np.where((positive > 0) & (negative > 0), np.minimum(ratio, MOST_WEIGHT), 1.0).astype(np.float32)


def _known(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return where labels are known, and the labels with 0 elsewhere, as the logits' type."""
    if logits.ndim != 2 or logits.shape != labels.shape:
        raise InputError(
            f"Logits of shape {tuple(logits.shape)} and labels {tuple(labels.shape)}: expected (N, L) for both."
        )
    return ~labels.isnan(), labels.nan_to_num(nan=0.0).to(logits)


def _mean(losses: Tensor, known: Tensor) -> Tensor:
    """Return the mean of the known entries; the unknown ones have a gradient of exactly 0."""
    import torch

    return torch.where(known, losses, torch.zeros_like(losses)).sum() / known.sum().clamp(min=1)
