"""The findings of `label-agreement` as tidy tables: pairs of sources, conclusions by source, errors and corrections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medvlm_probe.types import Estimate
from medvlm_probe.zero_shot.label_agreement import AgreementAnalysis

if TYPE_CHECKING:
    import pandas as pd

PAIR_METRICS = ("agreement", "kappa", "positive_agreement", "negative_agreement", "a_of_b", "b_of_a")


def pair_table(analysis: AgreementAnalysis) -> pd.DataFrame:
    """Return one row per label, pair and metric, with the counts."""
    import pandas as pd

    rows = [
        {
            "label": pair.label,
            "a": pair.a,
            "b": pair.b,
            "metric": metric,
            **_estimate(getattr(pair.found, metric)),
            "n_both": pair.found.n_both,
            "n_only_a": pair.found.n_only_a,
            "n_only_b": pair.found.n_only_b,
            "n_neither": pair.found.n_neither,
            "n_unknown": pair.found.n_unknown,
        }
        for pair in analysis.pairs
        for metric in PAIR_METRICS
    ]
    return pd.DataFrame(rows)


def conclusion_table(analysis: AgreementAnalysis) -> pd.DataFrame:
    """Return one row per label, metric and source, with the shift from the reference in columns `shift...`."""
    import pandas as pd

    rows = []
    for entry in analysis.conclusions:
        shift = _estimate(entry.shift) if entry.shift else {}
        rows.append(
            {
                "label": entry.label,
                "metric": entry.metric,
                "source": entry.source,
                "n_positive": entry.n_positive,
                **_estimate(entry.estimate),
                "shift": shift.get("value"),
                "shift_low": shift.get("low"),
                "shift_high": shift.get("high"),
                "shift_reliable": shift.get("reliable"),
            }
        )
    return pd.DataFrame(rows)


def correction_table(analysis: AgreementAnalysis) -> pd.DataFrame:
    """Return one row per label, source, quantity and form: sensitivity, specificity of the source; apparent, corrected
    and true prevalence, recall, specificity of the model; with the range under dependence beside corrected ones."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for errors in analysis.errors:
        for metric in ("sensitivity", "specificity"):
            found: Estimate | None = getattr(errors, metric)
            if found is not None:
                head = {"label": errors.label, "source": errors.source, "metric": f"source_{metric}"}
                rows.append({**head, "form": "measured", **_estimate(found)})
    for entry in analysis.corrections:
        for form in ("apparent", "corrected", "against_truth"):
            head = {"label": entry.label, "source": entry.source, "metric": entry.metric}
            row = {**head, "form": form, **_estimate(getattr(entry, form))}
            if form == "corrected":
                row |= {"low_if_dependent": entry.low_if_dependent, "high_if_dependent": entry.high_if_dependent}
            rows.append(row)
    return pd.DataFrame(rows)


def plot_table(analysis: AgreementAnalysis) -> pd.DataFrame:
    """Return what the figure draws: kappa with the reference, then recall and AUROC (and the ratio) by source."""
    import pandas as pd

    reference = analysis.sources[0]
    rows = [
        {"label": pair.label, "metric": "kappa", "source": pair.b, **_estimate(pair.found.kappa)}
        for pair in analysis.pairs
        if pair.a == reference
    ]
    rows += [
        {"label": entry.label, "metric": entry.metric, "source": entry.source, **_estimate(entry.estimate)}
        for entry in analysis.conclusions
        if entry.label and entry.metric in ("recall", "auroc", "ratio")
    ]
    return pd.DataFrame(rows)


def _estimate(estimate: Estimate) -> dict[str, float | int | str | bool]:
    return {
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "n": estimate.n,
        "n_groups": estimate.n_groups,
        "reliable": estimate.reliable,
        "method": estimate.method,
    }
