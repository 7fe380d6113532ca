"""The figures of an audit, drawn from its tables; a figure's name begins with its question's key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from medvlm_probe.cli.audit_tables import in_order, rows_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from medvlm_probe.audit.evidence import AuditEvidence

SIDES = {"reference": "At the reference", "site": "At the new site"}
SOURCES = {"reference": "Reference, labels", "em": "Here, estimated", "truth": "Here, labels"}
TOO_FEW = 10
_SCORES = {
    "knn": "Distance to the tenth nearest reference image",
    "joint_energy": "Energy of the labels' scores (larger: more unusual)",
    "max_softmax": "Less the highest probability (larger: more unusual)",
}


def audit_figures(found: AuditEvidence, tables: Mapping[str, pd.DataFrame], note: str = "") -> dict[str, str]:
    """Return name to SVG: those whose tables hold anything."""
    from medvlm_probe.plots.style import figure_bytes

    drawn = {}
    for name, draw in FIGURES.items():
        figure = draw(found, tables, note or None)
        if figure is not None:
            drawn[name] = figure_bytes(figure, "svg").decode()
    return drawn


def _facts(found: AuditEvidence, tables: Mapping[str, pd.DataFrame], note: str | None) -> Figure | None:
    from medvlm_probe.audit.facts import WORDS

    rows = _shown(tables["facts"], "fact")
    axis = ("Difference from the reference: 0 none, 1 complete", 0.0, "alike", "different")
    return _forest(rows, axis, {name: WORDS.get(name, name).capitalize() for name in rows.get("label", [])}, note)


def _by_label(found: AuditEvidence, tables: Mapping[str, pd.DataFrame], note: str | None) -> Figure | None:
    table = tables["shift_by_label"]
    if found.shift_by_label is None or not len(table) or "value" not in table:
        return None
    labels = table["by"] == "label"
    names = table["group"].where(labels, table["by"] + ": " + table["group"])
    rows = _shown(table.assign(label=names))
    axis = ("Squared MMD to the reference's images of the same kind", 0.0, "alike", "different")
    return _forest(rows, axis, {**{name: name for name in names}, **found.words}, note)


def _crowding(found: AuditEvidence, tables: Mapping[str, pd.DataFrame], note: str | None) -> Figure | None:
    table = tables["crowding"]
    if not len(table) or "distance" not in table:
        return None
    rows = in_order(rows_of(table, distance="ratio"), "what", SIDES)
    rows = rows.assign(site=rows["what"].map(SIDES))
    axis = ("Distance between over distance within", 1.0, "nothing told apart", "told apart")
    return _forest(_shown(rows), axis, found.words, note)


def _referral(found: AuditEvidence, tables: Mapping[str, pd.DataFrame], note: str | None) -> Figure | None:
    from medvlm_probe.plots.referral import referral_curves

    table = tables["practice_referral"]
    if not len(table):
        return None
    site = rows_of(table, side="site")
    shares = rows_of(site, metric="referred").set_index(["by", "share_at_reference"])["value"]
    rows = rows_of(site, metric=["team_recall", "error"]).dropna(subset=["value"])
    if not len(rows):
        return None
    referred = [shares[by, share] for by, share in zip(rows["by"], rows["share_at_reference"], strict=True)]
    return referral_curves(rows.assign(referred=referred), note=note)


def _prevalence(found: AuditEvidence, tables: Mapping[str, pd.DataFrame], note: str | None) -> Figure | None:
    table = tables["label_shift"]
    if not len(table):
        return None
    rows = in_order(table, "source", SOURCES)
    usable = rows["assumption"] == "usable"
    rows = rows.assign(
        site=rows["source"].map(SOURCES), reliable=rows["reliable"] & (usable | (rows["source"] != "em"))
    )
    axis = ("Share of images", 0.0, "rarer", "more frequent")
    words = "Grey or marked: the scores refute that only frequencies moved, or cannot tell."
    return _forest(_shown(rows), axis, found.words, " ".join(filter(None, (words, note))))


def _outliers(found: AuditEvidence, tables: Mapping[str, pd.DataFrame], note: str | None) -> Figure | None:
    from medvlm_probe.audit.outlying import EXPECTED
    from medvlm_probe.plots.audit_outliers import outlier_histogram

    if found.outliers is None:
        return None
    return outlier_histogram(
        found.outliers.reference_scores,
        found.outliers.site_scores,
        threshold=found.outliers.threshold,
        share=EXPECTED,
        words=_SCORES.get(found.outliers.listed_by, found.outliers.listed_by.replace("_", " ").capitalize()),
        note=note,
    )


def _auroc(found: AuditEvidence, tables: Mapping[str, pd.DataFrame], note: str | None) -> Figure | None:
    table = tables["performance"]
    if not len(table):
        return None
    rows = rows_of(table, by="all", metric="auroc")
    rows = rows.assign(site=rows["side"].map(SIDES))
    return _forest(_shown(rows), ("AUROC", 0.5, "worse than chance", "better"), found.words, note)


def _difference(found: AuditEvidence, tables: Mapping[str, pd.DataFrame], note: str | None) -> Figure | None:
    table = tables["performance_difference"]
    if not len(table):
        return None
    metrics = {"auroc": "AUROC", "recall": "Recall", "specificity": "Specificity"}
    rows = in_order(rows_of(table, by="all"), "metric", metrics)
    rows = rows.assign(site=rows["metric"].map(metrics))
    return _forest(_shown(rows), ("Here less the reference", 0.0, "worse", "better here"), found.words, note)


def _confidence(found: AuditEvidence, tables: Mapping[str, pd.DataFrame], note: str | None) -> Figure | None:
    from medvlm_probe.audit.calibration import DEPLOYED, RAW

    table = tables["calibration"]
    if not len(table):
        return None
    kind = DEPLOYED if (table["probabilities"] == DEPLOYED).any() else RAW
    rows = rows_of(table, metric="overconfidence", probabilities=kind)
    rows = rows.assign(site=rows["side"].map(SIDES), label=rows["label"].replace("", "all_labels"))
    axis = ("Mean confidence less accuracy", 0.0, "underconfident", "overconfident")
    return _forest(_shown(rows), axis, {**found.words, "all_labels": "All labels together"}, note)


def _label_free(found: AuditEvidence, tables: Mapping[str, pd.DataFrame], note: str | None) -> Figure | None:
    import pandas as pd

    table = tables["label_free"]
    if not len(table):
        return None
    methods = {
        "difference_of_confidences": "Difference of confidences",
        "average_thresholded_confidence": "Thresholded",
    }
    rows = in_order(rows_of(table, metric="accuracy"), "estimator", methods)
    rows = rows.assign(site=rows["estimator"].map(methods))
    truth = rows.drop_duplicates("label").dropna(subset=["truth_value"])
    ends = ("value", "low", "high")
    truth = truth.assign(site="Truth", reliable=True, **{end: truth[f"truth_{end}"] for end in ends})
    everything = pd.concat([rows, truth], ignore_index=True) if len(truth) else rows
    return _forest(_shown(everything), ("Accuracy at the new site", 0.5, "worse", "better"), found.words, note)


def _practice(found: AuditEvidence, tables: Mapping[str, pd.DataFrame], note: str | None) -> Figure | None:
    table = tables["practice"]
    if not len(table):
        return None
    words = {"missed_per_1000": "Missed", "false_alarms_per_1000": "False alarms"}
    rows = in_order(table, "metric", words)
    rows = rows.assign(site=rows["metric"].map(words))
    return _forest(_shown(rows), ("Of 1,000 examinations", 0.0, "fewer", "more"), found.words, note)


def _why(found: AuditEvidence, tables: Mapping[str, pd.DataFrame], note: str | None) -> Figure | None:
    from medvlm_probe.plots.acquisition import shares_explained

    table = tables["why"]
    if found.why is None:
        return None
    transforms = rows_of(table, what="transform").drop_duplicates("family")
    return shares_explained(transforms, rows_of(table, what="part"), chance=found.why.found.chance, note=note)


def _sensitivity(metric: str) -> Draw:
    """Return what draws each label's curve of a metric over the severity of each transform."""

    def draw(found: AuditEvidence, tables: Mapping[str, pd.DataFrame], note: str | None) -> Figure | None:
        from medvlm_probe.cohort.acquisition import ACQUISITIONS
        from medvlm_probe.plots.acquisition import acquisition_curves, drawable

        table = tables["why_sensitivity"]
        if not len(table) or not len(drawable(table, metric)):
            return None
        words = {name: entry.words for name, entry in ACQUISITIONS.items()}
        return acquisition_curves(table, metric=metric, labels_words=found.words, transform_words=words, note=note)

    return draw


def _repair(found: AuditEvidence, tables: Mapping[str, pd.DataFrame], note: str | None) -> Figure | None:
    from medvlm_probe.cli.audit_repair_table import READ_AGAIN, SIMULATED, curves_of
    from medvlm_probe.plots.audit_repair import repair_curves

    rows, words = curves_of(tables["repair"])
    if not len(rows):
        return None
    counts = dict.fromkeys((READ_AGAIN, SIMULATED), "Training images read again")
    return repair_curves(rows, axis="Brier score gained", words=words, counts=counts, note=note)


def _shown(rows: pd.DataFrame, label: str = "label") -> pd.DataFrame:
    """Return the columns that forest plots take, without undefined values."""
    if not len(rows):
        return rows
    renamed = rows.rename(columns={label: "label"})
    kept = [c for c in ("site", "label", "value", "low", "high", "reliable", "n_positive") if c in renamed]
    return renamed.dropna(subset=["value"])[kept]


def _forest(
    rows: pd.DataFrame, axis: tuple[str, float, str, str], words: Mapping[str, str], note: str | None
) -> Figure | None:
    from medvlm_probe.plots.intervals import IntervalAxis, interval_figure

    if not len(rows):
        return None
    label, null, below, above = axis
    given = IntervalAxis(null=null, label=label, below=below, above=above)
    return interval_figure(rows, given, labels_words=words, sort=False, too_few=TOO_FEW, title=None, note=note)


Draw = Callable[["AuditEvidence", "Mapping[str, pd.DataFrame]", "str | None"], "Figure | None"]

FIGURES: dict[str, Draw] = {
    "facts_effects": _facts,
    "shift_by_label_effects": _by_label,
    "label_shift_prevalence": _prevalence,
    "why_shares": _why,
    "why_score_curves": _sensitivity("score_shift"),
    "why_recall_curves": _sensitivity("recall"),
    "outliers_scores": _outliers,
    "crowding_ratio": _crowding,
    "performance_auroc": _auroc,
    "performance_difference": _difference,
    "calibration_confidence": _confidence,
    "label_free_accuracy": _label_free,
    "practice_errors": _practice,
    "practice_referral": _referral,
    "repair_gain": _repair,
}
"""Each figure by its name."""
