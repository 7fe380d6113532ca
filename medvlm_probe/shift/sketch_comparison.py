"""What two sketches tell of a site against a reference: distance, frequency of findings, calibration, outliers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from medvlm_probe.metrics.label_correction import LabelerErrors, corrected_prevalence
from medvlm_probe.metrics.proportions import proportion
from medvlm_probe.shift.sketch import NEGATIVE, POSITIVE, Sketch, refuse_other_plan
from medvlm_probe.shift.sketch_cells import (
    Cells,
    common_cells,
    label_cells,
    outlier_cells,
    outlier_centres,
    tenths_of,
)
from medvlm_probe.shift.sketch_distance import SketchDistance, sketch_distance
from medvlm_probe.shift.sketch_plan import TENTHS
from medvlm_probe.types import Estimate, finite_or_none

METHOD_BBSE = "black-box shift estimation from counts of patients, Lang-Reiczigel interval"
METHOD_MEAN = "mean over patients, t interval"
QUANTILES = (0.05, 0.5, 0.95)
FEWEST_FOR_INTERVAL = 10

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LabelFromSketches:
    """One label at the reference and at the site; what cells do not tell is NaN.

    Attributes:
        label: snake_case.
        threshold: the least probability that is called.
        reference_prevalence, site_prevalence: shares of patients, among known values.
        bbse: the site's prevalence by black-box shift estimation, without its labels.
        recall, specificity: of the calls at the reference.
        reference_ece, site_ece: expected calibration error over tenths, plain (biased upwards for few patients).
        reference_overconfidence, site_overconfidence: mean of probability less label, over patients.
    """

    label: str
    threshold: float
    reference_prevalence: Estimate
    site_prevalence: Estimate
    bbse: Estimate
    recall: Estimate
    specificity: Estimate
    reference_ece: float
    site_ece: float
    reference_overconfidence: Estimate
    site_overconfidence: Estimate

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        found: dict[str, Any] = {"label": self.label}
        for name in list(self.__dataclass_fields__)[1:]:
            value = getattr(self, name)
            found[name] = value.to_json() if isinstance(value, Estimate) else finite_or_none(value)
        return found


@dataclass(frozen=True)
class OutliersFromSketches:
    """One outlier score, from bins.

    Attributes:
        score: its name.
        auroc: chance that a site's patient scores above the reference's, in [0, 1], ties in a cell counting half.
        reference, site: the 5 %, 50 % and 95 % quantiles: the middles of cells.
    """

    score: str
    auroc: float
    reference: tuple[float, ...]
    site: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "score": self.score,
            "auroc": finite_or_none(self.auroc),
            "reference": [finite_or_none(q) for q in self.reference],
            "site": [finite_or_none(q) for q in self.site],
        }


@dataclass(frozen=True)
class SketchComparison:
    """Everything that two sketches tell of a site against a reference.

    Attributes:
        n_patients: of the reference and of the site, rounded.
        kinds: `working` or `export`, of both.
    """

    distance: SketchDistance
    labels: tuple[LabelFromSketches, ...]
    outliers: tuple[OutliersFromSketches, ...]
    n_patients: tuple[int, int]
    kinds: tuple[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "squared_mmd": self.distance.mmd.to_json(),
            "squared_mmd_test": self.distance.test.to_json() if self.distance.test else None,
            "frechet": finite_or_none(self.distance.frechet),
            "frechet_mean": finite_or_none(self.distance.frechet_mean),
            "labels": [label.to_json() for label in self.labels],
            "outliers": [score.to_json() for score in self.outliers],
            "n_patients": list(self.n_patients),
            "kinds": list(self.kinds),
        }


def compare_sketches(reference: Sketch, site: Sketch) -> SketchComparison:
    """Return what two sketches of one plan tell, whatever their kinds; they must not share patients.

    Raises:
        InputError: sketches of different plans.
    """
    refuse_other_plan(reference.plan, site.plan)
    return SketchComparison(
        distance=sketch_distance(reference, site),
        labels=tuple(_label(reference, site, k) for k in range(len(reference.plan.labels))),
        outliers=tuple(_outliers(reference, site, k) for k in range(len(reference.plan.outlier_scores))),
        n_patients=(round(reference.n_patients), round(site.n_patients)),
        kinds=(reference.kind, site.kind),
    )


def _label(reference: Sketch, site: Sketch, k: int) -> LabelFromSketches:
    own = reference.calls[k]
    called = site.calls[k].sum(axis=0)
    recall, specificity = _share(own[POSITIVE, 1], own[POSITIVE, 0]), _share(own[NEGATIVE, 0], own[NEGATIVE, 1])
    return LabelFromSketches(
        label=reference.plan.labels[k],
        threshold=reference.plan.thresholds[k],
        reference_prevalence=_prevalence(reference, k),
        site_prevalence=_prevalence(site, k),
        bbse=_bbse(own, called),
        recall=recall,
        specificity=specificity,
        reference_ece=calibration_error(reference, k),
        site_ece=calibration_error(site, k),
        reference_overconfidence=_overconfidence(reference, k),
        site_overconfidence=_overconfidence(site, k),
    )


def _prevalence(sketch: Sketch, k: int) -> Estimate:
    cells = [label_cells(sketch, k, value) for value in (POSITIVE, NEGATIVE)]
    positive, negative = (math.nan if found is None else float(found.weights.sum()) for found in cells)
    return _share(positive, negative)


def _as_patients(yes: float, no: float) -> NDArray[np.bool_]:
    """Return whole patients, True for `yes` of them; none where a number is not told."""
    if not math.isfinite(yes + no):
        return np.zeros(0, dtype=bool)
    n = max(0, round(yes + no))
    return np.arange(n) < round(min(max(yes, 0.0), n))


def _share(yes: float, no: float) -> Estimate:
    patients = _as_patients(yes, no)
    return proportion(patients, np.arange(len(patients)))


def _bbse(own: Array, called: Array) -> Estimate:
    hits = _as_patients(own[POSITIVE, 1], own[POSITIVE, 0])
    rejections = _as_patients(own[NEGATIVE, 0], own[NEGATIVE, 1])
    at_site = _as_patients(called[1], called[0])
    n = len(at_site)
    if not (len(hits) and len(rejections) and n) or hits.mean() + rejections.mean() <= 1:
        return Estimate(math.nan, 0.0, 1.0, n, n, METHOD_BBSE, reliable=False)
    errors = LabelerErrors(
        proportion(hits, np.arange(len(hits))),
        proportion(rejections, np.arange(len(rejections))),
        hits.astype(float),
        np.ones(len(hits)),
        rejections.astype(float),
        np.ones(len(rejections)),
    )
    found = corrected_prevalence(at_site, np.arange(n), errors)
    enough = min(len(hits), len(rejections), n) >= FEWEST_FOR_INTERVAL
    return Estimate(found.value, found.low, found.high, n, n, METHOD_BBSE, found.reliable and enough)


def calibration_error(sketch: Sketch, k: int) -> float:
    """Return the expected calibration error of label k over tenths, in [0, 1]; NaN where nothing is told.

    In an export what is told of several tenths together counts in that of its mean probability.
    """
    gaps, total = np.zeros(len(TENTHS) + 1), 0.0
    for value in (POSITIVE, NEGATIVE):
        cells = label_cells(sketch, k, value)
        if cells is None:
            return math.nan
        present = cells.weights if value == POSITIVE else 0.0
        tenths = tenths_of(cells, sketch.plan.thresholds[k])
        gaps += np.bincount(tenths, weights=cells.confidence - present, minlength=len(gaps))
        total += float(cells.weights.sum())
    return float(np.abs(gaps).sum()) / total if total > 0 else math.nan


def _overconfidence(sketch: Sketch, k: int) -> Estimate:
    n, residual, squared = sketch.residuals[k, :3]
    whole = round(n) if math.isfinite(n) else 0
    if whole < 2:
        return Estimate(math.nan, math.nan, math.nan, whole, whole, METHOD_MEAN, reliable=False)
    mean = residual / n
    variance = max(squared / n - mean**2, 0.0) * n / (n - 1)
    reach = float(stats.t.ppf(0.975, n - 1)) * math.sqrt(variance / n)
    reliable = whole >= FEWEST_FOR_INTERVAL and "residuals" not in sketch.noise
    return Estimate(float(mean), float(mean - reach), float(mean + reach), whole, whole, METHOD_MEAN, reliable)


def _outliers(reference: Sketch, site: Sketch, k: int) -> OutliersFromSketches:
    own, other = outlier_cells(reference, k), outlier_cells(site, k)
    if own is None or other is None:
        nothing = (math.nan,) * len(QUANTILES)
        return OutliersFromSketches(reference.plan.outlier_scores[k], math.nan, nothing, nothing)
    first, second = (cells.weights for cells in common_cells(own, other))
    below = np.cumsum(first) - first
    pairs = float(first.sum() * second.sum())
    return OutliersFromSketches(
        score=reference.plan.outlier_scores[k],
        auroc=float(second @ (below + first / 2)) / pairs if pairs > 0 else math.nan,
        reference=tuple(_quantile(own, q) for q in QUANTILES),
        site=tuple(_quantile(other, q) for q in QUANTILES),
    )


def _quantile(cells: Cells, share: float) -> float:
    """Return the middle of the cell in which a share of the weight is reached; NaN without any."""
    total = cells.weights.sum()
    if not total > 0:
        return math.nan
    position = int(np.searchsorted(np.cumsum(cells.weights), share * total - 1e-9))
    return float(outlier_centres(cells.ends)[min(position, len(cells.ends) - 1)])
