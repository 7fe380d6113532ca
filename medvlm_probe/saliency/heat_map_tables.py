"""Heat map studies as tidy tables and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.saliency.comparable_scores import ComparableScores, outcome_of
from medvlm_probe.saliency.heat_map_study import DECIDES, OWN, LabelMaps
from medvlm_probe.saliency.localization_estimates import LocalizationEstimate
from medvlm_probe.saliency.localization_measures import MEASURES
from medvlm_probe.types import Estimate, finite_or_none

LESS = "found less missed"
"""The stratum that holds a difference between two."""


def localization_table(found: Sequence[LabelMaps]) -> pd.DataFrame:
    """Return a row for each label, setting, map (`own` or a control) and measure, with chance and the gain over it."""
    rows: list[dict[str, object]] = []
    for entry in found:
        maps = {OWN: entry.estimates} | {name: control.estimates for name, control in entry.controls.items()}
        for which, estimates in maps.items():
            for name, measure in estimates.items():
                levels = {kind: level.value for kind, level in measure.chance.items()}
                gains = {
                    f"over_{kind}{end}": value
                    for kind, gain in measure.over_chance.items()
                    for end, value in (("", gain.value), ("_low", gain.low), ("_high", gain.high))
                }
                key = {"label": entry.label, "setting": entry.setting, "maps": which, "metric": name}
                unseen = {"n_unseen": measure.n_unseen, "n_undefined": measure.n_undefined}
                rows.append({**key, **_columns(measure.estimate), **levels, **gains, **unseen})
    return pd.DataFrame(rows)


def strata_table(found: Sequence[LabelMaps]) -> pd.DataFrame:
    """Return a row for each label, setting, stratum and measure: by site, size of the region, outcome.

    The stratum `found less missed` is the difference of the two.
    """
    rows = [
        {
            "label": entry.label,
            "setting": entry.setting,
            "by": stratum.kind,
            "stratum": stratum.name,
            "metric": name,
            **_columns(measure.estimate),
            **{kind: level.value for kind, level in measure.chance.items()},
        }
        for entry in found
        for stratum in entry.strata
        for name, measure in stratum.estimates.items()
    ]
    rows += [
        {
            "label": entry.label,
            "setting": entry.setting,
            "by": "outcome",
            "stratum": LESS,
            "metric": name,
            **_columns(estimate),
        }
        for entry in found
        for name, estimate in entry.found_less_missed.items()
    ]
    return pd.DataFrame(rows)


def faithfulness_table(found: Sequence[LabelMaps]) -> pd.DataFrame:
    """Return a row for each label, setting and area or gain of `faithfulness`, in units of the logit."""
    rows = [
        {"label": entry.label, "setting": entry.setting, "measure": name, **_columns(estimate)}
        for entry in found
        for name, estimate in entry.faithfulness_estimates.items()
    ]
    return pd.DataFrame(rows)


def curve_table(found: Sequence[LabelMaps]) -> pd.DataFrame:
    """Return the mean curves of `faithfulness`: a row for each label, setting, curve, order and share of patches."""
    rows = [
        {
            "label": entry.label,
            "setting": entry.setting,
            "curve": curve,
            "order": order,
            "share": share,
            "logit": value,
        }
        for entry in found
        if entry.faithfulness is not None
        for curve, order, values in (
            ("deletion", "map", entry.faithfulness.deletion),
            ("deletion", "random", entry.faithfulness.random_deletion),
            ("insertion", "map", entry.faithfulness.insertion),
            ("insertion", "random", entry.faithfulness.random_insertion),
        )
        for share, value in zip(entry.faithfulness.fractions.tolist(), values.mean(axis=0).tolist(), strict=True)
    ]
    return pd.DataFrame(rows)


def control_table(found: Sequence[LabelMaps]) -> pd.DataFrame:
    """Return a row for each label, setting, control and kind of similarity, with the label's verdict."""
    rows = [
        {
            "label": entry.label,
            "setting": entry.setting,
            "control": name,
            "of_label": control.label,
            "similarity": kind,
            **_columns(estimate),
            "verdict": entry.verdict.outcome,
        }
        for entry in found
        for name, control in entry.controls.items()
        for kind, estimate in control.similarity.items()
    ]
    return pd.DataFrame(rows)


def image_table(
    found: Sequence[LabelMaps],
    cohort: Cohort,
    names: Sequence[str],
    scores: Mapping[tuple[str, str], ComparableScores],
) -> pd.DataFrame:
    """Return a row for each label, setting and image: its score, its outcome, and each measure of its map.

    Args:
        found: the study.
        cohort: its images.
        names: what each image is called, pseudonyms.
        scores: by setting and label.
    """
    sites = cohort.sites()
    rows: list[dict[str, object]] = []
    for entry in found:
        score = scores.get((entry.setting, entry.label))
        place = -1
        for at, row in enumerate(entry.rows.tolist()):
            record: dict[str, object] = {
                "label": entry.label,
                "setting": entry.setting,
                "image": names[row],
                "site": sites[row],
                "logit": float(entry.logits[at]),
            }
            if score is not None:
                value = float(score.values[row, 0])
                ranked = score.scales[0] == "percentile"
                record |= {"score": value, "scale": score.scales[0], "outcome": outcome_of(value) if ranked else ""}
            record |= {"map_low": float(entry.maps[at].min()), "map_high": float(entry.maps[at].max())}
            record["region"] = bool(entry.located[at])
            if entry.located[at] and entry.localization is not None:
                place += 1
                record["region_share"] = float(entry.localization.region_share[place])
                record |= {name: float(values[place]) for name, values in entry.localization.values.items()}
            rows.append(record)
    return pd.DataFrame(rows)


def label_json(entry: LabelMaps) -> dict[str, Any]:
    """Return what `--json` holds of one label in one setting."""
    return {
        "label": entry.label,
        "setting": entry.setting,
        "n_images": len(entry.rows),
        "n_with_region": int(entry.located.sum()),
        **{name: _estimate(entry.estimates, name) for name in MEASURES},
        "chance": {
            kind: {name: measure.chance[kind].to_json() for name, measure in entry.estimates.items()}
            for kind in next((measure.chance for measure in entry.estimates.values()), {})
        },
        "over_chance": {
            kind: {name: measure.over_chance[kind].to_json() for name, measure in entry.estimates.items()}
            for kind in next((measure.over_chance for measure in entry.estimates.values()), {})
        },
        "controls": {
            "verdict": entry.verdict.outcome,
            "measure": DECIDES,
            "own_minus_wrong": entry.verdict.difference.to_json() if entry.estimates else None,
            "low": finite_or_none(entry.verdict.low),
            "high": finite_or_none(entry.verdict.high),
            **{
                name: {
                    "label": control.label,
                    **{kind: estimate.to_json() for kind, estimate in control.similarity.items()},
                    **{measure: _estimate(control.estimates, measure) for measure in MEASURES},
                }
                for name, control in entry.controls.items()
            },
        },
        "strata": [
            {
                "by": stratum.kind,
                "stratum": stratum.name,
                "n_images": stratum.n_images,
                **{name: _estimate(stratum.estimates, name) for name in MEASURES},
            }
            for stratum in entry.strata
        ],
        "found_less_missed": {name: estimate.to_json() for name, estimate in entry.found_less_missed.items()} or None,
        "faithfulness": _faithfulness_json(entry),
        "iou_threshold": {"value": finite_or_none(entry.threshold.value), "from": entry.threshold.source},
        "layer": entry.layer,
    }


def _faithfulness_json(entry: LabelMaps) -> dict[str, Any] | None:
    if entry.faithfulness is None:
        return None
    areas = {name: estimate.to_json() for name, estimate in entry.faithfulness_estimates.items()}
    return {"n_images": len(entry.faithfulness.deletion), "fill": entry.faithfulness.fill, **areas}


def _estimate(estimates: Mapping[str, LocalizationEstimate], name: str) -> dict[str, Any] | None:
    return estimates[name].estimate.to_json() if name in estimates else None


def _columns(estimate: Estimate) -> dict[str, object]:
    known = math.isfinite(estimate.value)
    return {
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "reliable": estimate.reliable and known,
        "n_images": estimate.n,
        "n_groups": estimate.n_groups,
    }
