"""How well site, view, sex or age band can be read off the embedding, on held-out patients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.embedding_inputs import checked_embeddings, codes
from medvlm_probe.metrics.held_out_accuracy import probe_accuracy
from medvlm_probe.metrics.intervals import group_folds, jackknife_interval
from medvlm_probe.metrics.pairwise import Space, points_of
from medvlm_probe.shift.auroc_between import auroc_estimate, fold_auroc
from medvlm_probe.shift.fact_tests import categories
from medvlm_probe.shift.linear_scores import held_out_scores
from medvlm_probe.shift.two_samples import image_weights
from medvlm_probe.types import Estimate, FloatArray

N_FOLDS = 10
MIN_GROUPS = 10


@dataclass(frozen=True)
class NuisanceProbe:
    """How well one category can be told from all others of its fact.

    Attributes:
        fact, category: what was read off.
        n_images, n_groups: of the category; n_others: images of the fact's other categories.
        auroc: .5 where the embedding says nothing, each patient counting once.
        balanced_accuracy: mean of recall and specificity, .5 by chance.
    """

    fact: str
    category: str
    n_images: int
    n_groups: int
    n_others: int
    auroc: Estimate
    balanced_accuracy: Estimate

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; undefined numbers are None."""
        return {k: v.to_json() if isinstance(v, Estimate) else v for k, v in vars(self).items()}


def nuisance_probes(
    embeddings: ArrayLike,
    facts: Mapping[str, ArrayLike],
    groups: ArrayLike | None = None,
    *,
    space: Space = "l2",
    rng: np.random.Generator,
) -> tuple[NuisanceProbe, ...]:
    """Fit a linear discriminant of each category against its fact's others, and score it on patients it has not seen.

    A category needs ten patients, and so do the others of its fact; what has fewer is left out. Of two categories only
    the rarer is shown, the other's numbers being the same.

    Args:
        embeddings: image vectors before normalisation, (n, d).
        facts: name to categories (n,), as text; None, NaN and "" are unknown.
        groups: patients, (n,); None makes each image its own.
        space: `l2` or `raw`.
        rng: deals patients to folds.

    Raises:
        InputError: vectors, facts or groups that do not fit.
    """
    array = checked_embeddings(embeddings)
    n = len(array)
    order = np.argsort(codes(groups, n, "groups"), kind="stable")
    group = codes(groups, n, "groups")[order]
    wanted = [(fact, name, marks[order]) for fact, values in facts.items() for name, marks in _marks(fact, values, n)]
    kept = [
        (fact, name, marks)
        for fact, name, marks in wanted
        if min(len(np.unique(group[marks == side])) for side in (0, 1)) >= MIN_GROUPS
    ]
    if not kept:
        return ()
    vectors = points_of(array, space, order).centred
    labels = np.stack([marks for _, _, marks in kept], axis=1)
    folds = group_folds(group, N_FOLDS, rng)
    scores = held_out_scores(vectors, labels, image_weights(group), folds)
    accuracies = probe_accuracy(vectors, labels, folds)
    probes = []
    for k, (fact, name, marks) in enumerate(kept):
        known = ~np.isnan(marks)
        positive, own = marks[known] == 1, np.unique(group[known], return_inverse=True)[1]
        weights = image_weights(own)
        auroc = fold_auroc(positive, scores[known, k], own, folds[known], weights)
        n_groups = int(own.max()) + 1
        n_category = len(np.unique(own[positive]))
        accuracy = jackknife_interval(
            float(accuracies.value[k]),
            accuracies.without[:, k],
            n=int(known.sum()),
            n_groups=n_groups,
            n_scarce=min(n_category, len(np.unique(own[~positive]))),
            method="balanced accuracy on held-out groups, jackknife over folds of groups",
        )
        estimate = auroc_estimate(auroc, positive, own, weights, method="AUROC on held-out groups, group jackknife")
        probes.append(
            NuisanceProbe(
                fact, name, int(positive.sum()), n_category, int((~positive).sum()), estimate, _within_unit(accuracy)
            )
        )
    return tuple(probes)


def _within_unit(estimate: Estimate) -> Estimate:
    return replace(estimate, low=max(0.0, estimate.low), high=min(1.0, estimate.high))


def _marks(fact: str, values: ArrayLike, n: int) -> list[tuple[str, FloatArray]]:
    """Return each category with 1, 0 or NaN for each image, the rarest first; of two only the rarer."""
    column = np.asarray(values, dtype=object)
    if column.shape != (n,):
        raise InputError(f"Fact '{fact}' of shape {column.shape} does not fit {n} embeddings: expected ({n},).")
    text, known = categories(column)
    names, counts = np.unique(text[known], return_counts=True)
    ordered = names[np.argsort(counts, kind="stable")]
    shown = ordered[:1] if len(ordered) == 2 else ordered if len(ordered) > 2 else ordered[:0]
    return [(str(name), np.where(known, (text == name).astype(np.float64), np.nan)) for name in shown]
