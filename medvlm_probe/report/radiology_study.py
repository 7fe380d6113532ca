"""The radiology study's table with what it lacked: intervals, baselines, chosen thresholds, claims put to the test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.metrics.legacy_separability import legacy_separability
from medvlm_probe.metrics.legacy_study import legacy_study
from medvlm_probe.metrics.separability import ClassDistances, class_distances
from medvlm_probe.metrics.separation_scores import separability_row
from medvlm_probe.report.radiology_claims import Claim, study_claims
from medvlm_probe.report.radiology_settings import FINE_TUNED, LINEAR_PROBE, ZERO_SHOT, Setting
from medvlm_probe.types import Estimate, FloatArray, IntArray
from medvlm_probe.zero_shot.performance import PerformanceAnalysis, analyse_performance

PUBLISHED: dict[str, dict[str, float]] = {
    ZERO_SHOT: {
        "inter": 31.890,
        "intra": 21.160,
        "ratio": 1.506,
        "macro_f1": 0.105,
        "exact_match": 0.000,
        "label_ranking_average_precision": 0.250,
        "coverage_error": 7.70,
    },
    FINE_TUNED: {
        "inter": 22.754,
        "intra": 12.756,
        "ratio": 1.784,
        "macro_f1": 0.235,
        "exact_match": 0.134,
        "label_ranking_average_precision": 0.779,
        "coverage_error": 2.750,
    },
    LINEAR_PROBE: {
        "inter": 31.894,
        "intra": 21.160,
        "ratio": 1.507,
        "macro_f1": 0.183,
        "exact_match": 0.143,
        "label_ranking_average_precision": 0.741,
        "coverage_error": 3.077,
    },
}
"""The study's table, of BiomedCLIP on IU-Xray (Sadman, Zulkernine and Kwan 2025, README of its code)."""


@dataclass(frozen=True, eq=False)
class RadiologyStudy:
    """Everything that the study found.

    Attributes:
        table: a row an estimate: `setting`, `definition` (`corrected`, `published` for the study's own), `metric`,
            value, low, high, reliable, `published_value` where ours can be compared with it.
        analyses: setting to its performance on the images shown.
        distances: setting to each label's distances.
        claims: see `Claim`.
        n_train, n_calib, n_test: images.
    """

    table: pd.DataFrame
    analyses: Mapping[str, PerformanceAnalysis]
    distances: Mapping[str, tuple[ClassDistances, ...]]
    claims: tuple[Claim, ...]
    n_train: int
    n_calib: int
    n_test: int

    def to_json(self) -> dict[str, Any]:
        """Return the claims and, by setting, the performance."""
        return {
            "n_train": self.n_train,
            "n_calib": self.n_calib,
            "n_test": self.n_test,
            "claims": [
                {"claim": c.text, "difference": c.difference.to_json(), "verdict": c.verdict} for c in self.claims
            ],
            "settings": {name: analysis.to_json() for name, analysis in self.analyses.items()},
        }


def radiology_study(
    settings: Sequence[Setting],
    shown: Cohort,
    *,
    prior: Mapping[str, float],
    n_train: int,
    n_calib: int,
    compare_with_published: bool,
    seed: int = 0,
) -> RadiologyStudy:
    """Return the study's table, analyses and claims on held-out images.

    Args:
        settings: the settings that were run; all have the same labels, in the same order.
        shown: the held-out images.
        prior: label frequencies on the training part.
        n_train, n_calib: images of the other parts.
        compare_with_published: the model is BiomedCLIP and the cohort IU-Xray, so the published numbers stand beside.
        seed: of the permutations.
    """
    labels = settings[0].scores.labels
    targets, groups = shown.targets(labels), shown.groups()
    analyses = {
        s.name: analyse_performance(s.scores, shown, thresholds=s.thresholds, prior=prior, prior_from="train")
        for s in settings
    }
    distances: dict[str, tuple[ClassDistances, ...]] = {}
    rows: list[dict[str, object]] = []
    for setting in settings:
        rng = np.random.default_rng(seed)
        found = class_distances(
            setting.vectors, targets, groups, label_names=labels, strata=_codes(shown.sites()), rng=rng
        )
        distances[setting.name] = found
        separation = separability_row(setting.vectors, targets, groups, label_names=labels, rng=rng)
        rows += _corrected_rows(setting, analyses[setting.name], found, separation)
        rows += _legacy_rows(setting, targets, groups, labels, seed, compare_with_published)
    rows += _baseline_rows(analyses[settings[0].name])
    claims = study_claims(settings, targets, groups, prior)
    return RadiologyStudy(pd.DataFrame(rows), analyses, distances, claims, n_train, n_calib, len(shown))


def _corrected_rows(
    setting: Setting,
    analysis: PerformanceAnalysis,
    distances: Sequence[ClassDistances],
    separation: Mapping[str, Estimate],
) -> list[dict[str, object]]:
    estimates = {
        **separation,
        "macro_auroc": analysis.macro["auroc"],
        "macro_average_precision": analysis.macro["average_precision"],
        "macro_recall": analysis.macro["recall"],
        "macro_f1": analysis.macro["f1"],
        **analysis.ranking.estimates,
    }
    rows = [_row(setting.name, "corrected", metric, estimate) for metric, estimate in estimates.items()]
    apart = sum(entry.energy_distance.p_adjusted < 0.05 for entry in distances)
    measured = sum(math.isfinite(entry.ratio.value) for entry in distances)
    counted = {"labels_apart": float(apart), "labels_measured": float(measured)}
    return rows + [_plain(setting.name, "corrected", metric, value) for metric, value in counted.items()]


def _legacy_rows(
    setting: Setting, targets: FloatArray, groups: IntArray, labels: Sequence[str], seed: int, compare: bool
) -> list[dict[str, object]]:
    study = legacy_study(targets, setting.legacy_scores, label_names=labels)
    apart = legacy_separability(setting.vectors, targets, labels, groups, rng=np.random.default_rng(seed))
    values = {
        "inter": apart.inter,
        "intra": apart.intra,
        "ratio": apart.ratio,
        "null_ratio": apart.null_ratio,
        "macro_f1": study.macro_f1,
        "exact_match": study.exact_match,
        "label_ranking_average_precision": study.label_ranking_average_precision,
        "coverage_error": study.coverage_error,
        "ranking_loss": study.ranking_loss,
    }
    published = PUBLISHED.get(setting.name, {}) if compare else {}
    return [
        _plain(setting.name, "published", metric, value) | {"published_value": published.get(metric, math.nan)}
        for metric, value in values.items()
    ]


def _baseline_rows(analysis: PerformanceAnalysis) -> list[dict[str, object]]:
    rows = []
    for baseline in analysis.baselines:
        estimates = {**baseline.ranking, "exact_match": baseline.exact_match}
        rows += [_row(baseline.name, "corrected", m, e) for m, e in estimates.items() if math.isfinite(e.value)]
        if math.isfinite(baseline.macro_f1):
            rows.append(_plain(baseline.name, "corrected", "macro_f1", baseline.macro_f1))
    return rows


def _codes(sites: NDArray[Any]) -> NDArray[np.int64]:
    return np.unique(sites, return_inverse=True)[1].astype(np.int64)


def _row(setting: str, definition: str, metric: str, estimate: Estimate) -> dict[str, object]:
    return _plain(setting, definition, metric, estimate.value) | {
        "low": estimate.low,
        "high": estimate.high,
        "reliable": estimate.reliable,
        "method": estimate.method,
    }


def _plain(setting: str, definition: str, metric: str, value: float) -> dict[str, object]:
    return {"setting": setting, "definition": definition, "metric": metric, "value": value}
