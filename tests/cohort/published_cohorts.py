"""A published data set on its whole way: read by name, written as a manifest, read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from medvlm_probe.cohort.catalog import load_cohort, load_with_notes
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.write_manifest import ManifestPlan, write_manifest


def assert_written_as_read(name: str, folder: Path) -> Cohort:
    """Assert that `NAME:FOLDER` and the manifest that is written from it are the same cohort; return it."""
    loaded = load_with_notes(f"{name}:{folder}")
    written = write_manifest([loaded], ManifestPlan(folder / "manifest.csv"), lambda done, n: None)
    cohort, again = loaded.cohort, load_cohort(str(folder / "manifest.csv"))
    assert again.labels == cohort.labels
    assert again.group_kind == cohort.group_kind
    assert {label: again.card.words(label) for label in again.labels} == {
        label: cohort.card.words(label) for label in cohort.labels
    }
    np.testing.assert_array_equal(again.table[list(again.labels)], cohort.table[list(cohort.labels)])
    for column in cohort.table.columns.difference(cohort.labels):
        assert _cells(again, str(column)) == _cells(cohort, str(column))
    assert written.n_boxes == (0 if loaded.boxes is None else len(loaded.boxes))
    pd.testing.assert_frame_equal(
        written.skipped[["what", "reason"]].astype(object), loaded.skipped.astype(object).reset_index(drop=True)
    )
    return again


def _cells(cohort: Cohort, column: str) -> list[object]:
    return cohort.table[column].astype(object).fillna("").tolist()
