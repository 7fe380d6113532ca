"""The files of `figures radiology`: tidy tables as CSV, everything as JSON, figures as SVG and PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from medvlm_probe.cli.distance_files import write_figure
from medvlm_probe.runs import write_csv, write_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.report.radiology_settings import Setting
    from medvlm_probe.report.radiology_study import RadiologyStudy


def write_study(
    folder: Path,
    study: RadiologyStudy,
    settings: Sequence[Setting],
    cohort: Cohort,
    vectors: NDArray[np.floating],
    result: Mapping[str, Any],
    words: Mapping[str, str],
    note: str,
) -> list[Path]:
    """Write the study's tables, JSON and figures; returns the files written.

    Args:
        folder: the run's folder.
        study: what was found.
        settings: what was run.
        cohort: all parts, for the count of positives by part.
        vectors: embeddings of the cohort.
        result: what the JSON file holds.
        words: label to the words that people read.
        note: small print of every figure.
    """
    from medvlm_probe.plots.performance import auroc_forest

    tables = {
        "study": study.table,
        "claims": claim_table(study),
        "labels": label_rows(study),
        "distances": distance_rows(study),
        "counts": count_table(cohort, list(words)),
    }
    written = []
    for name, table in tables.items():
        write_csv(folder / f"{name}.csv", table)
        written.append(folder / f"{name}.csv")
    write_json(folder / "radiology.json", dict(result))
    written.append(folder / "radiology.json")
    aurocs = tables["labels"]
    aurocs = aurocs[(aurocs["metric"] == "auroc") & aurocs["value"].notna()]
    figure = auroc_forest(aurocs.rename(columns={"setting": "site"}), labels_words=words, note=note or None)
    return written + write_figure(folder / "auroc", figure)


def claim_table(study: RadiologyStudy) -> pd.DataFrame:
    """Return a row a claim: claim, difference, low, high, reliable, verdict."""
    return pd.DataFrame(
        [
            {
                "claim": claim.text,
                "difference": claim.difference.value,
                "low": claim.difference.low,
                "high": claim.difference.high,
                "reliable": claim.difference.reliable,
                "verdict": claim.verdict,
            }
            for claim in study.claims
        ]
    )


def label_rows(study: RadiologyStudy) -> pd.DataFrame:
    """Return every label's estimates by setting, over all sites."""
    from medvlm_probe.report.radiology_settings import SETTING_WORDS
    from medvlm_probe.zero_shot.performance_tables import label_table

    parts = []
    for name, analysis in study.analyses.items():
        table = label_table(analysis)
        parts.append(table[table["site"] == ""].drop(columns="site").assign(setting=SETTING_WORDS[name]))
    return pd.concat(parts, ignore_index=True)


def distance_rows(study: RadiologyStudy) -> pd.DataFrame:
    """Return each label's distances by setting: within, between, their ratio, and whether it could be chance."""
    rows = []
    for name, entries in study.distances.items():
        for entry in entries:
            row: dict[str, object] = {"setting": name, "label": entry.label, "n_positive": entry.n_positive}
            for quantity in ("intra_positive", "intra_negative", "inter", "ratio"):
                estimate = getattr(entry, quantity)
                row |= {quantity: estimate.value, f"{quantity}_low": estimate.low, f"{quantity}_high": estimate.high}
            rows.append(row | {"p_adjusted": entry.energy_distance.p_adjusted})
    return pd.DataFrame(rows)


def count_table(cohort: Cohort, labels: list[str]) -> pd.DataFrame:
    """Return label, split, n_positive and n_known."""
    targets, splits = cohort.targets(labels), cohort.splits()
    rows = []
    for k, label in enumerate(labels):
        for split in ("train", "calib", "test"):
            column = targets[splits == split, k]
            counts = {"n_positive": int((column == 1).sum()), "n_known": int((column == column).sum())}
            rows.append({"label": label, "split": split, **counts})
    return pd.DataFrame(rows)
