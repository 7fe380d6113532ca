"""Which tables an audit's page shows for each question, and how their rows are drawn from the audit's JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medvlm_probe.report import audit_rows
from medvlm_probe.report.cells import Record, TableStyle
from medvlm_probe.report.layouts import TableLayout, all_rows, under
from medvlm_probe.report.tables import Table, make_table, tables_of

METRICS = ("auroc", "recall", "specificity")
ESTIMATED = ("accuracy", "recall")
"""Of the metrics estimated without labels, those that the page shows; all are in the run's CSV."""


@dataclass(frozen=True)
class Question:
    """A question of the audit: its key in the JSON, how it is asked, what it means, and its tables."""

    key: str
    asks: str
    means: str
    tables: tuple[TableLayout, ...] = ()


def tables_for(question: Question, value: Any, style: TableStyle) -> list[Table]:
    """Return the question's tables, and after them one of whatever else its JSON holds."""
    found = [
        make_table(layout.rows(value), layout.caption, style, columns=layout.columns) for layout in question.tables
    ]
    covered = {key for layout in question.tables for key in layout.covers} | {"sentence"}
    if isinstance(value, Mapping):
        rest = {key: entry for key, entry in value.items() if key not in covered}
        found += tables_of(rest, "Also measured" if question.tables else "Measured", style)
    elif not question.tables:
        found += tables_of(value, "Measured", style)
    return [table for table in found if table is not None]


# --- Rows -------------------------------------------------------------------------------------------------------------


def _facts(value: Any) -> Sequence[Record]:
    """Return a row a fact: medians or the category that moved most, at the reference and here."""
    rows = []
    for test in value.get("tests") or ():
        shares = test.get("shares") or {}
        both = value.get("medians", {}).get(test["fact"]) or test.get("means") or (None, None)
        before, now = (_fact_number(number) for number in both)
        if shares:
            moved = max(shares, key=lambda name: abs(shares[name][1] - shares[name][0]))
            before, now = (f"{moved}: {100 * share:.0f} %" for share in shares[moved])
        rows.append({"fact": test["fact"], "at_reference": before, "here": now, **_parts(test, "effect", "p_adjusted")})
    return rows


def _repairs(value: Any) -> Sequence[Record]:
    """Return a row a repair and number of labelled images."""
    return [{**row, **row["metrics"]} for row in value.get("outcomes") or ()]


def _reread(value: Any) -> Sequence[Record]:
    """Return a row a share of labels read again."""
    return _repairs(value.get("reread") or {})


def _reread_how(value: Any) -> Sequence[Record]:
    """Return one row: what was read again, or simulated."""
    return [{"how": value["reread"].get("how")}] if value.get("reread") else []


def _left_out(value: Any) -> Sequence[Record]:
    """Return a row a repair that was not fitted, with the reason."""
    return [{"repair": name, "reason": reason} for name, reason in (value.get("left_out") or {}).items()]


def _fact_number(number: float | None) -> str | None:
    if number is None:
        return None
    return "under 0.001" if 0 < number < 0.001 else f"{number:.4g}"


def _sides(value: Any) -> Sequence[Record]:
    """Return a row a label and metric: at the reference, here, and the difference; or why there is none."""
    whole = [row for row in value if row.get("by", "all") == "all"]
    reference = {row["label"]: row for row in whole if row.get("side") == "reference"}
    rows: list[Record] = []
    for row in whole:
        if row.get("side") == "reference":
            continue
        there, apart = reference.get(row["label"], {}), row.get("difference_to_reference") or {}
        shown = [metric for metric in METRICS if row.get(metric)]
        rows += [
            {
                "label": row["label"],
                "metric": metric,
                "reference": there.get(metric),
                "here": row.get(metric),
                "difference": apart.get(metric),
                "remark": row.get("not_shown") or None,
            }
            for metric in shown
        ]
        if not shown:
            rows.append({"label": row["label"], "metric": "", "remark": row.get("not_shown") or None})
    return rows


def _subgroups(value: Any) -> Sequence[Record]:
    names = ("by", "group", "label", "n_people", "n_positive", *METRICS)
    return [
        _parts(row, *names)
        for row in value
        if row.get("by", "all") != "all" and any(row.get(metric) for metric in METRICS)
    ]


def _calibration(value: Any) -> Sequence[Record]:
    return [
        {
            **_parts(row, "side", "probabilities"),
            **_parts(row.get("pooled") or {}, "ece", "brier", "nll", "overconfidence"),
        }
        for row in value.get("rows") or ()
    ]


def _calibration_by_label(value: Any) -> Sequence[Record]:
    """Return a row a label, of the probabilities that a site would use: both sides beside each other."""
    rows = list(value.get("rows") or [])
    used = [row for row in rows if row.get("probabilities") == rows[-1].get("probabilities")]
    found: dict[str, dict[str, Any]] = {}
    for row in used:
        for entry in row.get("per_label") or ():
            record = found.setdefault(entry["label"], {"label": entry["label"]})
            for metric in ("ece", "overconfidence"):
                record[f"{metric}.{row['side']}"] = entry.get(metric)
    return list(found.values())


def _label_free(value: Any) -> Sequence[Record]:
    """Return a row a label and metric, a column a method."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in value:
        if row["metric"] in ESTIMATED:
            record = found.setdefault((row["label"], row["metric"]), {**_parts(row, "label", "metric", "truth")})
            record[row["method"]] = row["estimate"]
    return [{**record, "truth": record.pop("truth")} for record in found.values()]


def _closest(value: Any) -> Sequence[Record]:
    """Return a row a kind of transform; the closest level of each comes first."""
    found: dict[str, Record] = {}
    for row in value.get("transforms") or ():
        found.setdefault(row["family"], row)
    return list(found.values())


def _parts(record: Record, *names: str) -> dict[str, Any]:
    return {name: record.get(name) for name in names}


# --- Questions --------------------------------------------------------------------------------------------------------

QUESTIONS: tuple[Question, ...] = (
    Question(
        "facts",
        "How do images and patients differ?",
        "Facts of acquisition and of patients, from headers, pixels and the manifest. The effect is between 0 and 1.",
        (
            TableLayout(
                "Facts at the reference and here",
                _facts,
                ("fact", "at_reference", "here", "effect", "p_adjusted"),
                ("tests", "medians", "n_sampled", "absent"),
            ),
        ),
    ),
    Question(
        "shift",
        "Has the data moved?",
        "Tests of whether the new site's images have the reference's distribution in the model's embedding space. "
        "With many images nearly any difference is significant: read the size of the effect.",
        (
            TableLayout("Two-sample tests", under("tests"), ("test", "effect", "p_value", "p_adjusted"), ("tests",)),
            TableLayout(
                "What can be read off the site's embeddings (AUROC .5: nothing)",
                under("nuisance_probes"),
                ("fact", "category", "auroc", "balanced_accuracy"),
                ("nuisance_probes", "n_images", "n_groups", "most_unusual_cosines"),
            ),
        ),
    ),
    Question(
        "what_moved",
        "What moved?",
        "Whether findings became more or less frequent, images look different, both, or neither: the reference is "
        "re-weighted to the site's frequency (by its own labels, else by scores), and what distance remains is tested "
        "again.",
    ),
    Question(
        "shift_by_label",
        "Whose images moved?",
        "Images with one label, or of one subgroup, against the reference's of the same kind, by one kernel. A finding "
        "that became more frequent does not show here; one that looks different does.",
        (
            TableLayout("Images with each label", audit_rows.shift_by_label, (), ("cells", "bandwidth", "notable")),
            TableLayout("Images of each subgroup", audit_rows.shift_by_subgroup),
        ),
    ),
    Question(
        "label_shift",
        "How frequent are the findings here?",
        "Frequencies estimated without the site's labels, by two methods, and the truth where labels are known. They "
        "hold only if findings look alike at both sites; the last column says whether the scores refute that.",
        (
            TableLayout(
                "Share of images with each finding",
                all_rows,
                ("label", "reference", "em", "bbse", "truth", "assumption"),
            ),
        ),
    ),
    Question(
        "why",
        "Why did it move?",
        "How much of the distance goes away when the reference's own images are made to look as if they had been "
        "acquired otherwise, against what chance and another mix of patients explain.",
        (
            TableLayout(
                "Chosen on half of the patients, measured on the other",
                under("parts"),
                ("explained_by", "share"),
                ("parts", "verdict", "distance", "chance", "families", "n_images", "n_computed", "seconds"),
            ),
            TableLayout(
                "Each kind of transform at its closest level", _closest, ("explained_by", "share"), ("transforms",)
            ),
            TableLayout(
                "What each kind of transform does most to a label with ten positives",
                under("largest_auroc_changes"),
                ("transform", "label", "auroc_change"),
                ("largest_auroc_changes",),
            ),
        ),
    ),
    Question(
        "outliers",
        "Is an image unlike anything seen?",
        "How well each outlier score tells the site's images from held-out reference images.",
        (
            TableLayout(
                "Outlier scores",
                under("methods"),
                ("method", "auroc", "aupr_site", "aupr_reference", "fpr_at_95"),
                ("methods", "listed_by"),
            ),
        ),
    ),
    Question(
        "crowding",
        "Do labels crowd together?",
        "How far images with a label lie from images without it, over how far images of either kind lie from their "
        "own, between vectors of length 1. A ratio of 1 tells nothing apart; the sides have no patient in common.",
        (
            TableLayout("Ratio of distances", audit_rows.crowding, (), ("labels", "space")),
            TableLayout("Distances here less those at the reference", audit_rows.distances),
        ),
    ),
    Question(
        "performance",
        "Does it still work?",
        "Each label by the site's own labels, at thresholds chosen on a part of the reference that is shown nowhere.",
        (
            TableLayout("By label, beside the reference", _sides),
            TableLayout("By subgroup of the site", _subgroups),
        ),
    ),
    Question(
        "worst_groups",
        "Where does it work least?",
        "The subgroup with the least value of each label. It was picked because it is the least, so chance alone makes "
        "some group look bad.",
        (TableLayout("Worst subgroups", all_rows, ("label", "metric", "by", "group", "n_compared", "estimate")),),
    ),
    Question(
        "calibration",
        "Can its probabilities be believed?",
        "Calibration errors are debiased. Overconfidence is mean confidence less accuracy: above 0 the model is surer "
        "than it is right.",
        (
            TableLayout("All labels together", _calibration, (), ("rows",)),
            TableLayout("By label, as calibrated at the reference", _calibration_by_label),
        ),
    ),
    Question(
        "label_free",
        "What would be expected without labels?",
        "Estimates that use none of the site's labels, and beside them the truth where labels are known. Each rests on "
        "an assumption that the site may break; the sentence above says how often such intervals then held the truth.",
        (TableLayout("Estimates without labels, by method", _label_free),),
    ),
    Question(
        "sample_sizes",
        "How sure must we be?",
        "Labelled positives that a recall within five points needs, and the smallest change that this audit could "
        "have found.",
        (
            TableLayout(
                "Sample sizes",
                under("labels"),
                (
                    "label",
                    "expected_recall",
                    "positives_needed",
                    "images_needed",
                    "n_positive",
                    "detectable_fall",
                    "detectable_rise",
                ),
                ("labels",),
            ),
        ),
    ),
    Question(
        "repair",
        "What repairs it?",
        "Each repair is fitted on labels of the site, the same for all, and measured on other patients of the site. "
        "Gains are falls of the Brier score, with intervals over these patients and over draws of the labelled images; "
        "p is corrected over all repairs and sizes.",
        (
            TableLayout(
                "Repairs by labels spent",
                _repairs,
                ("words", "n_images", "labels_used", "auroc", "brier", "brier_gain", "p_adjusted"),
                ("outcomes", "labels"),
            ),
            TableLayout(
                "Labels read again: gain over none read again",
                _reread,
                ("words", "n_images", "auroc", "brier", "brier_gain", "p_adjusted"),
                ("reread",),
            ),
            TableLayout("What was read again", _reread_how, ("how",)),
            TableLayout("Not fitted", _left_out, ("repair", "reason"), ("left_out",)),
        ),
    ),
    Question(
        "practice",
        "What happens in practice?",
        "Findings missed and false alarms at the site's prevalence, and what sending the most doubtful images to a "
        "reader would bring.",
        (
            TableLayout(
                "Per 1,000 examinations",
                under("labels"),
                ("label", "missed", "false_alarms", "called", "prevalence", "errors_from", "prevalence_from"),
                ("labels",),
            ),
            TableLayout(
                "Referral of whole examinations, thresholds from the reference",
                audit_rows.examination_referral,
                (),
                ("referral_of_examinations",),
            ),
            TableLayout("Referral for one finding, plan chosen at the reference", audit_rows.label_referral),
        ),
    ),
    Question(
        "triggers",
        "When must it be stopped, or trained anew?",
        "What to watch once the model is in use. A level is the policy's own, or the bound that this audit measured on "
        "this site (set); where it measured none, none is set. A level is crossed when the opposite bound of a later "
        "audit lies beyond it; each such look can be wrong by itself, the monitor's alarm at all looks together. Where "
        "the policy fails, a level says what is, not what would do.",
        (
            TableLayout(
                "Triggers",
                audit_rows.triggers,
                (),
                (
                    "triggers",
                    "outlier_score",
                    "outlier_score_beyond",
                    "outlier_share_expected",
                    "referral_doubt_beyond",
                    "referral_share_at_reference",
                ),
            ),
        ),
    ),
)
"""The questions of an audit, in the order of its page."""
