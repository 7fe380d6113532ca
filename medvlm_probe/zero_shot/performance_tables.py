"""A `PerformanceAnalysis` as tidy tables: one row an estimate."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from medvlm_probe.metrics.classification import METRICS, LabelPerformance
from medvlm_probe.types import Estimate
from medvlm_probe.zero_shot.performance import PerformanceAnalysis

ESTIMATE_COLUMNS = ("value", "low", "high", "n", "n_groups", "method", "reliable")


def label_table(analysis: PerformanceAnalysis) -> pd.DataFrame:
    """Return site ("" is all), label, metric, the counts, the threshold and the estimate, a row an estimate."""
    parts: list[tuple[str, tuple[LabelPerformance, ...]]] = [("", analysis.labels), *analysis.by_site.items()]
    rows: list[dict[str, object]] = []
    for site, entries in parts:
        for position, entry in enumerate(entries):
            counts: dict[str, object] = {
                "site": site,
                "label": entry.label,
                "n_positive": entry.n_positive,
                "n_negative": entry.n_negative,
                "n_unknown": entry.n_unknown,
                "prevalence": entry.prevalence,
                "threshold": entry.threshold,
            }
            for metric in METRICS:
                rows.append(counts | {"metric": metric} | _estimate(getattr(entry, metric)))
            if not site:
                for k, estimates in analysis.top_k_recall.items():
                    rows.append(counts | {"metric": f"top_{k}_recall"} | _estimate(estimates[position]))
    return pd.DataFrame(rows)


def summary_table(analysis: PerformanceAnalysis) -> pd.DataFrame:
    """Return what is measured over all labels, and the baselines' rows beside it: rule, metric and the estimate."""
    rows: list[dict[str, object]] = []

    def add(rule: str, labels: str, estimates: Mapping[str, Estimate]) -> None:
        rows.extend({"rule": rule, "labels": labels, "metric": m} | _estimate(e) for m, e in estimates.items())

    add("model", "all", analysis.ranking.estimates)
    if analysis.findings is not None:
        add("model", "findings", analysis.findings.estimates)
    add("model", "all", {f"macro_{metric}": estimate for metric, estimate in analysis.macro.items()})
    add("model", "all", {f"micro_{metric}": estimate for metric, estimate in analysis.micro.items()})
    for baseline in analysis.baselines:
        add(baseline.name, "all", {**baseline.ranking, "exact_match": baseline.exact_match})
        rows.append({"rule": baseline.name, "labels": "all", "metric": "macro_f1", "value": baseline.macro_f1})
    return pd.DataFrame(rows)


def _estimate(estimate: Estimate) -> dict[str, object]:
    return {name: getattr(estimate, name) for name in ESTIMATE_COLUMNS}
