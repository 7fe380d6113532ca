"""Two samples of patients with a known shift: p-values of every test, and how often intervals hold the truth.

`analyses/shift_type_one_error.py` runs the same at full size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import special, stats

from medvlm_probe.shift import shift_tests
from medvlm_probe.shift.fact_tests import FactTest, fact_tests
from medvlm_probe.types import Estimate, FloatArray, IntArray

Sample = tuple[FloatArray, FloatArray, IntArray, IntArray]


class Drawable(Protocol):
    """What two samples can be drawn from, over and over."""

    def draw(self, rng: np.random.Generator) -> Sample:
        """Return both samples' embeddings and their patients."""


@dataclass(frozen=True)
class Design:
    """Patients of both samples, and what the site's have more.

    Images of a patient share the part `correlation` of the variance. Patients have one to four images, or
    `site_images` each at the site. `mean` moves the site along a direction of unit variance; `mixture` is the share of
    its patients who come from a group 4 away; `spread` multiplies its deviations. Variances fall as (k + 1)^-decay.
    """

    reference: int = 45
    site: int = 30
    correlation: float = 0.6
    dimensions: int = 16
    decay: float = 1.0
    mean: float = 0.0
    mixture: float = 0.0
    spread: float = 1.0
    site_images: int = 0

    def draw(self, rng: np.random.Generator) -> Sample:
        """Return both samples' embeddings and their patients."""
        reference, first = self._patients(self.reference, 0, rng)
        site, second = self._patients(self.site, self.site_images, rng)
        site *= self.spread
        site[:, 0] += self.mean
        site[:, 1] += 4 * (rng.random(self.site) < self.mixture)[second]
        return reference, site, first, second + self.reference

    def _patients(self, n: int, images: int, rng: np.random.Generator) -> tuple[FloatArray, IntArray]:
        sizes = np.full(n, images) if images else rng.choice([1, 2, 3, 4], n, p=[0.4, 0.3, 0.2, 0.1])
        groups = np.repeat(np.arange(n), sizes)
        shared = rng.standard_normal((n, self.dimensions))[groups]
        own = rng.standard_normal((len(groups), self.dimensions))
        x = math.sqrt(self.correlation) * shared + math.sqrt(1 - self.correlation) * own
        return x * self.deviations, groups

    @property
    def deviations(self) -> FloatArray:
        """Standard deviations of the dimensions, (d,)."""
        return np.arange(1, self.dimensions + 1) ** (-self.decay / 2)

    def squared_mmd(self, bandwidth: float) -> float:
        """Return the true squared MMD of a mean shift or a spread, in closed form."""

        def mean_kernel(variances: FloatArray, away: float) -> float:
            widened = bandwidth**2 + variances
            return float(np.prod(bandwidth / np.sqrt(widened)) * math.exp(-(away**2) / (2 * widened[0])))

        own = self.deviations**2
        other = own * self.spread**2
        return mean_kernel(2 * own, 0) + mean_kernel(2 * other, 0) - 2 * mean_kernel(own + other, self.mean)

    def energy_distance(self) -> float:
        """Return the true energy distance where all dimensions vary alike."""
        d = self.dimensions

        def mean_distance(variance: float, away: float) -> float:
            scale = math.sqrt(2 * variance) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))
            return scale * float(special.hyp1f1(-0.5, d / 2, -(away**2) / (2 * variance)))

        wide = self.spread**2
        return 2 * mean_distance(1 + wide, self.mean) - mean_distance(2, 0) - mean_distance(2 * wide, 0)


@dataclass(frozen=True, eq=False)
class FromPools:
    """Patients of embedded images: the reference's from one pool, `share` of the site's from another one.

    Attributes:
        pool: vectors (n, d) and their patients (n,); no patient is drawn twice at once.
        elsewhere: the same of other patients.
        reference, site: patients drawn.
        share: of the site's patients that are from elsewhere.
    """

    pool: tuple[FloatArray, IntArray]
    elsewhere: tuple[FloatArray, IntArray]
    reference: int = 45
    site: int = 30
    share: float = 0.0

    def draw(self, rng: np.random.Generator) -> Sample:
        """Return both samples' embeddings and their patients."""
        moved = round(self.share * self.site)
        own = rng.permutation(np.unique(self.pool[1]))[: self.reference + self.site - moved]
        other = rng.permutation(np.unique(self.elsewhere[1]))[:moved]
        first, second, third = (
            np.flatnonzero(np.isin(groups, drawn))
            for groups, drawn in (
                (self.pool[1], own[: self.reference]),
                (self.pool[1], own[self.reference :]),
                (self.elsewhere[1], other),
            )
        )
        away = int(self.pool[1].max()) + 1
        return (
            self.pool[0][first],
            np.concatenate([self.pool[0][second], self.elsewhere[0][third]]),
            self.pool[1][first],
            np.concatenate([self.pool[1][second], self.elsewhere[1][third] + away]),
        )


def p_values(
    design: Drawable, tests: Sequence[str], n_simulations: int, rng: np.random.Generator, *, n_permutations: int = 199
) -> FloatArray:
    """Return each test's p-values, (n_simulations, T)."""
    found = np.empty((n_simulations, len(tests)))
    for k in range(n_simulations):
        report = shift_tests.test_shift(*design.draw(rng), tests=tests, n_permutations=n_permutations, rng=rng)
        found[k] = [test.p_value for test in report.tests]
    return found


@dataclass(frozen=True)
class Covered:
    """Share of intervals that hold the truth, the truth, and the median width."""

    share: float
    truth: float
    median_width: float


def covered(estimates: Sequence[Estimate], truths: FloatArray | float) -> Covered:
    """Return how often the intervals hold the truth."""
    low, high = np.array([[e.low, e.high] for e in estimates]).T
    truth = np.broadcast_to(truths, low.shape)
    return Covered(float(((low <= truth) & (truth <= high)).mean()), float(truth.mean()), float(np.median(high - low)))


def effect_coverage(design: Design, n_simulations: int, rng: np.random.Generator) -> dict[str, Covered]:
    """Return how often the effects' intervals hold the truth.

    For MMD and energy distance that is known in closed form (with `decay` 0). For AUROC and Fréchet distance it is
    their mean over the simulations: what is to be expected at this size.
    """
    tests = ("mmd", "energy", "mmd_linear", "classifier", "frechet")
    effects: dict[str, list[Estimate]] = {name: [] for name in tests}
    mmd: list[float] = []
    for _ in range(n_simulations):
        report = shift_tests.test_shift(*design.draw(rng), tests=tests, n_permutations=99, space="raw", rng=rng)
        for test in report.tests:
            effects[test.test].append(test.effect)
        mmd.append(design.squared_mmd(float(report.tests[0].settings.split()[-1])))
    truths: dict[str, FloatArray | float] = {
        name: float(np.mean([e.value for e in effects[name]])) for name in ("classifier", "frechet")
    }
    truths |= {"mmd": np.array(mmd), "mmd_linear": np.array(mmd), "energy": design.energy_distance()}
    return {name: covered(effects[name], truths[name]) for name in tests}


def fact_results(
    shift: float, n_simulations: int, rng: np.random.Generator, *, patients: tuple[int, int] = (60, 40)
) -> list[tuple[FactTest, FactTest]]:
    """Return tests of a category of three and of a number, both alike within patients.

    The first category's share falls by a quarter of the shift, the number's mean rises by the shift.
    """
    results = []
    for _ in range(n_simulations):
        columns = []
        groups = []
        for side, n in enumerate(patients):
            groups.append(np.repeat(np.arange(n), rng.choice([1, 2, 3], n)) + side * 1000)
            own = groups[-1] - side * 1000
            fixed, free = rng.standard_normal((n, 2))[own], rng.standard_normal((len(own), 2))
            normal = math.sqrt(0.7) * fixed + math.sqrt(0.3) * free + np.array([0.0, side * shift])
            bounds = stats.norm.ppf(np.cumsum(fact_shares(side * shift))[:2])
            columns.append((np.array(["ap", "pa", "ll"])[np.searchsorted(bounds, normal[:, 0])], normal[:, 1]))
        (first, number), (second, other) = columns
        results.append(
            fact_tests({"view": (first, second)}, {"age": (number, other)}, *groups, n_permutations=199, rng=rng)
        )
    return results


def fact_shares(shift: float) -> FloatArray:
    """Return the shares of the three categories."""
    return np.array([0.5 - shift / 4, 0.3 + shift / 4, 0.2])


def fact_truths(shift: float, patients: tuple[int, int] = (60, 40)) -> dict[str, float]:
    """Return Cramér's V, the Kolmogorov-Smirnov distance and the standardised difference behind `fact_results`."""
    share = patients[1] / sum(patients)
    first, second = fact_shares(0), fact_shares(shift)
    overall = (1 - share) * first + share * second
    squared = share * (1 - share) * float(((second - first) ** 2 / overall).sum())
    return {"cramers_v": math.sqrt(squared), "ks": 2 * stats.norm.cdf(abs(shift) / 2) - 1, "difference": shift}


def fact_coverage(shift: float, n_simulations: int, rng: np.random.Generator) -> dict[str, Covered]:
    """Return the coverage of the facts' effects."""
    results = fact_results(shift, n_simulations, rng)
    truths = fact_truths(shift)
    estimates = {
        "cramers_v": [view.effect for view, _ in results],
        "ks": [age.effect for _, age in results],
        "difference": [age.difference for _, age in results],
    }
    return {name: covered(estimates[name], truths[name]) for name in estimates}
