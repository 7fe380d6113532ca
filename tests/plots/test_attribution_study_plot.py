"""Named causes beside injected ones: cells hold the table's numbers, frames the right answers, and nothing is cut."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from medvlm_probe.errors import InputError
from medvlm_probe.plots.attribution_study import named_causes

COLUMNS = {"Verdict": ("no distance", "acquisition", "other patients"), "Named first": ("blur", "gamma")}


def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = [
        ("nothing", "Nothing", "Verdict", "no distance", 9, 10, True),
        ("nothing", "Nothing", "Verdict", "acquisition", 1, 10, False),
        ("one", "More blur (2 px)", "Verdict", "acquisition", 4, 4, True),
        ("one", "More blur (2 px)", "Named first", "blur", 3, 4, True),
        ("one", "More blur (2 px)", "Named first", "gamma", 1, 4, False),
        (
            "one",
            "A very long name of a change that nobody could fit into one line",
            "Verdict",
            "acquisition",
            0,
            4,
            True,
        ),
    ]
    counts = pd.DataFrame(rows, columns=["group", "injected", "block", "answer", "runs", "of", "right"])
    shares = pd.DataFrame({"injected": ["More blur (2 px)"], "value": [0.8], "low": [0.6], "high": [1.3]})
    return counts, shares


def test_cells_and_frames(texts_of: Callable[[Figure], list[tuple[str, np.ndarray]]]) -> None:
    counts, shares = tables()
    figure = named_causes(counts, shares, COLUMNS, title="A title", note="A note.")
    verdicts, named, explained = figure.axes
    assert [text.get_text() for text in verdicts.texts] == ["9", "1", "4"]
    assert [text.get_text() for text in named.texts] == ["3", "1"]
    framed = [patch.get_xy() for patch in verdicts.patches if patch.get_linewidth() > 0.8]
    assert [x for x, _ in framed] == [0, 1, 1]
    assert explained.lines[1].get_xdata() == pytest.approx([0.6, 1.02])
    width, height = figure.bbox.size
    for text, corners in texts_of(figure):
        assert (corners.min(axis=0) >= -0.5).all(), text
        assert (corners.max(axis=0) <= (width + 0.5, height + 0.5)).all(), text


def test_an_answer_without_a_column_is_refused() -> None:
    counts, shares = tables()
    with pytest.raises(InputError, match="'gamma' in 'Named first', which is no column"):
        named_causes(counts, shares, {**COLUMNS, "Named first": ("blur",)})
