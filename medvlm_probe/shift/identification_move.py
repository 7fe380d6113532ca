"""How frequent a label is at a site whose images look different: its scores may move as far as other directions did.

A change of appearance moves the scores of a label too, and without any assumption a move of the scores and a change of
prevalence cannot be told apart. The assumption here: a change of appearance has no liking for the label's direction. It
moves images along it about as far as along the directions across it, where prevalence moves nothing and so the move is
seen; and it moves images with and without the label nearly alike. What the scores show beyond that, by their mean and
by their shape (two well separated humps tell their shares wherever they lie), is prevalence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize, special, stats

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.intervals import group_folds
from medvlm_probe.shift.identification_parts import Discriminant, components, strata_of, whitening
from medvlm_probe.shift.mixture import group_sums
from medvlm_probe.types import BoolArray, FloatArray, IntArray

MOVE = 1.0
"""By how much a label's own direction may move (standard deviation), as a multiple of the others' root mean square: on
the safe side of .7, measured for 13 phantom findings under 16 acquisition transforms (finding by finding .2 to 1.2;
`analyses/label_direction_moves.py`)."""

GAP_CHANGE = 0.45
"""Relative change of the distance between the classes for a move of one standard deviation: root mean square in the
same study."""

STRETCH = 2.0
"""By how much each class may be stretched along the label's direction otherwise than the others are on average, as a
multiple of how much those differ: root mean square in the same study."""

MISFIT = 0.25
"""What the assumption is off does not average out over images: where classes overlap and the look moved far, scores
count as if at most (gap^2 / (this x move))^2 images had been seen, gap and move in standard deviations. Chosen so that
intervals hold for a hard label (AUROC .82) under strong looks, on draws that are not reported."""

BIN = 0.1
BANDWIDTH = 0.3
LEAST_DENSITY = 1e-7
STEP, MAX_STEPS, HALVINGS, TOLERANCE = 1e-4, 50, 8, 1e-5
_LIMIT = float(stats.norm.ppf(0.975))

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LookMove:
    """How far a site's images lie from the reference's, in directions across a label's.

    Attributes:
        deviation: root mean square over directions of the move of the mean less its noise, in standard deviations
            within classes; 0 is none.
        log_stretch: mean over directions of the log of the site's standard deviation over the reference's.
        stretch_deviation: how much that differs between directions, plus the noise of its mean.
    """

    deviation: float
    log_stretch: float
    stretch_deviation: float


def look_move(
    reference: FloatArray,
    site: FloatArray,
    positive: BoolArray,
    groups: IntArray,
    site_groups: IntArray,
    rng: np.random.Generator,
) -> LookMove:
    """Measure it on each half of the reference's groups, in directions found on the other half.

    Args:
        reference, site: embeddings, (n, d) and (m, d), which are normalised.
        positive: of the reference, (n,).
        groups, site_groups: (n,) and (m,).
        rng: deals groups to halves.

    Raises:
        InputError: fewer than three directions in which embeddings vary.
    """
    half = group_folds(groups, 2, rng, strata=strata_of(positive, groups))
    measured = []
    for fold in (0, 1):
        found, held = half != fold, half == fold
        parts = components(reference[found], np.concatenate([reference[held], site]))
        root, gap = whitening(parts.reference, positive[found])
        if len(gap) < 3:
            raise InputError(f"Embeddings vary in {len(gap)} directions only: expected at least 3.")
        across = parts.site @ (np.linalg.svd(gap[None])[2][1:] @ root).T
        own, other = across[: held.sum()], across[held.sum() :]
        (mean, noise), (site_mean, site_noise) = _mean_and_noise(own, groups[held]), _mean_and_noise(other, site_groups)
        square, square_noise = _mean_and_noise((own - mean) ** 2, groups[held])
        site_square, site_square_noise = _mean_and_noise((other - site_mean) ** 2, site_groups)
        stretches = np.log(site_square / square) / 2
        stretch_noise = float((square_noise / square**2 + site_square_noise / site_square**2).mean()) / 4
        measured.append(
            (
                float(((site_mean - mean) ** 2 - noise - site_noise).mean()),
                float(stretches.mean()),
                max(float(stretches.var(ddof=1)) - stretch_noise, 0.0) + stretch_noise / len(stretches),
            )
        )
    move, stretch, spread = np.mean(measured, axis=0)
    return LookMove(math.sqrt(max(move, 0.0)), float(stretch), math.sqrt(spread))


def _mean_and_noise(values: Array, groups: IntArray) -> tuple[Array, Array]:
    """Return each column's mean, and its variance over groups."""
    mean = values.mean(axis=0)
    return mean, np.asarray((group_sums(values - mean, groups) ** 2).sum(axis=0) / len(values) ** 2)


@dataclass(frozen=True)
class MovedPrevalence:
    """A site's prevalence with its 95 % interval, and the p-value of its being the reference's share.

    `separation` is the distance of the classes' mean scores at the reference, in standard deviations within classes.
    """

    value: float
    low: float
    high: float
    p_value: float
    separation: float


def prevalence_despite_move(
    positive: BoolArray,
    scores: Discriminant,
    move: LookMove,
    *,
    reference_error: float,
    difference_error: float,
    design_effect: float,
) -> MovedPrevalence:
    """Fit the site's scores by a mixture of the reference's two classes that moved, parted and stretched a little.

    The likelihood is penalised by how far move, parting and stretch lie from what other directions showed, and
    profiled over prevalence.

    Args:
        positive: of the reference's images, (n,).
        scores: held-out log odds of both sides.
        move: of the images across the label's direction.
        reference_error: standard error that the reference's groups give the site's prevalence.
        difference_error: the same of its difference from the reference's share.
        design_effect: by which images of a group carry less than as many groups would; divides the likelihood.

    Source: random-effects likelihood with nuisance parameters profiled, as in Pawitan 2001, chapter 17.
    """
    share = float(positive.mean())
    means = [float(scores.reference[kind].mean()) for kind in (positive, ~positive)]
    unit = float((scores.reference - np.where(positive, *means)).std())
    own, other = scores.reference / unit, scores.site_by_fold / unit
    mean, mean_without = means[0] / unit, means[1] / unit
    gap = mean - mean_without
    low, high = min(own.min(), other.min()) - 1, max(own.max(), other.max()) + 1
    edges = np.linspace(low, high, int(np.clip((high - low) / BIN, 100, 2000)) + 1)
    at, width = (edges[1:] + edges[:-1]) / 2, float(edges[1] - edges[0])

    def smooth(values: Array) -> Array:
        # Both sides are smoothed alike, so that the smoothing cancels.
        counts = np.histogram(values, edges)[0].astype(np.float64)
        return np.asarray(ndimage.gaussian_filter1d(counts, BANDWIDTH / width, mode="constant"))

    present, absent = (smooth(own[kind]) / kind.sum() / width for kind in (positive, ~positive))
    n_independent = other.shape[1] / design_effect
    inflation = 1 + n_independent * (MISFIT * move.deviation / max(gap**2, 1e-9)) ** 2
    site = smooth(other.ravel()) / len(other) / design_effect / inflation
    reach = MOVE * move.deviation
    parting = GAP_CHANGE * move.deviation * gap

    def density(z: Array) -> Array:
        """Of the site's scores; z is move, parting and both classes' stretch in prior deviations, and the log odds."""
        moved, apart = reach * z[0], parting * z[1]
        wider, wider_without = np.exp(move.log_stretch + STRETCH * move.stretch_deviation * z[2:4])
        with_it = np.interp((at - mean - moved - (1 - share) * apart) / wider + mean, at, present) / wider
        without = (at - mean_without - moved + share * apart) / wider_without + mean_without
        prevalence = special.expit(z[4])
        mixed = prevalence * with_it + (1 - prevalence) * np.interp(without, at, absent) / wider_without
        return np.asarray(np.maximum(mixed, LEAST_DENSITY))

    excess = (float(other.mean()) - float(own.mean())) / max(reach, 1e-9)
    starts = (np.array([begin, 0.0, 0.0, 0.0, special.logit(share)]) for begin in (0.0, excess))
    least, best = min((_fit(density, site, start) for start in starts), key=lambda fit: fit[0])
    value = float(np.clip(special.expit(best[-1]), 1e-6, 1 - 1e-6))

    def root_deviance(prevalence: float) -> float:
        at_it = _fit(density, site, np.append(best[:-1], special.logit(prevalence)), fixed=True)[0]
        return math.sqrt(max(2 * (at_it - least), 0.0))

    def root_deviance_beside(prevalence: float, error: float) -> float:
        """As if the root were linear, with one more error that is independent of the site's."""
        root, away = root_deviance(prevalence), abs(prevalence - value)
        return away / math.hypot(away / root, error) if root > 0 and away > 0 else 0.0

    low, high = (_bound(lambda p: root_deviance_beside(p, reference_error), value, end) for end in (0.001, 0.999))
    p_value = float(2 * stats.norm.sf(root_deviance_beside(share, difference_error)))
    return MovedPrevalence(value, min(low, value), max(high, value), p_value, gap)


def _fit(density: Callable[[Array], Array], counts: Array, start: Array, *, fixed: bool = False) -> tuple[float, Array]:
    """Return the least penalised negative log likelihood, and where it is; `fixed` keeps the last parameter.

    Scoring steps, halved until they descend; all parameters but the last have a standard normal penalty.
    """
    n_free = len(start) - fixed
    penalised = np.append(np.ones(len(start) - 1), 0.0)

    def loss(z: Array, values: Array) -> float:
        return 0.5 * float(penalised @ z**2) - float(counts @ np.log(values))

    z, values = start, density(start)
    least = loss(z, values)
    for _ in range(MAX_STEPS):
        slopes = np.stack([density(z + STEP * unit) for unit in np.eye(len(start))[:n_free]], axis=1)
        slopes = (slopes / values[:, None] - 1) / STEP
        gradient = (penalised * z)[:n_free] - slopes.T @ counts
        curvature = np.diag(np.maximum(penalised[:n_free], 1e-6)) + slopes.T @ (counts[:, None] * slopes)
        step = np.zeros(len(start))
        step[:n_free] = np.linalg.solve(curvature, gradient)
        step /= max(1.0, float(np.abs(step).max()) / 2)
        for _ in range(HALVINGS):
            trial = z - step
            trial_values = density(trial)
            found = loss(trial, trial_values)
            if found < least:
                break
            step = step / 2
        else:
            break
        gain, z, values, least = least - found, trial, trial_values, found
        if gain < TOLERANCE:
            break
    return least, z


def _bound(root_deviance: Callable[[float], float], value: float, end: float) -> float:
    """Return where the root of the deviance, nearly linear in the prevalence, passes the 97.5 % normal quantile."""
    beyond = value <= end if end < 0.5 else value >= end
    if beyond or root_deviance(end) <= _LIMIT:
        return end
    return float(optimize.brentq(lambda p: root_deviance(p) - _LIMIT, value, end, xtol=1e-3))
