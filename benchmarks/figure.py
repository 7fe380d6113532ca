"""The benchmark table as a picture: how many times faster each task is, beside what was promised."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from benchmarks.table import Row, duration, times
from medvlm_probe.plots.style import BLUE, INK, MUTED, PALE, style


def draw(rows: Sequence[Row]) -> Figure:
    """Return a figure with a bar for every row that has an alternative, the fastest on top, on a log scale."""
    compared = sorted((row for row in rows if row.times_faster is not None), key=lambda row: row.times_faster or 0)
    largest = max((max(row.times_faster or 1, row.bar or 1) for row in compared), default=1)
    with style():
        figure = Figure(figsize=(7.1, 0.7 + 0.36 * len(compared)), layout="constrained")
        axes = figure.subplots()
        for place, row in enumerate(compared):
            ratio = row.times_faster or 0
            axes.barh(place, ratio - 1, left=1, height=0.5, color=BLUE)
            if row.bar is not None:
                axes.plot([row.bar] * 2, [place - 0.4, place + 0.4], color=PALE, linewidth=3.5)
                axes.plot([row.bar] * 2, [place - 0.4, place + 0.4], color=INK, linewidth=1.5)
            said = f"{times(ratio)}, {duration(row.seconds)}"
            axes.text(max(ratio, row.bar or 0) * 1.12, place, said, va="center", color=INK)
        axes.set_yticks(range(len(compared)), [f"{row.task}\n" for row in compared])
        for place, row in enumerate(compared):
            axes.annotate(
                f"against {row.instead}",
                (0, place),
                xycoords=("axes fraction", "data"),
                xytext=(-3.5, -5),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=7,
                color=MUTED,
            )
        axes.tick_params(axis="y", length=0)
        axes.set_xscale("log")
        axes.set_xlim(1, largest * 8)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlabel("times faster, and our time; black line: promised")
    return figure
