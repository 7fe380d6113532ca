"""Rows of an audit page's tables on crowding, shift by label and subgroup, referral and triggers, from its JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medvlm_probe.report.cells import Record

SHARES_SHOWN = (0.1, 0.2, 0.3, 0.5)
"""Of the plans of referral, those that the page shows; all are in the run's CSV and in the figure."""


def shift_by_label(value: Any) -> Sequence[Record]:
    """Return a row a label."""
    return [{"label": cell["group"], **_shift_cell(cell)} for cell in value.get("cells") or () if cell["by"] == "label"]


def shift_by_subgroup(value: Any) -> Sequence[Record]:
    """Return a row a subgroup."""
    return [
        {"by": cell["by"], "group": cell["group"], **_shift_cell(cell)}
        for cell in value.get("cells") or ()
        if cell["by"] != "label"
    ]


def _shift_cell(cell: Record) -> Record:
    return {
        "mmd": cell.get("effect"),
        "p_value": cell.get("p_value"),
        "p_adjusted": cell.get("p_adjusted"),
        "remark": cell.get("not_shown") or None,
    }


def crowding(value: Any) -> Sequence[Record]:
    """Return a row a label: the ratio of distances on both sides and its difference, or why there is none."""
    return [
        {
            "label": entry["label"],
            "reference": (entry.get("reference") or {}).get("ratio"),
            "here": (entry.get("site") or {}).get("ratio"),
            "difference": (entry.get("difference_to_reference") or {}).get("ratio"),
            "remark": entry.get("not_shown") or None,
        }
        for entry in value.get("labels") or ()
    ]


def distances(value: Any) -> Sequence[Record]:
    """Return a row a label that can be compared: how much further apart images lie here."""
    return [
        {"label": entry["label"], **{name: apart.get(name) for name in ("intra_positive", "intra_negative", "inter")}}
        for entry in value.get("labels") or ()
        if (apart := entry.get("difference_to_reference"))
    ]


def label_referral(value: Any) -> Sequence[Record]:
    """Return a row a label and a doubt that a plan was found for: what it does at the site, and where it was chosen."""
    rows: list[Record] = []
    for entry in value.get("labels") or ():
        for by, key in (("confidence", "referral"), ("outlier score", "referral_by_outlier_score")):
            plan = entry.get(key) or {}
            here, chosen = plan.get("at_site") or {}, plan.get("chosen_on_reference") or {}
            if not chosen:
                continue
            rows.append({
                "label": entry["label"],
                "by": by,
                "referred.here": plan.get("referred_at_site"),
                "recall of the rest.here": here.get("recall"),
                "error of the rest.here": here.get("error"),
                "recall of the rest.at reference": chosen.get("recall"),
                "error of the rest.at reference": chosen.get("error"),
            })  # fmt: skip
    return rows


def examination_referral(value: Any) -> Sequence[Record]:
    """Return a row a doubt and a share: what referring whole examinations does at the site."""
    return [
        {
            "by": plan["by"],
            "of the reference's, referred": f"{100 * plan['share_at_reference']:.0f} %",
            "referred": plan["referred_at_site"],
            "found with a reader": (plan.get("at_site") or {}).get("team_recall"),
            "recall of the rest": (plan.get("at_site") or {}).get("recall"),
            "error of the rest": (plan.get("at_site") or {}).get("error"),
        }
        for plan in value.get("referral_of_examinations") or ()
        if plan["share_at_reference"] in SHARES_SHOWN
    ]


def triggers(value: Any) -> Sequence[Record]:
    """Return a row a trigger whose level is known; those without one stand together at the end."""
    entries = list(value.get("triggers") or ())
    rows: list[Record] = [_trigger(entry) for entry in entries if entry["state"] != "not set"]
    missing: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for entry in entries:
        if entry["state"] == "not set":
            missing.setdefault((entry["subject"], entry["reason"]), []).append(entry)
    for (_, reason), same in missing.items():
        more = f", and {len(same) - 1} more" if len(same) > 1 else ""
        rows.append({**_trigger(same[0]), "when": f"{same[0]['when']}{more}", "remark": reason})
    return rows


def _trigger(entry: Mapping[str, Any]) -> dict[str, Any]:
    known = entry.get("value") is not None
    return {
        "when": entry["when"],
        "then": entry["action"],
        "today": {end: entry.get(end) for end in ("value", "low", "high")} if known else None,
        "state": entry["state"],
        "seen by": entry["watched_by"],
        "remark": entry["reason"] if entry["state"] in ("cannot be told", "met") else None,
    }
