"""Regularisers of confidence and of text features: they shape a model beside a task loss, and teach no classes alone.

Those of logits (N, K) and integer labels (N,) compare averages over the batch, so they depend on how it is composed.
Each returns a scalar, smaller better; gradients flow to the logits or text features. No host copies, any device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from medvlm_probe.errors import InputError
from medvlm_probe.tuning.task_losses import checked, smoothed_targets, zero_shot_range

if TYPE_CHECKING:
    from torch import Tensor

_UNIT_TOLERANCE = 1e-2  # half precision rounds a unit vector's length by up to a few thousandths


def dca(logits: Tensor, labels: Tensor) -> Tensor:
    """Return |mean confidence - accuracy| of the batch, in [0, 1]; the accuracy has no gradient.

    Source: Liang et al. 2020, "Improved trainable calibration method for neural networks on medical imaging
        classification".
    """
    z, y = checked(logits, labels)
    confidence, predicted = z.softmax(dim=1).max(dim=1)
    return (confidence.mean() - (predicted == y).to(z).mean()).abs()


def mdca(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean over classes of |mean probability - frequency| in the batch, in [0, 1].

    Source: Hebbalaguppe et al. 2022, "A stitch in time saves nine".
    """
    return smac(logits, labels, alpha=0.0)


def smac(logits: Tensor, labels: Tensor, *, alpha: float = 0.05) -> Tensor:
    """Return MDCA against smoothed frequencies: mean_k |mean p_k - ((1 - alpha) f_k + alpha (1 - f_k) / (K - 1))|.

    In a batch where every class is equally frequent the smoothed frequencies are 1 / K whatever alpha is: SMAC is then
    MDCA. With two classes, 8 shots and batches of 16 that is every batch.

    Args:
        logits, labels: (N, K) and (N,).
        alpha: from 0 (MDCA) to below 1.

    Raises:
        InputError: a shape or alpha that does not fit.

    Source: Basu et al. 2025, "Calibration-aware prompt learning for medical vision-language models", and its code.
    """
    z, y = checked(logits, labels)
    return (z.softmax(dim=1).mean(dim=0) - smoothed_targets(y, z, alpha).mean(dim=0)).abs().mean()


def mmce(logits: Tensor, labels: Tensor, *, bandwidth: float = 0.4, legacy: bool = True) -> Tensor:
    """Return the weighted maximum mean calibration error; 0 where all of a batch is right, or all wrong.

    With r the right and w the wrong images (m and n of them), a their 1 - confidence and confidence, and the kernel
    k(c, d) = exp(-|c - d| / bandwidth): sqrt(S_rr / m^2 + S_ww / n^2 - 2 S_rw / (m n)), S_xy being the sum over pairs
    of a_x a_y k. The released code (`legacy`) takes the means of the pairs and divides them by the number of pairs
    again, so its value grows where errors are few.

    Args:
        logits, labels: (N, K) and (N,).
        bandwidth: of the Laplace kernel, above 0.
        legacy: the released code's double normalisation.

    Raises:
        InputError: a shape or bandwidth that does not fit.

    Source: Kumar, Sarawagi and Jain 2018, section 3.2 (weighted form).
    """
    import torch

    if bandwidth <= 0:
        raise InputError(f"MMCE with bandwidth {bandwidth:g}: expected above 0.")
    z, y = checked(logits, labels)
    confidence, predicted = z.softmax(dim=1).max(dim=1)
    right = (predicted == y).to(z)
    wrong = 1 - right
    m, n = right.sum(), wrong.sum()
    kernel = torch.exp(-(confidence[:, None] - confidence).abs() / bandwidth)
    of_right, of_wrong = (1 - confidence) * right, confidence * wrong

    def pairs(a: Tensor, b: Tensor, count: Tensor) -> Tensor:
        total = a @ kernel @ b / count.clamp(min=1)
        return total / (count + 1e-5) if legacy else total

    squared = pairs(of_right, of_right, m * m) + pairs(of_wrong, of_wrong, n * n) - 2 * pairs(of_right, of_wrong, m * n)
    return torch.sqrt(squared.clamp(min=0) + 1e-10) * ((m > 0) & (n > 0))


def penalty(logits: Tensor, labels: Tensor, zero_shot_logits: Tensor) -> Tensor:
    """Return how far logits leave each image's zero-shot range: mean max(z - max s, 0) + mean max(min s - z, 0).

    Args:
        logits: (N, K).
        labels: (N,); not used, and taken so that all losses are called alike.
        zero_shot_logits: s, of the untuned model, (N, K); no gradient flows to them.

    Raises:
        InputError: shapes that do not fit.

    Source: Murugesan et al. 2024, "Robust calibration of large vision-language adapters" (Penalty).
    """
    z, _ = checked(logits, labels)
    low, high = zero_shot_range(z, zero_shot_logits)
    return (z - high).clamp(min=0).mean() + (low - z).clamp(min=0).mean()


def angular_separation(text_features: Tensor) -> Tensor:
    """Return the mean cosine between the text features of different classes, in [-1 / (K - 1), 1].

    Smaller is farther apart; nothing is clamped, so it goes on below 0. For two classes it is their cosine.

    Args:
        text_features: one unit vector a class, (K, D), K at least 2.

    Raises:
        InputError: another shape, or rows that are not of unit length.

    Source: Basu et al. 2025, as released.
    """
    t = _checked_features(text_features)
    n_classes = len(t)
    similarity = t @ t.T
    return (similarity.sum() - similarity.diagonal().sum()) / (n_classes * (n_classes - 1))


def orthogonality(text_features: Tensor) -> Tensor:
    """Return O-TPT's term |T T^t - I|^2, the sum of squared entries: 0 where all text features stand at right angles.

    Where angular separation goes on pushing features apart beyond a right angle, this pulls them back to it. It is the
    paper's formula; the released code takes it of a Householder transform of T T^t.

    Args:
        text_features: T, one unit vector a class, (K, D), K at least 2.

    Raises:
        InputError: another shape, or rows that are not of unit length.

    Source: Sharifdeen et al. 2025, "O-TPT: Orthogonality constraints for calibrating test-time prompt tuning".
    """
    import torch

    t = _checked_features(text_features)
    return ((t @ t.T - torch.eye(len(t), dtype=t.dtype, device=t.device)) ** 2).sum()


def _checked_features(text_features: Tensor) -> Tensor:
    import torch

    if text_features.ndim != 2 or len(text_features) < 2:
        raise InputError(f"Text features of shape {tuple(text_features.shape)}: expected (K, D), two classes or more.")
    t = text_features.float() if text_features.dtype in (torch.float16, torch.bfloat16) else text_features
    length = t.detach().norm(dim=1)
    if bool(((length - 1).abs() > _UNIT_TOLERANCE).any()):
        raise InputError(
            f"Text features of length {float(length.min()):.3g} to {float(length.max()):.3g}: expected unit vectors; "
            "divide each by its length first."
        )
    return t
