"""The row that every benchmark gives, and how rows become a table for a terminal, for Markdown and for a machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

HEADINGS = ("task", "size", "ours", "instead", "theirs", "times faster", "bar", "agreement", "times the floor")


@dataclass(frozen=True)
class Row:
    """One task, measured in one process beside what a user would pick instead.

    Attributes:
        task: what is done.
        size: on how much.
        seconds: ours, the median.
        instead: what a user would pick; None where there is nothing that does it.
        seconds_instead: its median; None without.
        extrapolated: whether `seconds_instead` was measured on a part and multiplied.
        agreement: how far the results differ.
        floor_seconds: the least that the task could take on this machine; None where no floor is known.
        floor: what the floor consists of.
        bar: how many times faster ours has to be; None where nothing was promised.
        limit: the most seconds that ours may take; None where nothing was promised.
    """

    task: str
    size: str
    seconds: float
    instead: str | None = None
    seconds_instead: float | None = None
    extrapolated: bool = False
    agreement: str = ""
    floor_seconds: float | None = None
    floor: str = ""
    bar: float | None = None
    limit: float | None = None

    @property
    def times_faster(self) -> float | None:
        """The alternative's seconds over ours."""
        return None if self.seconds_instead is None else self.seconds_instead / self.seconds

    @property
    def times_the_floor(self) -> float | None:
        """Our seconds over the floor's; 1 cannot be beaten."""
        return None if self.floor_seconds is None else self.seconds / self.floor_seconds

    @property
    def held(self) -> bool | None:
        """Whether what was promised holds; None where nothing was."""
        if self.bar is not None and self.times_faster is not None:
            return self.times_faster >= self.bar
        return None if self.limit is None else self.seconds <= self.limit


def cells(row: Row) -> tuple[str, ...]:
    """Return a row's words under `HEADINGS`."""
    faster, floor = row.times_faster, row.times_the_floor
    promised = f"{row.bar:g} x" if row.bar is not None else f"{row.limit:.3g} s" if row.limit is not None else ""
    return (
        row.task,
        row.size,
        duration(row.seconds),
        row.instead or "-",
        "" if row.seconds_instead is None else duration(row.seconds_instead) + (" *" if row.extrapolated else ""),
        "" if faster is None else times(faster),
        promised + {True: "", False: " missed", None: ""}[row.held],
        row.agreement,
        "" if floor is None else f"{times(floor)} ({row.floor})",
    )


def duration(seconds: float) -> str:
    """Return seconds in words of three digits."""
    for below, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (600.0, 1.0, "s")):
        if seconds < below:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds / 60:.3g} min" if seconds < 36_000 else f"{seconds / 3600:.3g} h"


def times(ratio: float) -> str:
    """Return a ratio in words of two digits."""
    return f"{ratio:.1f} x" if ratio < 10 else f"{ratio:.0f} x"


def markdown(rows: Sequence[Row]) -> str:
    """Return the table in Markdown, with what the asterisk means."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in rows]
    if any(row.extrapolated for row in rows):
        lines += ["", "\\* measured on a part of the work, and multiplied."]
    return "\n".join(lines)


def text(rows: Sequence[Row]) -> str:
    """Return the table for a terminal."""
    table = [HEADINGS, *(cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(HEADINGS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in table)
