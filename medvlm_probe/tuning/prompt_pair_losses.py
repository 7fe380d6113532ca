"""The losses of one label for several: each label is a problem of two classes, its negative and its positive prompt.

Logits are (N, L, 2), the negative prompt first, so that a label's value is its class; labels are (N, L) of 1, 0 or NaN.
Task losses and the penalty are means over the known entries. Regularisers that compare averages over the batch are
taken label by label over its known images, then averaged over the labels that have any. What is not known adds nothing
and has a gradient of exactly 0; without a known entry the loss is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from medvlm_probe.errors import InputError
from medvlm_probe.tuning.calibration_losses import angular_separation, orthogonality

if TYPE_CHECKING:
    from torch import Tensor


def over_entries(loss: Callable[..., Tensor], logits: Tensor, labels: Tensor, *others: Tensor) -> Tensor:
    """Return a loss of (N, K) logits over all known entries taken together, each one a problem of two classes.

    Args:
        loss: takes logits (M, 2), labels (M,), and what stands in `others`, as (M, 2).
        logits, labels: see the module.
        others: of the logits' shape: zero-shot logits.

    Raises:
        InputError: shapes that do not fit.
    """
    known = _known(logits, labels)
    if not known.any():
        return logits.sum() * 0
    return loss(logits[known], labels[known].long(), *(_same_shape(logits, other)[known] for other in others))


def by_label(loss: Callable[..., Tensor], logits: Tensor, labels: Tensor, *others: Tensor) -> Tensor:
    """Return the mean over labels of a loss of (N, K) logits; arguments as in `over_entries`."""
    known = _known(logits, labels)
    fitting = [_same_shape(logits, other) for other in others]
    values = [
        loss(logits[rows, k], labels[rows, k].long(), *(other[rows, k] for other in fitting))
        for k, rows in enumerate(known.T)
        if rows.any()
    ]
    return sum(values[1:], values[0]) / len(values) if values else logits.sum() * 0


def pair_separation(text_features: Tensor, *, across: float = 0.5) -> Tensor:
    """Return the angular separation within labels and across them, in [-1, 1], smaller being farther apart.

    (1 - across) x the mean cosine between a label's two prompts + across x the mean of the angular separation among the
    positive prompts of all labels and among the negative ones.

    Args:
        text_features: unit vectors, the negative prompt first, (L, 2, D).
        across: from 0 to 1. A single label has nothing across, so that its cosine stands alone.

    Raises:
        InputError: another shape, rows that are not of unit length, or `across` out of range.
    """
    if not 0 <= across <= 1:
        raise InputError(f"Angular separation with across {across:g}: expected from 0 to 1.")
    return _pairwise(angular_separation, text_features, across)


def pair_orthogonality(text_features: Tensor, *, across: float = 0.5) -> Tensor:
    """Return O-TPT's term, weighted within labels and across them as `pair_separation` is; at least 0."""
    if not 0 <= across <= 1:
        raise InputError(f"Orthogonality with across {across:g}: expected from 0 to 1.")
    return _pairwise(orthogonality, text_features, across)


def _pairwise(term: Callable[[Tensor], Tensor], text_features: Tensor, across: float) -> Tensor:
    if text_features.ndim != 3 or text_features.shape[1] != 2 or not len(text_features):
        raise InputError(
            f"Text features of shape {tuple(text_features.shape)}: expected (L, 2, D), a label's negative prompt first."
        )
    pairs = [term(pair) for pair in text_features]
    within = sum(pairs[1:], pairs[0]) / len(pairs)
    if len(text_features) == 1:
        return within
    return (1 - across) * within + across * (term(text_features[:, 0]) + term(text_features[:, 1])) / 2


def _known(logits: Tensor, labels: Tensor) -> Tensor:
    if logits.ndim != 3 or logits.shape[2] != 2 or logits.shape[:2] != labels.shape:
        raise InputError(
            f"Logits of shape {tuple(logits.shape)} and labels {tuple(labels.shape)}: expected (N, L, 2), a label's "
            "negative prompt first, and (N, L)."
        )
    return ~labels.isnan() if labels.is_floating_point() else labels >= 0


def _same_shape(logits: Tensor, other: Tensor) -> Tensor:
    if other.shape != logits.shape:
        raise InputError(f"Zero-shot logits of shape {tuple(other.shape)} for logits of {tuple(logits.shape)}.")
    return other
