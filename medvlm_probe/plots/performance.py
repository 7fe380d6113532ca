"""Figures of how well labels are told apart, from tidy tables of estimates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from medvlm_probe.plots.intervals import IntervalAxis, interval_figure
from medvlm_probe.plots.style import DOUBLE_COLUMN_MM

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

TOO_FEW = 10


def auroc_forest(
    table: pd.DataFrame,
    *,
    labels_words: Mapping[str, str] | None = None,
    title: str | None = None,
    note: str | None = None,
    width_mm: float = DOUBLE_COLUMN_MM,
) -> Figure:
    """Draw each label's AUROC with its interval against chance, one panel for each site.

    Args:
        table: `label`, `value`, `low`, `high`, `reliable`, `n_positive`, and `site` ("" is all of them together).
        labels_words: label to the words that people read.
        title: a line above the figure.
        note: small print below it.
        width_mm: 180 (two columns of a journal) or 88 (one).

    Raises:
        InputError: an empty table or missing columns.
    """
    sites = list(dict.fromkeys(table["site"])) if "site" in table else []
    rows = table.drop(columns="site") if len(sites) < 2 and "site" in table else table
    if len(sites) > 1:
        rows = rows.assign(site=rows["site"].replace("", "all sites"))
    axis = IntervalAxis(null=0.5, label="AUROC", below="worse than chance", above="better")
    return interval_figure(
        rows, axis, labels_words=labels_words, sort=False, too_few=TOO_FEW, title=title, note=note, width_mm=width_mm
    )
