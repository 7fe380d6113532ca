"""Do images look like children's: an age probe on embeddings, learnt where ages are given, asked where they are not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medvlm_probe.audit.differences import difference
from medvlm_probe.audit.inputs import FEWEST_PEOPLE, people
from medvlm_probe.errors import InputError
from medvlm_probe.metrics.classification import label_performance
from medvlm_probe.metrics.proportions import proportion
from medvlm_probe.tuning.heads import LinearHead
from medvlm_probe.tuning.linear_probe import fit_linear_probe
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray

CHILD_YEARS = 18.0
PASSING = 0.95
LEAST_AUROC = 0.7


@dataclass(frozen=True, eq=False)
class AgeProbe:
    """Tells children's images from adults'.

    Attributes:
        head: from vectors to a logit, higher for children.
        threshold: that 95 % of held-out adults' images lie below.
        auroc: on held-out patients of the cohort that it was learnt on.
    """

    head: LinearHead
    threshold: float
    auroc: Estimate

    def childlike(self, vectors: FloatArray) -> BoolArray:
        """Return which images (n, D) lie above the threshold, (n,)."""
        return np.asarray(self.head.logits(vectors)[:, 0] > self.threshold)


def fit_age_probe(vectors: FloatArray, ages: FloatArray, groups: IntArray) -> AgeProbe:
    """Fit the probe by cross-validation over patients.

    Args:
        vectors: before normalisation, (n, D).
        ages: in years, NaN where not known (left out), (n,).
        groups: patients, (n,).

    Raises:
        InputError: fewer than ten children or ten adults, or children that the embedding does not tell from adults.
    """
    known = np.isfinite(ages)
    child, own, rows = ages[known] < CHILD_YEARS, groups[known], np.asarray(vectors)[known]
    if min(people(own[child]), people(own[~child])) < FEWEST_PEOPLE:
        raise InputError("An age probe needs ten patients under 18 and ten others whose age is given.")
    found = fit_linear_probe(rows, child[:, None].astype(np.float64), own, ["child"], strengths=(1e-4, 1e-3, 1e-2))
    (measured,) = label_performance(child[:, None].astype(np.float64), found.out_of_fold, own, label_names=["child"])
    if not measured.auroc.low > LEAST_AUROC:
        raise InputError("The model's embedding does not tell children from adults well enough for an age probe.")
    threshold = float(np.quantile(found.out_of_fold[~child, 0], PASSING, method="inverted_cdf"))
    return AgeProbe(found.head, threshold, measured.auroc)


@dataclass(frozen=True)
class Childlike:
    """Shares of images that the probe takes for children's, and their difference; 5 % of adults' images are too."""

    site: Estimate
    reference: Estimate
    more: Estimate
    auroc: Estimate


def compare_ages(
    probe: AgeProbe,
    reference: tuple[FloatArray, IntArray],
    site: tuple[FloatArray, IntArray],
) -> Childlike:
    """Return how many images look like children's on both sides; each is vectors (n, D) and patients (n,)."""
    shares = [proportion(probe.childlike(vectors), groups) for vectors, groups in (site, reference)]
    return Childlike(shares[0], shares[1], difference(shares[0], shares[1]), probe.auroc)
