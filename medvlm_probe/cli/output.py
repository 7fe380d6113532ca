"""What a command says: tables and paths for people, one JSON object for machines, progress on the side."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from medvlm_probe.errors import visible

if TYPE_CHECKING:
    from medvlm_probe.types import Estimate

PLAIN_LINE_SECONDS = 10.0


@dataclass(frozen=True)
class Output:
    """Where a command's words go: results to stdout, everything else to stderr; with `as_json` all words to stderr."""

    results: Console
    words: Console
    as_json: bool
    quiet: bool

    def say(self, text: str) -> None:
        """Print a line for people, unless the command is quiet."""
        if not self.quiet:
            self.words.print(escape(visible(text)), highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a line that matters, also when the command is quiet."""
        self.words.print(f"[yellow]Note:[/yellow] {escape(visible(text))}", highlight=False, soft_wrap=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str = "") -> None:
        """Print a small table: the first column is left-aligned, the others are numbers."""
        table = Table(
            title=Text(visible(title)), title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
        )
        for position, column in enumerate(columns):
            first = position == 0
            table.add_column(
                Text(visible(column)), justify="left" if first else "right", no_wrap=not first, min_width=4
            )
        for row in rows:
            table.add_row(*(Text(visible(cell)) for cell in row))
        self.results.print(table)
        if caption:
            self.results.print(Text(visible(caption), style="dim"), soft_wrap=True)

    def line(self, text: str) -> None:
        """Print a line that belongs to the result."""
        self.results.print(Text(visible(text)), soft_wrap=True)

    def wrote(self, paths: Sequence[Path]) -> None:
        """Print the paths of what the command wrote."""
        for path in paths:
            self.say(f"Wrote {path}")

    def json(self, value: Any) -> None:
        """Print the one JSON object of `--json`."""
        print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[[int, int, float], None]]:
        """Give a callback `(done, total, seconds)`: a bar with rate and time left on a terminal, else plain lines."""
        if self.quiet:
            yield lambda done, total, seconds: None
        elif self.words.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            rate = TextColumn("{task.fields[rate]}")
            with Progress(*columns, rate, TimeRemainingColumn(), console=self.words, transient=True) as bar:
                task = bar.add_task(what, total=None, rate="")

                def show(done: int, total: int, seconds: float) -> None:
                    bar.update(task, completed=done, total=total, rate=_rate(done, seconds))

                yield show
        else:
            yield _plain_progress(self, what)


def make_output(*, as_json: bool = False, quiet: bool = False, no_color: bool = False) -> Output:
    """Return the output of a command. Without a terminal, lines are as long as they need to be."""
    words = Console(stderr=True, no_color=no_color)
    results = Console(stderr=as_json, no_color=no_color)
    if not results.is_terminal:
        results = Console(stderr=as_json, no_color=True, width=160)
    return Output(results=results, words=words, as_json=as_json, quiet=quiet)


def number(value: float, digits: int = 3) -> str:
    """Return a number for a table, or an en dash where it is undefined."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def interval(estimate: Estimate, digits: int = 3) -> str:
    """Return `value [low, high]`; a `?` marks an interval that is not reliable at this size."""
    if not math.isfinite(estimate.value):
        return "–"
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return f"{number(estimate.value, digits)} [–]"
    mark = "" if estimate.reliable else "?"
    return f"{number(estimate.value, digits)} [{number(estimate.low, digits)}, {number(estimate.high, digits)}]{mark}"


def p_value(value: float) -> str:
    """Return a p-value for a table: two significant digits, never 0."""
    if not math.isfinite(value):
        return "–"
    return f"{value:.2g}" if value >= 0.001 else f"{value:.1g}"


def _rate(done: int, seconds: float) -> str:
    return f"{done / seconds:.1f} images/s" if seconds > 0 and done else ""


def _plain_progress(output: Output, what: str) -> Callable[[int, int, float], None]:
    last = -math.inf

    def show(done: int, total: int, seconds: float) -> None:
        nonlocal last
        now = time.monotonic()
        if done and (now - last >= PLAIN_LINE_SECONDS or done == total):
            last = now
            left = seconds / done * (total - done) if done else math.nan
            rest = f", {left:.0f} s left" if done < total and math.isfinite(left) else ""
            output.say(f"{what}: {done} of {total} ({_rate(done, seconds)}{rest})")

    return show
