"""Losses that teach the classes: cross entropy and its smoothed, focused, margin and norm-limited forms, Brier.

Each takes logits (N, K), the logit scale already applied, and integer labels (N,) from 0 to K - 1, and returns the mean
over the batch as a scalar, smaller better; gradients flow to the logits. Half precision is computed in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from medvlm_probe.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of -log p of the right class, 0 or more; raises InputError for shapes that do not fit."""
    from torch.nn import functional

    z, y = checked(logits, labels)
    return functional.cross_entropy(z, y)


def focal(logits: Tensor, labels: Tensor, *, gamma: float = 3.0) -> Tensor:
    """Return the mean of -(1 - p)^gamma log p of the right class, 0 or more; gamma 0 is the cross entropy.

    Args:
        logits, labels: see the module.
        gamma: 0, or at least 1 (between them the gradient has a pole at p = 1).

    Raises:
        InputError: a shape or gamma that does not fit.

    Source: Lin et al. 2017; Mukhoti et al. 2020 (as a means to calibration).
    """
    if gamma < 0 or 0 < gamma < 1:
        raise InputError(f"Focal loss with gamma {gamma:g}: expected 0, or at least 1.")
    z, y = checked(logits, labels)
    log_p = z.log_softmax(dim=1).gather(1, y[:, None])[:, 0]
    return -((-log_p.expm1()) ** gamma * log_p).mean()


def label_smoothing(logits: Tensor, labels: Tensor, *, alpha: float = 0.05) -> Tensor:
    """Return the cross entropy with 1 - alpha on the right class and alpha / (K - 1) on each other one, 0 or more.

    Torch's `label_smoothing=a` spreads a over all K classes; this alpha is its a (K - 1) / K.

    Args:
        logits, labels: see the module.
        alpha: from 0 to below 1.

    Raises:
        InputError: a shape or alpha that does not fit.

    Source: Szegedy et al. 2016, in the form of Basu et al. 2025's released code.
    """
    z, y = checked(logits, labels)
    return -(smoothed_targets(y, z, alpha) * z.log_softmax(dim=1)).sum(dim=1).mean()


def mbls(logits: Tensor, labels: Tensor, *, margin: float = 10.0, alpha: float = 0.1) -> Tensor:
    """Return margin-based label smoothing: cross entropy + alpha x mean over (b, k) of max(max_j z_bj - z_bk - m, 0).

    Args:
        logits, labels: see the module.
        margin: the distance m of a logit to the highest from which on it is penalised, at least 0.
        alpha: the penalty's weight, at least 0.

    Raises:
        InputError: a shape or option that does not fit.

    Source: Liu et al. 2022, "The devil is in the margin".
    """
    if margin < 0 or alpha < 0:
        raise InputError(f"Margin-based label smoothing with margin {margin:g}, alpha {alpha:g}: expected 0 or more.")
    z, y = checked(logits, labels)
    excess = (z.max(dim=1, keepdim=True).values - z - margin).clamp(min=0)
    return cross_entropy(z, y) + alpha * excess.mean()


def logitnorm(logits: Tensor, labels: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return the cross entropy of z / (|z| + 1e-7) / temperature: only the direction of the logits counts.

    The confidence in training stays below 1 / (1 + (K - 1) exp(-d / T)), d = sqrt(K / (K - 1)): .80 for two classes at
    temperature 1.

    Args:
        logits, labels: see the module.
        temperature: above 0.

    Raises:
        InputError: a shape or temperature that does not fit.

    Source: Wei et al. 2022, "Mitigating neural network overconfidence with logit normalization".
    """
    if temperature <= 0:
        raise InputError(f"LogitNorm with temperature {temperature:g}: expected above 0.")
    z, y = checked(logits, labels)
    return cross_entropy(z / (z.norm(dim=1, keepdim=True) + 1e-7) / temperature, y)


def brier(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean over the batch of sum_k (p_k - [k = y])^2, in [0, 2] (Brier 1950); a proper score teaches."""
    from torch.nn import functional

    z, y = checked(logits, labels)
    target = functional.one_hot(y, z.shape[1]).to(z)
    return ((z.softmax(dim=1) - target) ** 2).sum(dim=1).mean()


def zs_norm(logits: Tensor, labels: Tensor, zero_shot_logits: Tensor) -> Tensor:
    """Return the cross entropy of logits that are stretched into each image's zero-shot range.

    (z - min z) / max(max z - min z, 1e-6) x (max s - min s) + min s, by image, s being the zero-shot logits.

    Args:
        logits, labels: see the module.
        zero_shot_logits: of the untuned model, (N, K); no gradient flows to them.

    Raises:
        InputError: shapes that do not fit.

    Source: Murugesan et al. 2024, "Robust calibration of large vision-language adapters" (ZS-Norm).
    """
    z, y = checked(logits, labels)
    low, high = zero_shot_range(z, zero_shot_logits)
    least = z.min(dim=1, keepdim=True).values
    span = (z.max(dim=1, keepdim=True).values - least).clamp(min=1e-6)
    return cross_entropy((z - least) / span * (high - low) + low, y)


def checked(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (N, K) in float32 or wider, and labels (N,) as int64; raises InputError."""
    import torch

    if logits.ndim != 2 or logits.shape[1] < 2 or labels.shape != logits.shape[:1] or not len(logits):
        raise InputError(
            f"Logits of shape {tuple(logits.shape)} and labels {tuple(labels.shape)}: expected (N, K) with one "
            "image and two classes at least, and (N,)."
        )
    if labels.is_floating_point():
        raise InputError(f"Labels of type {labels.dtype}: expected class numbers as integers.")
    return (logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits), labels.long()


def smoothed_targets(labels: Tensor, logits: Tensor, alpha: float) -> Tensor:
    """Return 1 - alpha at each right class and alpha / (K - 1) elsewhere, (N, K); raises InputError."""
    from torch.nn import functional

    if not 0 <= alpha < 1:
        raise InputError(f"Smoothing with alpha {alpha:g}: expected from 0 to below 1.")
    n_classes = logits.shape[1]
    hot = functional.one_hot(labels, n_classes).to(logits)
    return (1 - alpha) * hot + alpha * (1 - hot) / (n_classes - 1)


def zero_shot_range(logits: Tensor, zero_shot_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return each image's least and greatest zero-shot logit, (N, 1), without gradient; raises InputError."""
    if zero_shot_logits.shape != logits.shape:
        raise InputError(
            f"Zero-shot logits of shape {tuple(zero_shot_logits.shape)} for logits of {tuple(logits.shape)}: "
            "expected the same."
        )
    fixed = zero_shot_logits.detach().to(logits)
    return fixed.min(dim=1, keepdim=True).values, fixed.max(dim=1, keepdim=True).values
