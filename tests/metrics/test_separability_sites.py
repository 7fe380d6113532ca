"""Distances across sites against loops, and what they say of a site that is shifted."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from medvlm_probe.errors import InputError, UnknownNameError
from medvlm_probe.metrics.proportions import proportion
from medvlm_probe.metrics.separability import cross_site_distances


class Case:
    """Two sites, an image without a site, groups that span sites, unknown labels."""

    def __init__(self) -> None:
        rng = np.random.default_rng(6)
        n = 60
        self.groups = rng.integers(0, 36, n)
        self.sites = rng.choice(["home", "away"], n)
        self.sites[[4, 9]] = ""
        self.labels = (rng.random(n) < 0.5).astype(float)
        self.labels[rng.random(n) < 0.1] = np.nan
        self.points = rng.normal(size=(n, 3)) + 0.7 * np.nan_to_num(self.labels)[:, None]

    def rows(self, site: str, value: int, without: int | None = None) -> list[int]:
        return [
            i
            for i in range(60)
            if self.sites[i] == site and self.labels[i] == value and (without is None or self.groups[i] != without)
        ]

    def mean(self, value: int, without: int | None = None) -> float:
        pairs = [
            math.dist(self.points[i], self.points[j])
            for i in self.rows("away", 1, without)
            for j in self.rows("home", value, without)
            if self.groups[i] != self.groups[j]
        ]
        return sum(pairs) / len(pairs)

    def image_mean(self, i: int, value: int) -> float:
        found = [
            math.dist(self.points[i], self.points[j])
            for j in self.rows("home", value)
            if self.groups[i] != self.groups[j]
        ]
        return sum(found) / len(found)


def test_by_hand() -> None:
    case = Case()
    (entry,) = cross_site_distances(
        case.points, case.labels, case.sites, case.groups, "home", space="raw", block_size=13, label_names=["edema"]
    )
    assert (entry.label, entry.site, entry.reference) == ("edema", "away", "home")
    assert entry.n_positive == len(case.rows("away", 1))
    assert entry.n_negative == len(case.rows("away", 0))
    assert entry.n_reference_positive == len(case.rows("home", 1))
    assert entry.n_reference_negative == len(case.rows("home", 0))
    assert entry.to_positives.value == pytest.approx(case.mean(1), rel=1e-6)
    assert entry.to_negatives.value == pytest.approx(case.mean(0), rel=1e-6)
    assert entry.difference.value == pytest.approx(case.mean(1) - case.mean(0), rel=1e-5)

    holding = {
        name: {case.groups[i] for i in case.rows(site, value)}
        for name, site, value in (("new", "away", 1), ("positive", "home", 1), ("negative", "home", 0))
    }
    rarer = min((holding["positive"], holding["negative"]), key=len)
    strata = [holding["new"], rarer - holding["new"]]
    strata.append((holding["positive"] | holding["negative"]) - strata[0] - strata[1])
    variances = []
    for stratum in strata:
        values = np.array([case.mean(1, group) - case.mean(0, group) for group in sorted(stratum)])
        variances.append((len(values) - 1) / len(values) * ((values - values.mean()) ** 2).sum())
    df = sum(variances) ** 2 / sum(v**2 / (len(s) - 1) for v, s in zip(variances, strata, strict=True))
    half = stats.t.ppf(0.975, df) * math.sqrt(sum(variances))
    assert entry.difference.high - entry.difference.low == pytest.approx(2 * half, rel=1e-5)

    for estimate, value in ((entry.nearer_to_positives, 1), (entry.negatives_nearer_to_positives, 0)):
        rows = case.rows("away", value)
        nearer = np.array([case.image_mean(i, 1) < case.image_mean(i, 0) for i in rows])
        assert estimate == proportion(nearer, case.groups[rows])
    json.dumps(entry.to_json(), allow_nan=False)


def test_a_site_where_the_finding_lies_among_the_negatives(rng: np.random.Generator) -> None:
    labels = np.tile([0.0, 1.0], 150)
    sites = np.repeat(["a", "good", "bad"], 100)
    points = rng.normal(size=(300, 5))
    points[(labels == 1) & (sites != "bad"), 0] += 3
    points[(labels == 0) & (sites == "bad"), 0] += 3
    found = {e.site: e for e in cross_site_distances(points, labels, sites, None, "a", space="raw")}
    assert set(found) == {"good", "bad"}
    assert found["good"].difference.high < 0 < found["bad"].difference.low
    assert found["good"].nearer_to_positives.low > 0.7
    assert found["good"].negatives_nearer_to_positives.high < 0.3
    assert found["bad"].nearer_to_positives.high < 0.3
    assert not found["good"].too_few


def test_order_is_by_label_then_site(rng: np.random.Generator) -> None:
    labels = (rng.random((60, 2)) < 0.5).astype(float)
    sites = np.tile(["b", "a", "c"], 20)
    found = cross_site_distances(rng.normal(size=(60, 3)), labels, sites, None, "b", label_names=("x", "y"))
    assert [(e.label, e.site) for e in found] == [("x", "a"), ("x", "c"), ("y", "a"), ("y", "c")]


def test_undefined_and_refused(rng: np.random.Generator) -> None:
    points, sites = rng.normal(size=(12, 3)), ["a", "b"] * 6
    (entry,) = cross_site_distances(points, [1, 0] * 6, sites, None, "a")
    assert entry.n_positive == 0
    assert math.isnan(entry.difference.value)
    assert entry.too_few
    json.dumps(entry.to_json(), allow_nan=False)
    with pytest.raises(UnknownNameError, match="Unknown site 'aa'"):
        cross_site_distances(points, [1, 0] * 6, sites, None, "aa")
    with pytest.raises(InputError, match="Sites of shape"):
        cross_site_distances(points, [1, 0] * 6, sites[:3], None, "a")
    assert cross_site_distances(points, [1, 0] * 6, ["a"] * 12, None, "a") == ()
