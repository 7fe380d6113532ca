"""A linear probe: logistic regression per label on embeddings, its strength chosen by cross-validation over groups.

The penalty acts on standardised vectors; the weights that come out are for the vectors as they were. All labels, folds
and strengths are solved together (see `logistic`), which takes seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.pairwise import Space
from medvlm_probe.tuning.heads import LinearHead, in_space
from medvlm_probe.tuning.logistic import Rotated, rotate, solve
from medvlm_probe.types import BoolArray, FloatArray, IntArray, finite_or_none

STRENGTHS: tuple[float, ...] = tuple(float(f"{value:.3g}") for value in np.logspace(-5, 1, 13))
"""Inverse penalties that are tried (scikit-learn's C), for standardised vectors: two a decade."""

N_FOLDS = 5
MIN_GROUPS = 2
"""With fewer groups of positives, or of negatives, nothing can be held out: the label keeps its prevalence."""

_PATH_TOLERANCE, _FINAL_TOLERANCE = 3e-5, 1e-9
_RISES = 2

How = Literal["cross-validated", "shared", "constant"]


@dataclass(frozen=True)
class LabelFit:
    """How one label was fitted.

    Attributes:
        label: its name.
        how: `cross-validated`: the strength is the one with the least held-out loss of this label. `shared`: it has
            fewer groups of positives or of negatives than there are folds, and takes the middle one of the others'
            strengths (the strongest penalty where there are no others). `constant`: it has fewer than `MIN_GROUPS` of
            either; every image gets its prevalence.
        strength: the inverse penalty; NaN for `constant`.
        n_positive, n_negative, n_unknown: training images; unknown ones were left out for this label alone.
        n_groups_positive, n_groups_negative: groups with such an image.
        held_out_loss: mean logistic loss (nats) on held-out images at that strength; NaN for `constant`.
        prior_loss: the loss of saying the training prevalence for every image, which is the one to beat.
        at_edge: the strength is the smallest or the largest that was tried.
    """

    label: str
    how: How
    strength: float
    n_positive: int
    n_negative: int
    n_unknown: int
    n_groups_positive: int
    n_groups_negative: int
    held_out_loss: float
    prior_loss: float
    at_edge: bool

    def to_json(self) -> dict[str, Any]:
        """Return the fields that JSON files carry; undefined numbers are None."""
        return {
            "label": self.label,
            "how": self.how,
            "strength": finite_or_none(self.strength),
            "n_positive": self.n_positive,
            "n_negative": self.n_negative,
            "n_unknown": self.n_unknown,
            "n_groups_positive": self.n_groups_positive,
            "n_groups_negative": self.n_groups_negative,
            "held_out_loss": finite_or_none(self.held_out_loss),
            "prior_loss": finite_or_none(self.prior_loss),
            "at_edge": self.at_edge,
        }


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """What `fit_linear_probe` found.

    Attributes:
        head: weights for embeddings as the model gives them.
        fits: one for each label.
        strengths: those tried, ascending, (S,).
        held_out_loss: mean held-out loss at each, (L, S); NaN for constant labels, and beyond the strength at which a
            label's loss had risen twice in a row.
        out_of_fold: logits of the training images by the probes that had not seen their groups, (n, L). Thresholds may
            be chosen on them where no other split is to be had.
    """

    head: LinearHead
    fits: tuple[LabelFit, ...]
    strengths: tuple[float, ...]
    held_out_loss: NDArray[np.float64]
    out_of_fold: NDArray[np.float64]


@dataclass(frozen=True)
class _Standardised:
    """Vectors with mean 0 and deviation 1 in each dimension that varies, and how they became so."""

    rotated: Rotated
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    def unstandardised(self, solution: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return weights (L, D) and biases (L,) for the vectors as they were."""
        weights, biases = self.rotated.coefficients(solution)
        weights = weights / self.deviation
        return weights, biases - weights @ self.mean


def fit_linear_probe(
    embeddings: FloatArray,
    targets: ArrayLike,
    groups: IntArray,
    labels: Sequence[str],
    *,
    space: Space = "l2",
    strengths: Sequence[float] = STRENGTHS,
    n_folds: int = N_FOLDS,
    seed: int = 0,
    model_fingerprint: str = "",
) -> LinearProbe:
    """Return a logistic regression for each label, with an L2 penalty on everything but the intercept.

    The strength of each label is the one with the least logistic loss on held-out groups, pooled over the folds. A
    label has folds of its own, over which its positive groups are spread evenly. Standardisation is fixed on the
    training images; it knows no labels.

    Args:
        embeddings: (n, D), as the model gives them.
        targets: 1, 0 or NaN (not known, left out for that label), (n, L).
        groups: the independently sampled group of each image, (n,); no group is in training and held out at once.
        labels: L names.
        space: fit on normalised vectors (l2) or raw ones.
        strengths: inverse penalties to try, above 0.
        n_folds: at least 2.
        seed: of the folds; equal seeds and threads give equal bytes.
        model_fingerprint: kept with the head.

    Raises:
        InputError: shapes or values that do not fit.
    """
    vectors, y, codes = _checked(embeddings, targets, groups, labels, n_folds)
    tried = _checked_strengths(strengths)
    standardised = _standardise(in_space(vectors, space))
    known = ~np.isnan(y)
    counts = {True: _group_counts(y == 1, codes), False: _group_counts(y == 0, codes)}
    fewest = np.minimum(counts[True], counts[False])
    fitted, own = np.flatnonzero(fewest >= MIN_GROUPS), fewest >= n_folds
    losses = np.full((len(labels), len(tried)), np.nan)
    prior = _prior_logits(y, known)
    weight, bias = np.zeros((len(labels), vectors.shape[1])), prior.copy()
    out_of_fold = np.broadcast_to(prior, y.shape).copy()
    chosen = np.zeros(len(labels), dtype=np.int64)
    if len(fitted):
        single = standardised.rotated.in_single_precision()
        path = _fit_path(single, y[:, fitted], codes, own[fitted], tried, n_folds, seed)
        losses[fitted] = path.losses
        chosen = _choose(losses, own)
        solution, _ = solve(
            standardised.rotated,
            y[:, fitted] == 1,
            known[:, fitted],
            tried[chosen[fitted]],
            path.solutions[chosen[fitted], :, np.arange(len(fitted))].T,
            tolerance=_FINAL_TOLERANCE,
        )
        weight[fitted], bias[fitted] = standardised.unstandardised(solution)
        out_of_fold[:, fitted] = path.out_of_fold[chosen[fitted], :, np.arange(len(fitted))].T
    fits = []
    for k, label in enumerate(labels):
        how: How = "cross-validated" if own[k] else "shared" if fewest[k] >= MIN_GROUPS else "constant"
        is_fitted = how != "constant"
        fits.append(
            LabelFit(
                label=label,
                how=how,
                strength=float(tried[chosen[k]]) if is_fitted else math.nan,
                n_positive=int((y[:, k] == 1).sum()),
                n_negative=int((y[:, k] == 0).sum()),
                n_unknown=int((~known[:, k]).sum()),
                n_groups_positive=int(counts[True][k]),
                n_groups_negative=int(counts[False][k]),
                held_out_loss=float(losses[k, chosen[k]]) if is_fitted else math.nan,
                prior_loss=_entropy(y[:, k]),
                at_edge=is_fitted and len(tried) > 1 and int(chosen[k]) in (0, len(tried) - 1),
            )
        )
    about = {"strengths_tried": tried.tolist(), "folds": n_folds, "seed": seed, "labels": [f.to_json() for f in fits]}
    head = LinearHead(tuple(labels), weight, bias, space, "linear_probe", model_fingerprint, about)
    return LinearProbe(head, tuple(fits), tuple(tried.tolist()), losses, out_of_fold)


@dataclass(frozen=True)
class _Path:
    """Held-out losses (F, S) of F labels at S strengths, mean solutions (S, r + 1, F), held-out logits (S, n, F).

    NaN where a label's path had ended.
    """

    losses: NDArray[np.float64]
    solutions: NDArray[np.float64]
    out_of_fold: NDArray[np.float64]


def _fit_path(
    rotated: Rotated,
    y: FloatArray,
    codes: IntArray,
    own: BoolArray,
    strengths: FloatArray,
    n_folds: int,
    seed: int,
) -> _Path:
    """Solve labels and folds together from strong penalties to weak ones, each from the solution before.

    A label that has a strength of its own, (F,), is done when its held-out loss has risen `_RISES` times in a row; the
    others go on as long as any such label does.
    """
    n, n_labels = y.shape
    known, positive = ~np.isnan(y), y == 1
    folds = np.empty((n, n_labels), dtype=np.int64)
    for k in range(n_labels):
        folds[:, k] = _folds(positive[:, k], codes, n_folds, seed + k)
    path = _Path(
        np.full((n_labels, len(strengths)), np.nan),
        np.full((len(strengths), len(rotated.spread) + 1, n_labels), np.nan),
        np.full((len(strengths), n, n_labels), np.nan),
    )
    going = np.arange(n_labels)
    solution = rotated.start(n_labels * n_folds)
    for s, strength in enumerate(strengths):
        # Columns run over labels, and within each over folds.
        in_training = known[:, going, None] & (folds[:, going, None] != np.arange(n_folds))
        solution, logits = solve(
            rotated,
            np.repeat(positive[:, going], n_folds, axis=1),
            in_training.reshape(n, -1),
            np.full(solution.shape[1], strength),
            solution,
            tolerance=_PATH_TOLERANCE,
        )
        by_label = solution.reshape(len(solution), len(going), n_folds)
        held_out = np.take_along_axis(logits.reshape(n, len(going), n_folds), folds[:, going, None], axis=2)[:, :, 0]
        path.solutions[s][:, going] = by_label.mean(axis=2)
        path.out_of_fold[s][:, going] = held_out
        loss = np.logaddexp(0, held_out) - positive[:, going] * held_out
        path.losses[going, s] = np.where(known[:, going], loss, 0.0).sum(axis=0) / known[:, going].sum(axis=0)
        rising = (np.diff(path.losses[going, max(s - _RISES, 0) : s + 1], axis=1) > 0).sum(axis=1) == _RISES
        on = ~(rising & own[going])
        if not (on & own[going]).any():
            break
        going, solution = going[on], by_label[:, on].reshape(len(solution), -1)
    return path


def _folds(positive: BoolArray, codes: IntArray, n_folds: int, seed: int) -> NDArray[np.int64]:
    """Return each image's fold (n,): groups with a positive are dealt out in a seeded order, then the rest."""
    has_positive = np.bincount(codes, weights=positive) > 0
    order = np.random.default_rng(seed).permutation(len(has_positive))
    dealt = np.concatenate([order[has_positive[order]], order[~has_positive[order]]])
    fold = np.empty(len(dealt), dtype=np.int64)
    fold[dealt] = np.arange(len(dealt)) % n_folds
    return fold[codes]


def _choose(losses: NDArray[np.float64], own: BoolArray) -> NDArray[np.int64]:
    """Return each label's place in the strengths, (L,): its own best, or the middle one of those (the lower of two)."""
    chosen = np.zeros(len(losses), dtype=np.int64)
    if own.any():
        chosen[own] = np.nanargmin(losses[own], axis=1)
        chosen[~own] = np.sort(chosen[own])[(int(own.sum()) - 1) // 2]
    return chosen


def _standardise(vectors: NDArray[np.float64]) -> _Standardised:
    mean, deviation = vectors.mean(axis=0), vectors.std(axis=0)
    varies = deviation > 1e-9 * max(float(deviation.max()), np.finfo(float).tiny)
    deviation = np.where(varies, deviation, np.inf)
    return _Standardised(rotate((vectors - mean) / deviation), mean, deviation)


def _group_counts(has: BoolArray, codes: IntArray) -> NDArray[np.int64]:
    """Return how many groups have an image with each label, (L,), of (n, L)."""
    return np.array([len(np.unique(codes[column])) for column in has.T], dtype=np.int64)


def _prior_logits(y: FloatArray, known: BoolArray) -> NDArray[np.float64]:
    """Return the log odds of each label's prevalence, half an image added to either side so that it is finite, (L,)."""
    positive = (y == 1).sum(axis=0)
    return np.asarray(np.log((positive + 0.5) / (known.sum(axis=0) - positive + 0.5)))


def _entropy(label: FloatArray) -> float:
    known = label[~np.isnan(label)]
    p = float(known.mean()) if len(known) else math.nan
    return -sum(q * math.log(q) for q in (p, 1 - p) if q > 0) if not math.isnan(p) else math.nan


def _checked(
    embeddings: FloatArray, targets: ArrayLike, groups: IntArray, labels: Sequence[str], n_folds: int
) -> tuple[FloatArray, NDArray[np.float64], NDArray[np.int64]]:
    x, y, g = np.asarray(embeddings), np.asarray(targets, dtype=np.float64), np.asarray(groups)
    if x.ndim != 2 or y.shape != (len(x), len(labels)) or g.shape != (len(x),) or not len(x) or not len(labels):
        raise InputError(
            f"Embeddings of shape {x.shape}, targets {y.shape}, groups {g.shape} and {len(labels)} labels: expected "
            "(n, D), (n, L), (n,) and L, none empty."
        )
    if not np.isfinite(x).all():
        raise InputError("Embeddings hold NaN or infinity; leave those images out.")
    if not ((y == 0) | (y == 1) | np.isnan(y)).all():
        raise InputError("Targets must be 1, 0 or NaN (not known); apply the uncertainty policy to -1 first.")
    if n_folds < 2:
        raise InputError(f"{n_folds} folds: at least 2 are needed to hold anything out.")
    return x, y, np.unique(g, return_inverse=True)[1].astype(np.int64)


def _checked_strengths(strengths: Sequence[float]) -> NDArray[np.float64]:
    tried = np.unique(np.asarray(strengths, dtype=np.float64))
    if not len(tried) or not np.isfinite(tried).all() or tried[0] <= 0:
        raise InputError(f"Strengths {list(strengths)}: expected at least one finite number above 0.")
    return tried
