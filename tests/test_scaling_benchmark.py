"""The table and the figure of how analyses grow: sizes that ran out of time, and rows measured again."""

from __future__ import annotations

import pandas as pd
import pytest

from benchmarks.scaling import TASKS, extrapolated, joined
from benchmarks.scaling_figure import draw
from medvlm_probe.plots.style import figure_bytes


def rows(task: str, *measured: tuple[int, float, float]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "task": task,
            "n": n,
            "floor_seconds": n / 1e9,
            "extrapolated": False,
            "outcome": "done" if seconds else "over 60 s",
            **dict.fromkeys(("seconds", "processor_seconds"), seconds or None),
            **dict.fromkeys(("extra_gib", "peak_gib"), gib or None),
        }
        for n, seconds, gib in measured
    )


def test_a_square_and_a_line_go_on_as_they_did() -> None:
    square = rows("distances", (10_000, 5 + 1.0, 1.0), (20_000, 5 + 4.0, 2.0), (30_000, 5 + 9.0, 3.0), (40_000, 0, 0))
    capped = rows("shift", (30_000, 90.0, 1.0), (100_000, 50.0, 2.0), (400_000, 0, 0))
    table = extrapolated(joined(square, capped)).set_index(["task", "n"])
    assert table.loc[("distances", 40_000), "processor_seconds"] == pytest.approx(5 + 16, rel=1e-3)
    assert table.loc[("distances", 40_000), "peak_gib"] == pytest.approx(4)
    assert table.loc[("shift", 400_000), "processor_seconds"] == pytest.approx(200, rel=1e-3)
    assert table["extrapolated"].tolist() == [False] * 3 + [True] + [False] * 2 + [True]


def test_rows_measured_again_replace_the_old_ones() -> None:
    old = rows("shift", (1_000, 2.0, 1.0), (3_000, 3.0, 1.0))
    table = joined(old, pd.concat([rows("shift", (3_000, 4.0, 1.0)), rows("distances", (1_000, 1.0, 1.0))]))
    assert table["task"].tolist() == ["distances", "shift", "shift"]
    assert table["seconds"].tolist() == [1.0, 2.0, 4.0]


def test_the_figure_names_every_task_and_marks_what_was_not_measured() -> None:
    table = extrapolated(rows("distances", (1_000, 1.0, 1.0), (10_000, 60.0, 2.0), (400_000, 0, 0)))
    svg = figure_bytes(draw(table, {name: task.words for name, task in TASKS.items()}), "svg")
    assert svg.startswith(b"<?xml")
    assert svg == figure_bytes(draw(table, {name: task.words for name, task in TASKS.items()}), "svg")
