"""What a table of scores is worth on a cohort: every estimate, baseline and count that commands with scores print."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.labels import DOMAINS
from medvlm_probe.errors import InputError
from medvlm_probe.metrics.baselines import NO_FINDING, Baseline, baselines
from medvlm_probe.metrics.classification import (
    METRICS,
    LabelPerformance,
    any_present,
    exact_match,
    label_performance,
    micro_estimates,
)
from medvlm_probe.metrics.macro import macro_rank_estimates, macro_threshold_estimates
from medvlm_probe.metrics.ranking import ranking_means, ranking_rows, top_k_estimates
from medvlm_probe.types import Estimate, FloatArray, IntArray, Scores, finite_or_none
from medvlm_probe.zero_shot.thresholds import Thresholds

TOP_K = (1, 2, 3)


@dataclass(frozen=True)
class Ranking:
    """How labels are ranked within images.

    Attributes:
        labels: which are ranked.
        estimates: LRAP, coverage error, ranking loss, exact match.
        n_images: images whose labels are all known.
        n_undefined: of those, images without a positive, on which LRAP and coverage error are undefined.
        n_unknown: images left out for an unknown label.
    """

    labels: tuple[str, ...]
    estimates: Mapping[str, Estimate]
    n_images: int
    n_undefined: int
    n_unknown: int

    def to_json(self) -> dict[str, Any]:
        """Return the estimates by name, and the counts."""
        counts = {"n_images": self.n_images, "n_undefined": self.n_undefined, "n_unknown": self.n_unknown}
        return {name: estimate.to_json() for name, estimate in self.estimates.items()} | counts


@dataclass(frozen=True)
class PerformanceAnalysis:
    """Everything that scores show on a cohort.

    Attributes:
        score_kind: of the scores.
        labels: each label's estimates over all images.
        by_site: site to the same; empty with one site.
        domains: the labels' groups (cardiovascular, ...) as labels: present where any of theirs is, scored by the
            greatest of theirs. No domain has a threshold.
        ranking: over all labels. findings: without "No finding"; None where it is not among them.
        top_k_recall: k to each label's estimate, in the order of `labels`.
        macro, micro: metric to estimate, over labels and over entries.
        baselines: what needs no image.
        thresholds: how the decisions were made; None where none were chosen.
        prior_from: the split whose label frequencies the prior baseline uses; "" where there is none.
        n_images, n_groups, group_kind: what was evaluated.
    """

    score_kind: str
    labels: tuple[LabelPerformance, ...]
    by_site: Mapping[str, tuple[LabelPerformance, ...]]
    domains: tuple[LabelPerformance, ...]
    ranking: Ranking
    findings: Ranking | None
    top_k_recall: Mapping[int, tuple[Estimate, ...]]
    macro: Mapping[str, Estimate]
    micro: Mapping[str, Estimate]
    baselines: tuple[Baseline, ...]
    thresholds: Thresholds | None
    prior_from: str
    n_images: int
    n_groups: int
    group_kind: str

    def to_json(self) -> dict[str, Any]:
        """Return what the JSON files and `--json` hold."""
        source = self.thresholds.source if self.thresholds else None
        return {
            "labels": [label_json(entry, source) for entry in self.labels],
            "ranking": self.ranking.to_json(),
            "ranking_of_findings": self.findings.to_json() if self.findings else None,
            "top_k_recall": {
                str(k): {e.label: found.to_json() for e, found in zip(self.labels, estimates, strict=True)}
                for k, estimates in self.top_k_recall.items()
            },
            "macro": {name: estimate.to_json() for name, estimate in self.macro.items()},
            "micro": {name: estimate.to_json() for name, estimate in self.micro.items()},
            "domains": [label_json(entry, None) for entry in self.domains],
            "sites": [
                {"site": site, "labels": [label_json(entry, source) for entry in entries]}
                for site, entries in self.by_site.items()
            ],
            "baselines": {b.name: _baseline_json(b) for b in self.baselines},
            "prior_from": self.prior_from or None,
            "score_kind": self.score_kind,
            "threshold_rule": self.thresholds.rule if self.thresholds else None,
            "n_images": self.n_images,
            "n_groups": self.n_groups,
            "group": self.group_kind,
        }


def analyse_performance(
    scores: Scores,
    cohort: Cohort,
    *,
    thresholds: Thresholds | None = None,
    prior: Mapping[str, float] | None = None,
    prior_from: str = "",
) -> PerformanceAnalysis:
    """Return what scores show on a cohort's labels.

    Args:
        scores: a row an image of the cohort, in its order; columns are labels of the cohort.
        cohort: the images that results are shown for; none of those that thresholds or prior were taken from.
        thresholds: chosen elsewhere; None leaves everything undecided.
        prior: label to its frequency elsewhere, for the baseline that looks at no image.
        prior_from: the split that it comes from.

    Raises:
        InputError: rows that do not fit.
        UnknownNameError: a label that the cohort lacks.
    """
    if len(scores.ids) != len(cohort):
        raise InputError(f"{len(scores.ids):,} rows of scores do not fit {len(cohort):,} images.")
    y, groups, names = cohort.targets(scores.labels), cohort.groups(), scores.labels
    limits = dict(thresholds.values) if thresholds else {}
    labels = label_performance(y, scores.values, groups, label_names=names, thresholds=limits)
    sites = cohort.sites()
    present = sorted(set(sites.tolist()) - {""})
    by_site = {
        site: label_performance(
            y[sites == site], scores.values[sites == site], groups[sites == site], label_names=names, thresholds=limits
        )
        for site in (present if len(present) > 1 else [])
    }
    decided = [k for k, name in enumerate(names) if name in limits]
    predicted = scores.values[:, decided] >= np.array([limits[names[k]] for k in decided])
    macro = dict(macro_rank_estimates(y, scores.values, groups))
    micro: dict[str, Estimate] = {}
    if decided:
        macro = macro_threshold_estimates(y[:, decided], predicted, groups) | macro
        micro = micro_estimates(y[:, decided], predicted, groups)
    findings = [k for k, name in enumerate(names) if name != NO_FINDING]
    frequency = None if prior is None else np.array([prior.get(name, math.nan) for name in names])
    known_prior = frequency is not None and bool(np.isfinite(frequency).all())
    return PerformanceAnalysis(
        score_kind=scores.kind,
        labels=labels,
        by_site=by_site,
        domains=_domains(scores, y, groups),
        ranking=_ranking(scores, y, groups, list(range(len(names))), limits),
        findings=_ranking(scores, y, groups, findings, limits) if 1 < len(findings) < len(names) else None,
        top_k_recall={k: tuple(top_k_estimates(y, scores.values, groups, k)) for k in TOP_K if k < len(names)},
        macro=macro,
        micro=micro,
        baselines=baselines(y, groups, label_names=names, prior=frequency if known_prior else None),
        thresholds=thresholds,
        prior_from=prior_from if known_prior else "",
        n_images=len(cohort),
        n_groups=len(np.unique(groups)),
        group_kind=cohort.group_kind,
    )


def label_frequencies(cohort: Cohort, labels: tuple[str, ...]) -> dict[str, float]:
    """Return each label's share of positives among its known entries; labels without any are missing."""
    y = cohort.targets(labels)
    return {
        label: float((y[:, k] == 1).sum() / known)
        for k, label in enumerate(labels)
        if (known := int((~np.isnan(y[:, k])).sum()))
    }


def label_json(entry: LabelPerformance, threshold_from: str | None) -> dict[str, Any]:
    """Return one label's entry as the JSON files hold it."""
    return {
        "label": entry.label,
        "n_positive": entry.n_positive,
        "n_negative": entry.n_negative,
        "n_unknown": entry.n_unknown,
        "n_groups": entry.n_groups,
        "prevalence": finite_or_none(entry.prevalence),
        "threshold": finite_or_none(entry.threshold),
        "threshold_from": threshold_from if math.isfinite(entry.threshold) else None,
        **{metric: getattr(entry, metric).to_json() for metric in METRICS},
    }


def _ranking(
    scores: Scores, y: FloatArray, groups: IntArray, columns: list[int], limits: Mapping[str, float]
) -> Ranking:
    names = tuple(scores.labels[k] for k in columns)
    part, values = y[:, columns], scores.values[:, columns]
    rows = ranking_rows(part, values)
    estimates = ranking_means(rows, groups, len(columns))
    undecided = Estimate(math.nan, math.nan, math.nan, 0, 0, "no threshold chosen", reliable=False)
    estimates["exact_match"] = undecided
    if all(name in limits for name in names):
        estimates["exact_match"] = exact_match(part, values >= np.array([limits[name] for name in names]), groups)
    n_images = len(y) - rows.n_unknown
    defined = int((~np.isnan(rows.average_precision)).sum())
    return Ranking(names, estimates, n_images, n_images - defined, rows.n_unknown)


def _domains(scores: Scores, y: FloatArray, groups: IntArray) -> tuple[LabelPerformance, ...]:
    truth, values, names = [], [], []
    for domain, members in DOMAINS.items():
        columns = [k for k, name in enumerate(scores.labels) if name in members]
        if columns:
            names.append(domain)
            truth.append(any_present(y[:, columns]))
            values.append(scores.values[:, columns].max(axis=1))
    if not names:
        return ()
    return label_performance(np.stack(truth, axis=1), np.stack(values, axis=1), groups, label_names=names)


def _baseline_json(baseline: Baseline) -> dict[str, Any]:
    ranking = {name: estimate.to_json() for name, estimate in baseline.ranking.items()}
    return ranking | {"exact_match": baseline.exact_match.to_json(), "macro_f1": finite_or_none(baseline.macro_f1)}
