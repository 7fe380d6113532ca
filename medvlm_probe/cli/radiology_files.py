"""The files of `figures radiology`: tidy tables as CSV, everything as JSON, figures as SVG and PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from medvlm_probe.cli.distance_files import write_figure
from medvlm_probe.runs import write_csv, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.report.radiology_settings import Setting
    from medvlm_probe.report.radiology_study import RadiologyStudy


def write_study(
    folder: Path,
    study: RadiologyStudy,
    settings: Sequence[Setting],
    cohort: Cohort,
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
        result: what the JSON file holds.
        words: label to the words that people read.
        note: small print of every figure.
    """
    recalls, curves, chosen = setting_tables(study, settings, cohort)
    tables = {
        "study": study.table,
        "claims": claim_table(study),
        "labels": label_rows(study),
        "recalls": recalls,
        "threshold_curves": curves,
        "distances": distance_rows(study),
        "counts": count_table(cohort, list(words)),
    }
    written = []
    for name, table in tables.items():
        write_csv(folder / f"{name}.csv", table)
        written.append(folder / f"{name}.csv")
    write_json(folder / "radiology.json", dict(result))
    written.append(folder / "radiology.json")
    for name, figure in _figures(tables, chosen, settings, cohort, words, note or None).items():
        written += write_figure(folder / name, figure)
    return written


def _figures(
    tables: Mapping[str, pd.DataFrame],
    chosen: pd.DataFrame,
    settings: Sequence[Setting],
    cohort: Cohort,
    words: Mapping[str, str],
    note: str | None,
) -> dict[str, Figure]:
    from medvlm_probe.embeddings.projection import project
    from medvlm_probe.plots.performance import auroc_forest
    from medvlm_probe.plots.projection import projection_by_label
    from medvlm_probe.plots.study import label_counts, recall_by_setting
    from medvlm_probe.plots.threshold_curves import threshold_curves
    from medvlm_probe.report.radiology_settings import LINEAR_PROBE

    aurocs = tables["labels"]
    aurocs = aurocs[(aurocs["metric"] == "auroc") & aurocs["value"].notna()].rename(columns={"setting": "site"})
    recalls = tables["recalls"]
    figures = {
        "auroc": auroc_forest(aurocs, labels_words=words, note=note),
        "counts": label_counts(tables["counts"], labels_words=words, note=note),
        "threshold_curves": threshold_curves(tables["threshold_curves"], chosen, note=note),
    }
    if recalls["value"].notna().any():
        figures["recalls"] = recall_by_setting(recalls[recalls["value"].notna()], labels_words=words, note=note)
    shown = cohort.select(cohort.splits() == "test")
    for setting in settings:
        if setting.name == LINEAR_PROBE:
            continue
        projection = project(setting.vectors, method="pca")
        table = pd.DataFrame(shown.targets(list(words)), columns=list(words))
        table[["x", "y"]] = projection.coordinates
        small_print = " ".join(filter(None, [projection.sentence, note]))
        figures[f"pca_{setting.name}"] = projection_by_label(
            table, list(words), projection.axes_words, labels_words=words, note=small_print
        )
    return figures


def setting_tables(
    study: RadiologyStudy, settings: Sequence[Setting], cohort: Cohort
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return recalls by label and setting, macro curves over the threshold, and the macro values that were chosen."""
    import numpy as np

    from medvlm_probe.metrics.threshold_curves import macro_threshold_curves
    from medvlm_probe.report.radiology_settings import SETTING_WORDS

    targets = cohort.select(cohort.splits() == "test").targets(settings[0].scores.labels)
    recalls: list[dict[str, object]] = []
    curves, chosen = [], []
    for setting in settings:
        words, analysis = SETTING_WORDS[setting.name], study.analyses[setting.name]
        limits = np.array([setting.thresholds.values.get(label, np.inf) for label in setting.scores.labels])
        called = (setting.scores.values >= limits).mean(axis=0)
        for entry, chance in zip(analysis.labels, called, strict=True):
            recalls.append(
                {
                    "label": entry.label,
                    "setting": words,
                    "value": entry.recall.value,
                    "low": entry.recall.low,
                    "high": entry.recall.high,
                    "reliable": entry.recall.reliable,
                    "n_positive": entry.n_positive,
                    "chance": float(chance),
                }
            )
        found = macro_threshold_curves(targets, setting.scores.values)
        for metric in ("recall", "precision", "f1"):
            values = getattr(found, metric)
            curves.append(
                pd.DataFrame({"setting": words, "metric": metric, "threshold": found.threshold, "value": values})
            )
            chosen.append({"setting": words, "metric": metric, "value": analysis.macro[metric].value})
    return pd.DataFrame(recalls), pd.concat(curves, ignore_index=True), pd.DataFrame(chosen)


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
