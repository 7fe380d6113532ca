"""Time against the number of images, one panel a task on one pair of axes, beside the floor that the machine sets."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.table import duration
from medvlm_probe.plots.style import BLUE, INK, MUTED, PALE, VERMILLION, style

_COLUMNS = 3
_DURATIONS = {0.001: "1 ms", 0.03: "30 ms", 1.0: "1 s", 60.0: "1 min", 3_600.0: "1 h"}


def draw(table: pd.DataFrame, words: Mapping[str, str]) -> Figure:
    """Return the figure of a table that `benchmarks.scaling` wrote.

    Args:
        table: columns `task`, `n`, `processor_seconds`, `floor_seconds`, `peak_gib`, `extrapolated`.
        words: what each task is called, in the order of panels.
    """
    names = [name for name in words if name in set(table["task"])]
    n_rows = -(-len(names) // _COLUMNS)
    timed = table[table["processor_seconds"].notna()]
    apart = (timed["processor_seconds"] / timed["floor_seconds"]).groupby(timed["task"]).min()
    with style():
        figure = Figure(figsize=(7.1, 0.35 + 1.75 * n_rows), layout="constrained")
        panels = figure.subplots(n_rows, _COLUMNS, sharex=True, sharey=True, squeeze=False).ravel()
        for panel, name in zip(panels, names, strict=False):
            _draw_task(panel, timed[timed["task"] == name], words[name], said=name == apart.idxmax())
        for panel in panels[len(names) :]:
            panel.set_visible(False)
        panels[0].set_xscale("log")
        panels[0].set_yscale("log")
        panels[0].set_xlim(700, 1_200_000)
        panels[0].set_ylim(7e-5, 1e5)
        panels[0].set_yticks(list(_DURATIONS), list(_DURATIONS.values()))
        panels[0].set_xticks([1e3, 1e4, 1e5, 4e5], ["1k", "10k", "100k", "400k"])
        panels[0].minorticks_off()
        for below in panels[len(names) - _COLUMNS : len(names)]:
            below.tick_params(axis="x", labelbottom=True)
        figure.supxlabel("images of 512 dimensions and 14 labels", fontsize=8)
        figure.supylabel("processor time, one thread", fontsize=8)
    return figure


def _draw_task(panel: Axes, rows: pd.DataFrame, title: str, *, said: bool) -> None:
    panel.set_title(title, loc="left", color=INK)
    panel.grid(visible=True, axis="y", color=PALE, linewidth=0.6)
    panel.set_axisbelow(True)
    panel.plot(rows["n"], rows["floor_seconds"], color=VERMILLION, linewidth=1.0, linestyle=(0, (3, 2)))
    measured = rows[~rows["extrapolated"]]
    panel.plot(measured["n"], measured["processor_seconds"], color=BLUE, linewidth=1.2, marker="o", markersize=2.6)
    beyond = rows[rows["n"] >= measured["n"].max()]
    panel.plot(beyond["n"], beyond["processor_seconds"], color=BLUE, linewidth=1.0, linestyle=":")
    guessed = rows[rows["extrapolated"]]
    panel.plot(guessed["n"], guessed["processor_seconds"], "o", color=BLUE, markersize=3.4, markerfacecolor="white")
    last = rows.iloc[-1]
    sign = "≈ " if last["extrapolated"] else ""
    panel.text(
        0.03,
        0.95,
        f"{last['n']:,}: {sign}{duration(last['processor_seconds'])}, {sign}{last['peak_gib']:.1f} GiB",
        transform=panel.transAxes,
        va="top",
        fontsize=7,
        color=MUTED,
    )
    if said:
        place = rows.iloc[min(1, len(rows) - 1)]
        words = (("measured", "processor_seconds", BLUE, "top"), ("floor", "floor_seconds", VERMILLION, "bottom"))
        for word, column, colour, side in words:
            panel.annotate(
                word,
                (place["n"], place[column]),
                xytext=(4, -4 if side == "top" else 6),
                textcoords="offset points",
                va=side,
                color=colour,
                fontsize=7,
            )
