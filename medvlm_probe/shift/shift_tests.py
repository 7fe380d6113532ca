"""Has the data moved? Every two-sample test of a site against a reference, with shared permutations and Holm."""

# ruff: noqa: PT028 - `test_shift` tests data; pytest does not collect it from here.

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from medvlm_probe.errors import unknown_name
from medvlm_probe.metrics.pairwise import Space
from medvlm_probe.metrics.permutation import holm
from medvlm_probe.shift.classifier_test import classifier_test
from medvlm_probe.shift.direction_tests import direction_test
from medvlm_probe.shift.energy import energy_test
from medvlm_probe.shift.frechet import frechet_test
from medvlm_probe.shift.mmd import feature_mmd_test, linear_mmd_test, mmd_test
from medvlm_probe.shift.two_samples import ShiftTest, SitePermutations, TwoSamples, site_permutations, two_samples
from medvlm_probe.types import Estimate, finite_or_none

TwoSampleTest = Callable[[TwoSamples, SitePermutations, np.random.Generator], ShiftTest]

TESTS: dict[str, TwoSampleTest] = {
    "mmd": mmd_test,
    "classifier": classifier_test,
    "energy": energy_test,
    "frechet": frechet_test,
    "directions": direction_test,
    "mmd_features": feature_mmd_test,
    "mmd_linear": linear_mmd_test,
}
"""Every test by name; each reads both samples and the shared permutations."""

DEFAULT_TESTS = ("mmd", "classifier", "energy", "frechet", "directions")
N_PERMUTATIONS = 9_999

MANY_GROUPS = 50_000
PERMUTATIONS_OF_MANY = 999
"""With more than `MANY_GROUPS` patients in both samples no test draws more permutations than this: 9,999 take an hour,
and at such sizes a p-value says little beside the effect and its interval."""


@dataclass(frozen=True)
class ShiftResult:
    """One test of a family.

    Attributes:
        test: its name in `TESTS`.
        statistic: larger is further apart.
        effect: what is to be read: squared MMD, AUROC, energy distance, Fréchet distance beyond its null, or
            Kolmogorov-Smirnov distance.
        p_value, p_adjusted: before and after Holm over the family.
        null: 5 %, 50 % and 95 % quantiles of the permuted statistic.
        n_permutations: drawn until the p-value was settled.
        settings: what else the numbers rest on.
        seconds: of wall time.
    """

    test: str
    statistic: float
    effect: Estimate
    p_value: float
    p_adjusted: float
    null: tuple[float, float, float]
    n_permutations: int
    settings: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; undefined numbers are None."""
        numbers = {name: finite_or_none(getattr(self, name)) for name in ("statistic", "p_value", "p_adjusted")}
        return {
            "test": self.test,
            **numbers,
            "effect": self.effect.to_json(),
            "null": [finite_or_none(value) for value in self.null],
            "n_permutations": self.n_permutations,
            "settings": self.settings,
        }


@dataclass(frozen=True)
class ShiftReport:
    """The family of tests, and who took part.

    Attributes:
        tests: in the order asked for.
        n_images, n_groups: of the reference and of the site, without those left out.
        n_shared_groups: patients found in both samples, left out of both.
        n_left_out: their images.
    """

    tests: tuple[ShiftResult, ...]
    n_images: tuple[int, int]
    n_groups: tuple[int, int]
    n_shared_groups: int
    n_left_out: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "tests": [test.to_json() for test in self.tests],
            "n_images": list(self.n_images),
            "n_groups": list(self.n_groups),
            "n_shared_groups": self.n_shared_groups,
            "n_left_out": self.n_left_out,
        }


def test_shift(
    reference: ArrayLike,
    site: ArrayLike,
    reference_groups: ArrayLike | None = None,
    site_groups: ArrayLike | None = None,
    *,
    tests: Sequence[str] = DEFAULT_TESTS,
    n_permutations: int = N_PERMUTATIONS,
    space: Space = "l2",
    rng: np.random.Generator,
) -> ShiftReport:
    """Test whether a site's embeddings have the reference's distribution, patients being exchangeable if they have.

    All tests share one set of permutations of whole patients; Holm corrects for their number. Every patient counts
    once, however many images there are. A p-value says whether there is a shift at all; with thousands of images there
    nearly always is one, so read the effect and its interval.

    Args:
        reference: image vectors before normalisation, (n, d).
        site: the same of the other sample, (m, d).
        reference_groups: patients, (n,), any values; None makes each image its own.
        site_groups: patients, (m,). A patient who is in both samples is left out of both, and counted.
        tests: names in `TESTS`.
        n_permutations: B, at most 999 for more than 50,000 patients; a test stops sooner once its p-value is clearly
            large.
        space: `l2` or `raw`.
        rng: draws permutations, folds and features; the same seed gives the same report, whatever tests are asked for.

    Raises:
        UnknownNameError: a test that there is not.
        InputError: vectors or groups that do not fit, or fewer than three patients of a sample.
    """
    for name in tests:
        if name not in TESTS:
            raise unknown_name("shift test", name, TESTS)
    samples = two_samples(reference, site, reference_groups, site_groups, space=space)
    if len(samples.of_site) > MANY_GROUPS:
        n_permutations = min(n_permutations, PERMUTATIONS_OF_MANY)
    permutations = site_permutations(samples.of_site, n_permutations, rng)
    seed = int(rng.integers(2**63))
    found, seconds = [], []
    for name in tests:
        start = time.perf_counter()
        found.append(TESTS[name](samples, permutations, np.random.default_rng(seed)))
        seconds.append(time.perf_counter() - start)
    adjusted = holm(np.array([test.p_value for test in found]))
    n_site = int(samples.image_of_site.sum())
    return ShiftReport(
        tests=tuple(
            ShiftResult(name, t.statistic, t.effect, t.p_value, float(p), t.null, t.n_permutations, t.settings, taken)
            for name, t, p, taken in zip(tests, found, adjusted, seconds, strict=True)
        ),
        n_images=(len(samples.groups) - n_site, n_site),
        n_groups=samples.n_groups,
        n_shared_groups=samples.n_shared_groups,
        n_left_out=samples.n_left_out,
    )
