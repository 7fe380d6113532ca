"""Do the facts of acquisition and of patients differ between a site and the reference? View, scanner, size, age ..."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.group_jackknife import class_jackknife
from medvlm_probe.metrics.permutation import holm
from medvlm_probe.shift.direction_tests import distance_estimate
from medvlm_probe.shift.distribution_distance import ROUNDING, SortedNumbers, signed_shares, uniform_reach
from medvlm_probe.shift.two_samples import MIN_GROUPS, against_null, joined_groups, mean_by_group, site_permutations
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray, finite_or_none

Columns = Mapping[str, tuple[ArrayLike, ArrayLike]]
"""A column's name to its values at the reference and at the site."""


@dataclass(frozen=True)
class FactTest:
    """How one column differs.

    Attributes:
        fact: the column.
        kind: `"categorical"` or `"numeric"`.
        n_known, n_unknown: images whose value is known, or not, of the reference and of the site.
        n_groups: patients with a known value, of both.
        effect: Cramér's V freed from its bias, or the Kolmogorov-Smirnov distance, in [0, 1]; NaN where a sample has
            fewer than three patients with a value.
        difference: mean of the site less that of the reference in standard deviations; NaN for categories.
        shares: category to its share at the reference and at the site, each patient counting once; empty for numbers.
        means: of the numbers at the reference and at the site; NaN for categories.
        p_value, p_adjusted: before and after Holm over all facts.
        n_permutations: drawn until the p-value was settled.
    """

    fact: str
    kind: str
    n_known: tuple[int, int]
    n_unknown: tuple[int, int]
    n_groups: tuple[int, int]
    effect: Estimate
    difference: Estimate
    shares: Mapping[str, tuple[float, float]]
    means: tuple[float, float]
    p_value: float
    p_adjusted: float
    n_permutations: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; undefined numbers are None."""
        found = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}
        return found | {
            "effect": self.effect.to_json(),
            "difference": self.difference.to_json(),
            "shares": {name: list(shares) for name, shares in self.shares.items()},
            "means": [finite_or_none(mean) for mean in self.means],
            "p_value": finite_or_none(self.p_value),
            "p_adjusted": finite_or_none(self.p_adjusted),
        }


def fact_tests(
    categorical: Columns,
    numeric: Columns,
    reference_groups: ArrayLike | None = None,
    site_groups: ArrayLike | None = None,
    *,
    n_permutations: int = 9_999,
    rng: np.random.Generator,
) -> tuple[FactTest, ...]:
    """Test each column by permuting whole patients; patients in both samples, and images without a value, stay out.

    Args:
        categorical: view, sex, scanner, bit depth ...; None, NaN and "" are unknown.
        numeric: width, age ...; NaN is unknown.
        reference_groups, site_groups: patients; None makes each image its own.
        n_permutations: B; a test stops sooner once its p-value is clearly large.
        rng: draws permutations and bootstrap samples, the same for every column.

    Raises:
        InputError: columns or groups that do not fit each other.
    """
    sizes = {
        name: tuple(len(np.asarray(side)) for side in sides) for name, sides in (*categorical.items(), *numeric.items())
    }
    if len(set(sizes.values())) > 1:
        raise InputError(f"Columns of different lengths (reference, site): {sizes}. Expected one value an image.")
    if not sizes:
        return ()
    n, m = next(iter(sizes.values()))
    codes, of_site, shared = joined_groups(reference_groups, site_groups, n, m)
    seed = int(rng.integers(2**63))
    found = []
    for kind, columns in (("categorical", categorical), ("numeric", numeric)):
        for name, sides in columns.items():
            values, known = _joined(sides) if kind == "categorical" else _numbers(name, sides)
            usable = known & ~shared[codes]
            rows = np.flatnonzero(usable)
            rows = rows[np.argsort(codes[rows], kind="stable")]
            used, groups = np.unique(codes[rows], return_inverse=True)
            counts = _counts(known, n), _counts(~known, n)
            test = _Column(kind, values[rows], groups, of_site[used], n_permutations, np.random.default_rng(seed))
            found.append(test.result(name, *counts))
    adjusted = holm(np.array([test.p_value for test in found]))
    return tuple(replace(test, p_adjusted=float(p)) for test, p in zip(found, adjusted, strict=True))


def categories(values: Iterable[Any]) -> tuple[NDArray[Any], BoolArray]:
    """Return values as text, and which are known: not None, NaN, pandas' NA or blank."""
    text = np.array([str(value).strip() for value in values], dtype=np.str_)
    return text, ~np.isin(text, ("", "None", "nan", "NaN", "<NA>"))


def _counts(mask: BoolArray, n: int) -> tuple[int, int]:
    return int(mask[:n].sum()), int(mask[n:].sum())


def _joined(sides: tuple[ArrayLike, ArrayLike]) -> tuple[NDArray[Any], BoolArray]:
    """Return the categories of both sides as text, and which are known."""
    return categories([value for side in sides for value in np.asarray(side, dtype=object).tolist()])


def _numbers(name: str, sides: tuple[ArrayLike, ArrayLike]) -> tuple[NDArray[Any], BoolArray]:
    try:
        values = np.concatenate([np.asarray(side, dtype=np.float64) for side in sides])
    except (TypeError, ValueError) as error:
        raise InputError(f"Column '{name}' holds what is no number: pass it as a categorical column.") from error
    return values, np.isfinite(values)


@dataclass(frozen=True, eq=False)
class _Column:
    """The known values of one column in group order."""

    kind: str
    values: NDArray[Any]
    groups: IntArray
    of_site: BoolArray
    n_permutations: int
    rng: np.random.Generator

    def result(self, name: str, n_known: tuple[int, int], n_unknown: tuple[int, int]) -> FactTest:
        at_site = int(self.of_site.sum())
        n_groups = (len(self.of_site) - at_site, at_site)
        nothing = Estimate(math.nan, math.nan, math.nan, len(self.values), sum(n_groups), "too few", reliable=False)
        empty = FactTest(
            name,
            self.kind,
            n_known,
            n_unknown,
            n_groups,
            nothing,
            nothing,
            {},
            (math.nan, math.nan),
            math.nan,
            math.nan,
            0,
        )
        if min(n_groups) < MIN_GROUPS:
            return empty
        return self._categories(empty) if self.kind == "categorical" else self._numeric(empty)

    def _categories(self, empty: FactTest) -> FactTest:
        names, category = np.unique(self.values, return_inverse=True)
        shares = np.asarray(mean_by_group(np.eye(len(names))[category], self.groups))
        overall = shares.mean(axis=0)
        share_of_site = float(self.of_site.mean())
        scaled = shares * np.sqrt(share_of_site * (1 - share_of_site) / overall)

        def squared(masks: BoolArray) -> NDArray[np.float64]:
            return np.asarray(((signed_shares(masks).astype(np.float64) @ scaled) ** 2).sum(axis=1))

        observed = float(squared(self.of_site[None])[0])
        permutations = site_permutations(self.of_site, self.n_permutations, self.rng)
        null = against_null(observed, (squared(masks) for masks in permutations.blocks()))
        bias = float(null.values.mean())
        squares = class_jackknife(
            observed - bias,
            _squared_v_without(shares, self.of_site) - bias,
            self.of_site,
            n=len(self.values),
            fewest=min(empty.n_groups),
            method="Cramér's V, group jackknife",
            offset=bias,
        )
        value, low, high = (math.sqrt(max(0.0, end)) for end in (squares.value, squares.low, squares.high))
        by_side = zip(shares[~self.of_site].mean(axis=0), shares[self.of_site].mean(axis=0), strict=True)
        return replace(
            empty,
            effect=replace(squares, value=value, low=low, high=min(1.0, high)),
            shares={str(name): (float(a), float(b)) for name, (a, b) in zip(names, by_side, strict=True)},
            p_value=null.p_value,
            n_permutations=len(null.values),
        )

    def _numeric(self, empty: FactTest) -> FactTest:
        numbers = self.values.astype(np.float64)
        column = SortedNumbers.of(numbers, self.groups)
        distance = float(column.distances(self.of_site[None])[0])
        permutations = site_permutations(self.of_site, self.n_permutations, self.rng)
        size = max(1, min(256, 2**21 // len(numbers)))
        null = against_null(
            distance, (column.distances(masks) for masks in permutations.blocks(size)), relative_tolerance=ROUNDING
        )
        reach = uniform_reach([column], self.of_site, self.rng)
        means = np.asarray(mean_by_group(numbers, self.groups))
        return replace(
            empty,
            effect=distance_estimate(distance, reach, n=len(numbers), n_groups=min(empty.n_groups)),
            difference=_standardised_difference(numbers, self.groups, self.of_site),
            means=(float(means[~self.of_site].mean()), float(means[self.of_site].mean())),
            p_value=null.p_value,
            n_permutations=len(null.values),
        )


def _squared_v_without(shares: FloatArray, of_site: BoolArray) -> NDArray[np.float64]:
    """Return the squared Cramér's V without each group, (G,), of the groups' shares of categories (G, C)."""
    at_site = of_site.sum() - of_site.astype(np.float64)
    elsewhere = (~of_site).sum() - (~of_site).astype(np.float64)
    site = (shares[of_site].sum(axis=0) - shares * of_site[:, None]) / at_site[:, None]
    reference = (shares[~of_site].sum(axis=0) - shares * (~of_site)[:, None]) / elsewhere[:, None]
    overall = (shares.sum(axis=0) - shares) / (len(shares) - 1)
    terms = np.where(overall > 1e-12, (site - reference) ** 2 / np.where(overall > 1e-12, overall, 1.0), 0.0)
    return np.asarray(terms.sum(axis=1) * at_site * elsewhere / (at_site + elsewhere) ** 2)


def _standardised_difference(numbers: FloatArray, groups: IntArray, of_site: BoolArray) -> Estimate:
    """Return the difference of means over the root of the mean of both variances; each patient counts once.

    Source: Cohen 1988; Austin 2009 (standardised differences between cohorts).
    """
    centred = numbers - numbers.mean()
    moments = np.asarray(mean_by_group(np.stack([centred, centred**2], axis=1), groups))
    means, variances = [], []
    for mask in (~of_site, of_site):
        n = mask.sum() - np.append(0.0, mask)
        first, second = (
            np.append(moments[mask].sum(axis=0)[None], moments[mask].sum(axis=0) - moments * mask[:, None], axis=0)
            / n[:, None]
        ).T
        means.append(first)
        # What rounding leaves of a constant is no spread: nothing can be standardised by it.
        variances.append(np.where(second - first**2 > 1e-12 * second, second - first**2, 0.0))
    spread = np.sqrt((variances[0] + variances[1]) / 2)
    values = np.where(spread > 0, (means[1] - means[0]) / np.where(spread > 0, spread, 1.0), math.nan)
    fewest = int(min(of_site.sum(), (~of_site).sum()))
    return class_jackknife(
        float(values[0]),
        values[1:],
        of_site,
        n=len(numbers),
        fewest=fewest,
        method="standardised difference, group jackknife",
    )
