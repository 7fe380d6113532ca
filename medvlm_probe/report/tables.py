"""Tables of a page, made of the records that results' files hold: estimates, tests, counts, words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medvlm_probe.plots.style import decimals_for
from medvlm_probe.report.cells import (
    FEWEST,
    SUPPRESSED,
    TOO_FEW,
    UNRELIABLE,
    Cell,
    Record,
    TableStyle,
    cell,
    count_cell,
    digits,
    is_estimate,
    is_test,
    row_style,
)
from medvlm_probe.report.words import IDENTIFIERS, heading

MOST_ROWS = 40

_ESTIMATE = ("value", "low", "high")
_BESIDES = {"method", "reliable", "null", "settings", "seconds"}


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Attributes:
        caption: what it holds.
        headings: of its columns; the first column names the rows.
        numeric: which columns hold numbers, and are set to the right.
        rows: a cell for each heading.
        notes: what a reader needs beside it: cells left out, rows left out, marks explained.
    """

    caption: str
    headings: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


def make_table(
    records: Sequence[Record], caption: str, style: TableStyle, *, columns: Sequence[str] = ()
) -> Table | None:
    """Return a table of records, one a row; None where there is nothing to show.

    Estimates are shown as `value [low, high]` with n and groups, in columns of their own where a row has one n for all.
    In a row with fewer than ten positives, negatives or groups, numbers that would give them away are "too few";
    counts under ten are "under 10", and the row's other counts are rounded to tens, so that none can be subtracted.

    Args:
        records: JSON objects; nested ones become columns `outer.inner`.
        caption: what the table holds.
        style: words for labels, and whether small cells are shown.
        columns: fields to show, in this order, as far as they exist; empty shows all.
    """
    rows = [_flat(record) for record in records]
    found = list(dict.fromkeys(key for row in rows for key in row))
    wanted = [name for name in columns if name in found] if columns else found
    names = [name for name in wanted if any(_present(row.get(name)) for row in rows)]
    if not names or not rows:
        return None
    shown = rows[:MOST_ROWS]
    decimals = {name: _decimals([row.get(name) for row in rows]) for name in names}
    sizes = [_sizes(row, names) for row in shown]
    apart = _sizes_apart(rows, names, sizes)
    if apart:
        names = [name for name in names if name not in ("n", "n_groups")]
    numeric = [_is_numeric(name, rows) for name in names]
    lines = []
    for row, size in zip(shown, sizes, strict=True):
        look = row_style(row, style, with_sizes=not apart)
        cells = [
            cell(name, row, decimals[name], look) if is_number or _present(row.get(name)) else Cell("")
            for name, is_number in zip(names, numeric, strict=True)
        ]
        if apart:
            n, groups = next(iter(size), (None, None))
            cells += [count_cell(value, look) for value in (n, groups)]
        lines.append(tuple(cells))
    headings = ["" if name == "name" else heading(name) for name in names] + (["n", "Groups"] if apart else [])
    columns_numeric = (*numeric, *((True, True) if apart else ()))
    return Table(caption, tuple(headings), columns_numeric, tuple(lines), _notes(lines, len(rows)))


def tables_of(value: Any, caption: str, style: TableStyle) -> list[Table]:
    """Return all that a JSON value holds as tables: single values in one, each list or family of records in its own."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        records = [entry for entry in value if isinstance(entry, Mapping)]
        inner = [(key, records_of(records, key)) for key in dict.fromkeys(_nested_keys(records))]
        tables = [make_table(records, caption, style)]
        tables += [make_table(rows, f"{caption}: {heading(key).lower()}", style) for key, rows in inner]
        return [table for table in tables if table]
    if not isinstance(value, Mapping):
        return []
    single = {key: entry for key, entry in value.items() if _is_single(entry)}
    tables = [make_table(_as_rows(single), caption, style)]
    for key, entry in value.items():
        if key in single or not entry or key in _BESIDES:
            continue
        title = f"{caption}: {heading(key).lower()}" if caption else heading(key)
        if isinstance(entry, Mapping) and all(_is_estimates(inner) for inner in entry.values()):
            tables.append(make_table([{"name": name, **inner} for name, inner in entry.items()], title, style))
        else:
            tables += tables_of(entry, title, style)
    return [table for table in tables if table]


def records_of(records: Sequence[Record], key: str) -> list[Record]:
    """Return the records nested under `key`, each with its owner's words before its own."""
    found: list[Record] = []
    for record in records:
        owner = {name: text for name, text in record.items() if isinstance(text, str) and name not in _BESIDES}
        inner = record.get(key)
        found += [{**owner, **entry} for entry in inner or () if isinstance(entry, Mapping)]
    return found


# --- Records ----------------------------------------------------------------------------------------------------------


def _flat(record: Record, prefix: str = "") -> dict[str, Any]:
    """Return a record's single values, estimates and tests; nested ones under `outer.inner`, lists of records not."""
    found: dict[str, Any] = {}
    if not prefix and is_estimate(record):
        found["value"] = {
            key: record[key] for key in (*_ESTIMATE, "n", "n_groups", "method", "reliable") if key in record
        }
        record = {key: entry for key, entry in record.items() if key not in found["value"]}
        # The estimate stands where its fields stood: behind the words that name it.
        words = {key: entry for key, entry in record.items() if isinstance(entry, str)}
        found = {**words, **found}
    for key, entry in record.items():
        name = f"{prefix}{key}"
        if key in _BESIDES and prefix + key != "method":
            continue
        if isinstance(entry, Mapping) and not is_estimate(entry) and not is_test(entry):
            found |= _flat(entry, f"{name}.")
        elif _is_single(entry):
            found[name] = entry
    return found


def _nested_keys(records: Sequence[Record]) -> Iterator[str]:
    for record in records:
        for key, entry in record.items():
            if isinstance(entry, list) and entry and all(isinstance(inner, Mapping) for inner in entry):
                yield key


def _is_single(value: Any) -> bool:
    if isinstance(value, Mapping):
        return is_estimate(value) or is_test(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return len(value) <= 8 and not any(isinstance(entry, (Mapping, list)) for entry in value)
    return True


def _is_estimates(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(_is_single(inner) for inner in value.values())


def _as_rows(single: Record) -> list[Record]:
    hidden = {"sentence", *_BESIDES}
    return [
        {"name": key, "value": entry}
        for key, entry in single.items()
        if key not in hidden and _present(entry) and key not in IDENTIFIERS
    ]


def _present(value: Any) -> bool:
    return value is not None and value != "" and value != []


# --- Columns ----------------------------------------------------------------------------------------------------------


def _decimals(values: Sequence[Any]) -> int:
    estimates = [v for v in values if is_estimate(v) and v["value"] is not None]
    if estimates:
        sides = [
            (math.nan if v["low"] is None else v["low"], math.nan if v["high"] is None else v["high"])
            for v in estimates
        ]
        span = max(abs(v["value"]) for v in estimates) or 1.0
        return min(decimals_for(sides, span), 4)
    floats = [v for v in values if isinstance(v, float) and math.isfinite(v)]
    if not floats or all(v.is_integer() for v in floats):
        return 0
    return digits(max(abs(v) for v in floats))


def _is_numeric(name: str, rows: Sequence[Record]) -> bool:
    """Return whether a column holds nothing but numbers, estimates and tests."""
    present = [row[name] for row in rows if _present(row.get(name))]
    return all(
        is_estimate(value) or is_test(value) or (isinstance(value, (int, float, list)) and not isinstance(value, bool))
        for value in present
    )


def _sizes(row: Record, names: Sequence[str]) -> set[tuple[Any, Any]]:
    cells = [row[name] for name in names if is_estimate(row.get(name)) and row[name]["value"] is not None]
    return {(cell.get("n", row.get("n")), cell.get("n_groups", row.get("n_groups"))) for cell in cells}


def _sizes_apart(rows: Sequence[Record], names: Sequence[str], sizes: Sequence[set[tuple[Any, Any]]]) -> bool:
    """Return whether n and groups can stand in columns of their own: estimates fill columns, with one n a row."""
    known = [{size for size in row if size != (None, None)} for row in sizes]
    mixed = any(
        any(is_estimate(row.get(name)) for row in rows)
        and any(_present(row.get(name)) and not is_estimate(row.get(name)) for row in rows)
        for name in names
    )
    return not mixed and all(len(row) <= 1 for row in known) and any(known)


def _notes(rows: Sequence[Sequence[Cell]], n_records: int) -> tuple[str, ...]:
    texts = [cell.text for row in rows for cell in row]
    notes = []
    if TOO_FEW in texts:
        notes.append(f"“{TOO_FEW}”: fewer than {FEWEST} positives or independent groups.")
    if any(SUPPRESSED in text for text in texts):
        notes.append(
            f"“{SUPPRESSED}”: suppressed, so that nobody can be picked out; counts beside it are rounded to tens."
        )
    if any(text.endswith(UNRELIABLE) for text in texts):
        notes.append("“?”: simulation shows that the interval is unreliable at this size.")
    if n_records > len(rows):
        notes.append(f"The first {len(rows)} of {n_records:,} rows; all of them are in the run's files.")
    return tuple(notes)
