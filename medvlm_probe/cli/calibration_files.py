"""The files of `calibration`: estimates and reliability diagrams as tidy CSV, everything as JSON, a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from medvlm_probe.cli.distance_files import write_figure
from medvlm_probe.runs import write_csv, write_json

if TYPE_CHECKING:
    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.metrics.calibration import CalibrationEstimate
    from medvlm_probe.tuning.calibration_comparison import MethodCalibration, NamedProbabilities


def write_calibration(
    folder: Path,
    found: Sequence[MethodCalibration],
    methods: Sequence[NamedProbabilities],
    shown: Cohort,
    result: Mapping[str, Any],
    note: str,
) -> list[Path]:
    """Write estimates, reliability diagrams and the confidence of right and wrong answers; returns the files."""
    from medvlm_probe.plots.reliability import confidence_histograms, reliability_diagrams
    from medvlm_probe.tuning.calibration_comparison import confidence_table, reliability_table

    bins, sure = reliability_table(methods, shown), confidence_table(methods, shown)
    written = []
    for name, table in (("calibration", estimate_table(found)), ("reliability", bins), ("confidence", sure)):
        write_csv(folder / f"{name}.csv", table)
        written.append(folder / f"{name}.csv")
    write_json(folder / "calibration.json", dict(result))
    written.append(folder / "calibration.json")
    pooled = bins[bins["label"] == ""]
    errors = {entry.method.name: entry.found["ece"] for entry in found}
    words = {name: f"ECE {e.plain:.3f}, {e.band.low:.3f}–{e.band.high:.3f} if calibrated" for name, e in errors.items()}
    figures = {
        "reliability": reliability_diagrams(pooled, words=words, note=note or None),
        "confidence": confidence_histograms(sure, note=note or None),
    }
    return written + [path for name, figure in figures.items() for path in write_figure(folder / name, figure)]


def estimate_table(found: Sequence[MethodCalibration]) -> pd.DataFrame:
    """Return a row an estimate: method, scope (`pooled`, `macro` or a label), metric, plain, value, low, high, band."""
    rows: list[dict[str, object]] = []
    for entry in found:
        scopes: dict[str, Mapping[str, CalibrationEstimate]] = {"pooled": entry.found}
        if entry.macro:
            scopes["macro"] = entry.macro
        for scope, estimates in (scopes | dict(entry.by_label)).items():
            rows += [
                {
                    "method": entry.method.name,
                    "labels_used": entry.method.labels_used,
                    "scope": scope,
                    "metric": metric,
                    "plain": e.plain,
                    "value": e.estimate.value,
                    "low": e.estimate.low,
                    "high": e.estimate.high,
                    "reliable": e.estimate.reliable,
                    "null_low": e.band.low,
                    "null_high": e.band.high,
                }
                for metric, e in estimates.items()
            ]
    return pd.DataFrame(rows)
