"""The classifier two-sample test: can a classifier tell from held-out images which sample they are from?

Source: Lopez-Paz and Oquab 2017, "Revisiting classifier two-sample tests"; Kim, Ramdas, Singh and Wasserman 2021
(linear discriminants and their permutation).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.shift.auroc_between import auroc_estimate, fold_auroc
from medvlm_probe.shift.linear_scores import LinearScores
from medvlm_probe.shift.two_samples import (
    PERMUTATIONS_AT_ONCE,
    ShiftTest,
    SitePermutations,
    TwoSamples,
    against_null,
)
from medvlm_probe.types import BoolArray, FloatArray, IntArray

_NUMBERS_AT_ONCE = 1 << 22


def classifier_test(samples: TwoSamples, permutations: SitePermutations, rng: np.random.Generator) -> ShiftTest:
    """Test by the AUROC of a linear discriminant, cross-fitted over five folds of patients.

    The effect is that AUROC: .5 cannot be told apart, 1 always. Each patient counts once, and pairs are of one fold.
    Every permutation fits the discriminants anew; those of the data alone would not do, as each fold's classifier has
    seen the others' labels. The interval is wider than that of given classifiers by as much as the permutations vary
    more.

    Args:
        samples: both samples.
        permutations: of their groups.
        rng: deals groups to folds.
    """
    scorer = LinearScores.of(samples.points.centred, samples.groups, rng)
    folds = scorer.fold_of_group[samples.groups]
    positive, weights = samples.image_of_site, samples.weights
    scores = scorer.held_out(samples.of_site[None])[0]
    auroc = fold_auroc(positive, scores, samples.groups, folds, weights)
    (observed,) = _pooled_aurocs(scorer, folds, weights, samples.of_site[None])
    size = max(1, min(PERMUTATIONS_AT_ONCE, _NUMBERS_AT_ONCE // len(folds)))
    blocks = (_pooled_aurocs(scorer, folds, weights, masks) for masks in permutations.blocks(size))
    null = against_null(observed, blocks)
    effect = auroc_estimate(
        auroc,
        positive,
        samples.groups,
        weights,
        method="AUROC on held-out groups, group jackknife",
        null_deviation=float(np.nanstd(null.values)),
    )
    settings = f"linear discriminant, {scorer.n_folds} folds"
    return ShiftTest(auroc.value, effect, null.p_value, null.quantiles, len(null.values), settings)


def _pooled_aurocs(
    scorer: LinearScores, folds: IntArray, weights: FloatArray, of_site: BoolArray
) -> NDArray[np.float64]:
    """Return the AUROC over the pairs within folds for b marks of groups (b, G), NaN where no fold has a pair, (b,)."""
    scores = scorer.held_out(of_site)
    masks = of_site[:, scorer.groups]
    won, pairs = np.zeros((2, len(masks)))
    for fold in range(scorer.n_folds):
        rows = np.flatnonzero(folds == fold)
        more_won, more_pairs = _wins(scores[:, rows], masks[:, rows], weights[rows])
        won, pairs = won + more_won, pairs + more_pairs
    return np.where(pairs > 0, won / np.where(pairs > 0, pairs, 1.0), np.nan)


def _wins(
    scores: NDArray[np.float32], masks: BoolArray, weights: FloatArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the weight of pairs that the site's image wins, and of all pairs, (b,) each, for (b, m) scores and masks.

    Whole groups belong to one sample, so no pair is of one group. Ties, of copies, are broken by position, under a
    permutation as in the data: so the statistic in the data comes from here too.
    """
    order = np.argsort(scores, axis=1)
    of_site = np.take_along_axis(masks, order, axis=1)
    ordered = weights[order]
    site, reference = np.where(of_site, ordered, 0.0), np.where(of_site, 0.0, ordered)
    below = np.cumsum(reference, axis=1)
    return (site * below).sum(axis=1), site.sum(axis=1) * below[:, -1]
