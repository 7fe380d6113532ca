"""A cohort's reports and their labels: each different report is read once, an image without one has no label."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.report_labeler.engine import ReportLabeler
from medvlm_probe.errors import InputError


def reports_of(cohort: Cohort) -> list[str]:
    """Return each image's report, "" where it has none.

    Raises:
        InputError: a cohort without reports.
    """
    if "report" not in cohort.table or not cohort.table["report"].fillna("").str.strip().any():
        raise InputError(
            f"Cohort '{cohort.name}' has no reports to read. Add a column 'report' to its manifest (findings and "
            "impression of each image's study)."
        )
    return cohort.table["report"].fillna("").astype(str).tolist()


def label_cohort(cohort: Cohort, labeler: ReportLabeler) -> pd.DataFrame:
    """Return the labels of each image's report, one row an image, one float32 column a label: 1, 0, -1 or NaN."""
    codes, different = pd.factorize(np.array(reports_of(cohort), dtype=object))
    return pd.DataFrame(labeler.label(list(different))[codes], columns=list(labeler.labels))


def row_named(cohort: Cohort, name: str) -> int:
    """Return the row (0 is the first) of a study, an image, or a row number (1 is the first).

    Raises:
        InputError: none of these.
    """
    for column in ("study", "image"):
        if column in cohort.table:
            fits = np.flatnonzero((cohort.table[column] == name).to_numpy(dtype=np.bool_, na_value=False))
            if len(fits):
                return int(fits[0])
    if name.isdecimal() and 1 <= int(name) <= len(cohort):
        return int(name) - 1
    raise InputError(
        f"'{name}' is no study and no image of cohort '{cohort.name}', and no row number from 1 to {len(cohort):,}."
    )
