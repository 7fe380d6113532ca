"""Cells of a page's tables: what a JSON value looks like to people, and which numbers must not be shown."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeGuard

from medvlm_probe.cohort.labels import display_name
from medvlm_probe.plots.style import number, value_words
from medvlm_probe.report.words import IDENTIFIERS, NOT_PEOPLE, heading

FEWEST = 10
"""Cells of fewer people, and results of fewer positives or groups, are not shown."""
TOO_FEW, SUPPRESSED, UNDEFINED, UNRELIABLE = "too few", f"under {FEWEST}", "–", " ?"

Kind = Literal["text", "number", "few", "pass", "fail", "unsure"]
Record = Mapping[str, Any]

_PSEUDONYM = re.compile(r"[a-z]{2,12}-[0-9a-f]{6,64}")
_ESTIMATE = {"value", "low", "high"}
_TEST = {"statistic", "p_value"}
_VERDICTS: dict[str, Kind] = {"pass": "pass", "fail": "fail", "not enough evidence": "unsure"}


@dataclass(frozen=True)
class Cell:
    """One cell: its text, what it is, and a second line in small print."""

    text: str
    kind: Kind = "text"
    note: str = ""


@dataclass(frozen=True)
class TableStyle:
    """How records become tables.

    Attributes:
        labels: label to the words that people read.
        small_cells: show counts under ten people and what they would give away: for phantoms, and inside a hospital.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    small_cells: bool = False


@dataclass(frozen=True)
class RowStyle:
    """How the cells of one row are shown.

    Attributes:
        table: of the table.
        few: too few positives, negatives or groups are behind the row to show its numbers.
        rounded: one of its counts is suppressed, so the others are rounded to tens.
        with_sizes: n and groups stand below each estimate.
    """

    table: TableStyle
    few: bool
    rounded: bool
    with_sizes: bool


def is_estimate(value: object) -> TypeGuard[Record]:
    """Return whether a value of a JSON file is an estimate."""
    return isinstance(value, Mapping) and value.keys() >= _ESTIMATE


def is_test(value: object) -> TypeGuard[Record]:
    """Return whether a value of a JSON file is a test's result and nothing else."""
    return isinstance(value, Mapping) and value.keys() >= _TEST and value.keys() <= _TEST | {"p_adjusted"}


def row_style(row: Record, table: TableStyle, *, with_sizes: bool) -> RowStyle:
    """Return how a row is shown."""
    names = ("n_positive", "n_negative", "n_groups", "n_positives", "n_negatives")
    hide = not table.small_cells
    few = hide and any(_is_small(row.get(name)) for name in names)
    rounded = hide and any(is_count(name, value) and _is_small(value) for name, value in row.items())
    return RowStyle(table, few, few or rounded, with_sizes)


def cell(name: str, row: Record, decimals: int, style: RowStyle) -> Cell:
    """Return a row's cell of a column, numbers with so many decimals."""
    value, last = row.get(name), name.rpartition(".")[2]
    if last in IDENTIFIERS:
        return Cell(str(value) if isinstance(value, str) and _PSEUDONYM.fullmatch(value) else "(left out)")
    if is_estimate(value):
        return _estimate(value, decimals, style)
    if is_test(value):
        return Cell(TOO_FEW, "few") if style.few else _test(value)
    if name == "name" and isinstance(value, str):
        return Cell(heading(value) if value not in style.table.labels else style.table.labels[value])
    if isinstance(value, str):
        kind = _VERDICTS.get(value, "text") if last == "verdict" else "text"
        return Cell(_words(last, value, style.table), kind)
    counted = str(row.get("name", "")) if last == "value" else last
    if is_count(counted, value):
        return _counts(value, style)
    if isinstance(value, bool) or value is None:
        return Cell(value_text(value))
    if style.few and not last.startswith("threshold"):
        return Cell(TOO_FEW, "few")
    if last.startswith("p_") and isinstance(value, float):
        return Cell(_p(value), "number")
    if isinstance(value, (int, float)):
        return Cell(number(value, decimals) if isinstance(value, float) else value_text(value), "number")
    return Cell(value_text(value), "number")


def _estimate(value: Record, decimals: int, style: RowStyle) -> Cell:
    n, groups = value.get("n"), value.get("n_groups")
    if value["value"] is None or not math.isfinite(value["value"]):
        return Cell(UNDEFINED, "number")
    if style.few or (not style.table.small_cells and any(_is_small(count) for count in (n, groups))):
        return Cell(TOO_FEW, "few")
    low, high = (math.nan if value[side] is None else float(value[side]) for side in ("low", "high"))
    unreliable = "unreliable" in str(value.get("method", "")) or value.get("reliable") is False
    sizes = f"n {number(n, 0)}" + (f", {number(groups, 0)} groups" if groups and groups != n else "") if n else ""
    text = value_words(float(value["value"]), low, high, decimals)
    return Cell(f"{text}{UNRELIABLE}" if unreliable else text, "number", sizes if style.with_sizes else "")


def _test(value: Record) -> Cell:
    raw, adjusted = value.get("p_value"), value.get("p_adjusted")
    if raw is None:
        return Cell(UNDEFINED, "number")
    return Cell(f"p {_p(raw)}", "number", f"corrected {_p(adjusted)}" if adjusted is not None else "")


def _p(value: float) -> str:
    if not math.isfinite(value):
        return UNDEFINED
    if value < 1e-4:
        return "< 0.0001"
    return f"{value:.2g}" if value >= 0.001 else f"{value:.1g}"


def count_cell(value: Any, style: RowStyle) -> Cell:
    """Return a count of images or people."""
    if value is None:
        return Cell(UNDEFINED, "number")
    if not style.table.small_cells and _is_small(value):
        return Cell(SUPPRESSED, "few")
    return Cell(f"≈ {number(round(value, -1), 0)}" if style.rounded and value else number(value, 0), "number")


def _counts(value: Any, style: RowStyle) -> Cell:
    cells = [count_cell(entry, style) for entry in (value if isinstance(value, list) else [value])]
    return Cell(" / ".join(one.text for one in cells), "few" if any(one.kind == "few" for one in cells) else "number")


def is_count(name: str, value: Any) -> bool:
    """Return whether a field counts people or images, or is a list of such counts."""
    named = name == "n" or (name.startswith("n_") and name not in NOT_PEOPLE)
    numbers = value if isinstance(value, list) else [value]
    return named and all(
        isinstance(entry, (int, float)) and not isinstance(entry, bool) and float(entry).is_integer()
        for entry in numbers
    )


def _is_small(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 < value < FEWEST


def _words(name: str, value: str, style: TableStyle) -> str:
    if value in style.labels:
        return style.labels[value]
    if name in {"label", "metric", "quantity", "fact", "test", "method"} and re.fullmatch(
        r"[a-z0-9]+(_[a-z0-9]+)*", value
    ):
        return heading(value) if name != "label" else display_name(value)
    return value


def value_text(value: Any) -> str:
    """Return a single JSON value as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return number(value, 0)
    if isinstance(value, float):
        return number(value, 0 if value.is_integer() and abs(value) < 1e9 else digits(value))
    if value is None:
        return UNDEFINED
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(value_text(entry) for entry in value)
    return str(value)


def digits(largest: float) -> int:
    """Return decimals that show three significant digits of the largest number."""
    return min(max(2 - math.floor(math.log10(abs(largest))), 0), 6) if largest else 0
