"""The tidy tables of an audit, one a question: what is written as CSV and what figures are drawn from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from medvlm_probe.audit.crowding import DISTANCES
from medvlm_probe.audit.referral import CONFIDENCE
from medvlm_probe.cli.audit_repair_table import repair_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from medvlm_probe.audit.evidence import AuditEvidence
    from medvlm_probe.types import Estimate

ESTIMATE = ("value", "low", "high", "n", "n_groups", "method", "reliable")
METRICS = ("auroc", "average_precision", "recall", "specificity", "precision", "f1")


def audit_tables(found: AuditEvidence) -> dict[str, pd.DataFrame]:
    """Return each question's table by name; those of unanswered questions are empty."""
    return {
        "verdicts": pd.DataFrame([verdict.to_json() for verdict in found.verdicts]),
        "facts": _facts(found),
        "shift": _shift(found),
        "shift_by_label": _shift_by_label(found),
        "label_shift": _label_shift(found),
        "outliers": _outliers(found),
        "crowding": _crowding(found),
        "performance": _performance(found),
        "performance_difference": _differences(found),
        "calibration": _calibration(found),
        "label_free": _label_free(found),
        "sample_sizes": pd.DataFrame([e.to_json() for e in found.sample_sizes.labels] if found.sample_sizes else []),
        "practice": _practice(found),
        "practice_referral": _referral(found),
        "why": _why(found),
        "why_sensitivity": _sensitivity(found),
        "repair": repair_table(found.repair),
        "traps": pd.DataFrame([{"kind": t.kind, "sentence": t.sentence} for t in found.traps]),
    }


def columns(estimate: Estimate) -> dict[str, Any]:
    """Return an estimate as a row's columns."""
    return {name: getattr(estimate, name) for name in ESTIMATE}


def _facts(found: AuditEvidence) -> pd.DataFrame:
    if found.facts is None:
        return pd.DataFrame()
    rows = []
    for test in found.facts.tests:
        before, now = found.facts.medians.get(test.fact, (float("nan"), float("nan")))
        row: dict[str, Any] = {"fact": test.fact, "kind": test.kind, "median_reference": before, "median_site": now}
        rows.append(row | columns(test.effect) | {"p_value": test.p_value, "p_adjusted": test.p_adjusted})
    return pd.DataFrame(rows)


def _shift(found: AuditEvidence) -> pd.DataFrame:
    if found.shift is None:
        return pd.DataFrame()
    rows: list[dict[str, Any]] = [
        {"what": "test", "name": t.test, "category": ""}
        | columns(t.effect)
        | {"p_value": t.p_value, "p_adjusted": t.p_adjusted, "n_permutations": t.n_permutations}
        for t in found.shift.report.tests
    ]
    rows += [{"what": "probe", "name": p.fact, "category": p.category} | columns(p.auroc) for p in found.shift.probes]
    return pd.DataFrame(rows)


def _shift_by_label(found: AuditEvidence) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for cell in found.shift_by_label.cells if found.shift_by_label else ():
        about: dict[str, Any] = {"by": cell.by, "group": cell.group, "not_shown": cell.why_not}
        numbers = columns(cell.effect) if cell.effect else {}
        rows.append(about | numbers | {"p_value": cell.p_value, "p_adjusted": cell.p_adjusted})
    return pd.DataFrame(rows)


def _crowding(found: AuditEvidence) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for entry in found.crowding.labels if found.crowding else ():
        shown = [
            {"label": entry.label, "what": side, "distance": name} | columns(getattr(distances, name))
            for side, distances in (("reference", entry.reference), ("site", entry.site))
            if distances is not None
            for name in DISTANCES
        ]
        shown += [
            {"label": entry.label, "what": "difference", "distance": name} | columns(estimate)
            for name, estimate in entry.to_reference.items()
        ]
        rows += shown or [{"label": entry.label, "not_shown": entry.why_not}]
    return pd.DataFrame(rows)


def _label_shift(found: AuditEvidence) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for entry in found.label_shift.labels if found.label_shift else ():
        parts = {"reference": entry.shift.reference, "bbse": entry.shift.bbse, "em": entry.shift.em}
        for name, estimate in (parts | ({"truth": entry.truth} if entry.truth else {})).items():
            row: dict[str, Any] = {"label": entry.label, "source": name}
            rows.append(row | columns(estimate) | {"assumption": entry.shift.verdict})
    return pd.DataFrame(rows)


def _outliers(found: AuditEvidence) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for name, method in (found.outliers.methods if found.outliers else {}).items():
        for metric in ("auroc", "aupr_site", "aupr_reference", "fpr_at_95"):
            about: dict[str, Any] = {"method_name": name, "metric": metric}
            rows.append(about | columns(getattr(method, metric)))
    return pd.DataFrame(rows)


def _performance(found: AuditEvidence) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for cell in found.performance.cells if found.performance else ():
        about: dict[str, Any] = {
            "side": cell.side,
            "by": cell.by,
            "group": cell.group,
            "label": cell.label,
            "n_people": cell.n_people,
            "n_positive": cell.found.n_positive if cell.found else None,
            "not_shown": cell.why_not,
        }
        shown = [(metric, estimate) for metric in METRICS if (estimate := cell.estimate(metric)) is not None]
        rows += [about | {"metric": metric} | columns(estimate) for metric, estimate in shown]
        if not shown:
            rows.append(about | {"metric": ""})
    return pd.DataFrame(rows)


def _differences(found: AuditEvidence) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for cell in found.performance.cells if found.performance else ():
        for metric, estimate in cell.to_reference.items():
            about: dict[str, Any] = {"by": cell.by, "group": cell.group, "label": cell.label, "metric": metric}
            rows.append(about | columns(estimate))
    return pd.DataFrame(rows)


def _calibration(found: AuditEvidence) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for row in found.calibration.rows if found.calibration else ():
        measured = [("", row.pooled), *zip(row.labels, row.found.by_label, strict=True)]
        for label, metrics in measured:
            for metric, estimate in metrics.items():
                about: dict[str, Any] = {"side": row.side, "probabilities": row.probabilities, "label": label}
                band = {"plain": estimate.plain, "null_low": estimate.band.low, "null_high": estimate.band.high}
                rows.append(about | {"metric": metric} | columns(estimate.estimate) | band)
    return pd.DataFrame(rows)


def _label_free(found: AuditEvidence) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for row in found.label_free.rows if found.label_free else ():
        truth = {f"truth_{end}": getattr(row.truth, end) if row.truth else None for end in ("value", "low", "high")}
        about: dict[str, Any] = {"label": row.label, "estimator": row.method, "metric": row.metric}
        rows.append(about | columns(row.estimate) | truth | {"holds": row.holds})
    return pd.DataFrame(rows)


def _practice(found: AuditEvidence) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for entry in found.practice.labels if found.practice else ():
        about: dict[str, Any] = {
            "label": entry.label,
            "errors_from": entry.errors_from,
            "prevalence_from": entry.prevalence_from,
        }
        parts: list[tuple[str, Estimate]] = [
            ("missed_per_1000", entry.numbers.missed),
            ("false_alarms_per_1000", entry.numbers.false_alarms),
            ("prevalence", entry.numbers.prevalence),
        ]
        for by, plan in entry.referral.items():
            end = "" if by == CONFIDENCE else "_by_outlier_score"
            if plan.referred is not None:
                parts.append((f"referred{end}", plan.referred))
            for side, point in (("reference", plan.plan), ("site", plan.at_site)):
                if point is not None:
                    parts.append((f"team_recall_{side}{end}", point.team_recall))
                    parts.append((f"error_of_the_rest_{side}{end}", point.error))
        rows += [about | {"metric": name} | columns(estimate) for name, estimate in parts]
    return pd.DataFrame(rows)


def _referral(found: AuditEvidence) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for plan in found.practice.plans if found.practice else ():
        about: dict[str, Any] = {"by": plan.by, "share_at_reference": plan.share, "threshold": plan.threshold}
        rows.append(about | {"side": "site", "metric": "referred"} | columns(plan.referred))
        for side, point in (("reference", plan.at_reference), ("site", plan.at_site)):
            for metric in ("team_recall", "recall", "error") if point is not None else ():
                rows.append(about | {"side": side, "metric": metric} | columns(getattr(point, metric)))
    return pd.DataFrame(rows)


def _why(found: AuditEvidence) -> pd.DataFrame:
    if found.why is None:
        return pd.DataFrame()
    from medvlm_probe.embeddings.acquisition_words import PARTS, parts_of, words_of

    attribution = found.why.found
    rows: list[dict[str, Any]] = [
        {"what": "part", "family": "", "words": PARTS[name]} | columns(share)
        for name, share in parts_of(attribution).items()
    ]
    rows += [
        {"what": "transform", "family": t.family, "words": words_of(t.name)} | columns(t.share)
        for t in attribution.transforms
    ]
    return pd.DataFrame(rows)


def _sensitivity(found: AuditEvidence) -> pd.DataFrame:
    return found.why.sensitivity if found.why and found.why.sensitivity is not None else pd.DataFrame()


def rows_of(table: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    """Return the rows that hold these values."""
    kept = table
    for name, value in wanted.items():
        kept = kept[kept[name].isin(value) if isinstance(value, list | tuple) else kept[name] == value]
    return kept


def in_order(table: pd.DataFrame, column: str, values: Iterable[str]) -> pd.DataFrame:
    """Return the rows whose column is among values, in their order."""
    places = {value: place for place, value in enumerate(values)}
    kept = table[table[column].isin(list(places))]
    return kept.sort_values(column, key=lambda names: names.map(places), kind="stable")
