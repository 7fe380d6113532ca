"""The repairs of an audit as a tidy table, and the curves that are drawn from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from medvlm_probe.audit.repair import Repair
    from medvlm_probe.audit.repair_outcomes import Outcome

READ_AGAIN = "Labels read again (site probe)"
SIMULATED = "Labels read again, simulated (site probe)"
NOT_DRAWN = ("none", "thresholds", "re-read 0%")
"""They change no probability."""

SHOTS = (8, 16, 32)

_ESTIMATE = ("value", "low", "high", "n", "n_groups", "method", "reliable")


def repair_table(found: Repair | None) -> pd.DataFrame:
    """Return a row for each repair, number of labelled images and metric; for what is read again, of images read."""
    if found is None:
        return pd.DataFrame()
    rows = [row for outcome in found.outcomes for row in _rows(outcome, outcome.family)]
    if found.reread is not None:
        family = SIMULATED if found.reread.simulated else READ_AGAIN
        rows += [row for outcome in found.reread.outcomes for row in _rows(outcome, family)]
    return pd.DataFrame(rows)


def curves_of(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the gains to draw, `shown` where a change is beyond chance, and the words of each curve.

    Shots of tuned prompts make one curve: their number grows with the labelled images.
    """
    if not len(table):
        return table, {}
    rows = table[(table["metric"] == "brier_gain") & ~table["remedy"].isin(NOT_DRAWN)].copy()
    rows["shown"] = (rows["p_adjusted"] < 0.05).astype(float)
    again = rows["remedy"].str.startswith("re-read")
    rows.loc[again, "remedy"] = "re-read"
    words = dict(zip(rows["remedy"], rows["words"], strict=True))
    for name in ("prompts {}", "prompts {}, prevalence"):
        shots = rows[rows["remedy"].isin([name.format(k) for k in SHOTS])]
        # A small site may have read all its images for two numbers of shots: then each has its own mark.
        if len(shots) and shots["n_images"].is_unique:
            numbers = ", ".join(shots["remedy"].str.extract(r"(\d+)")[0])
            joined = shots["words"].iloc[0].replace(numbers.split(",")[0], numbers, 1)
            rows.loc[shots.index, "remedy"] = name.format("").strip()
            words[name.format("").strip()] = joined
    words["re-read"] = "gain over none read again"
    return rows[["family", "remedy", "n_images", "value", "low", "high", "shown"]], words


def _rows(outcome: Outcome, family: str) -> list[dict[str, Any]]:
    about: dict[str, Any] = {
        "family": family,
        "remedy": outcome.remedy,
        "words": outcome.words,
        "n_images": outcome.n_images,
        "labels_used": outcome.labels_used,
        "n_draws": outcome.n_draws,
    }
    gain = {
        "p_value": outcome.p_value,
        "p_adjusted": outcome.p_adjusted,
        "lowest": outcome.lowest,
        "highest": outcome.highest,
    }
    estimates = {"brier_gain": outcome.brier_gain, **outcome.metrics}
    return [
        about
        | {"metric": metric}
        | {name: getattr(estimate, name) for name in _ESTIMATE}
        | (gain if metric == "brier_gain" else {})
        for metric, estimate in estimates.items()
    ]
