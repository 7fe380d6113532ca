"""How a table of a page is laid out: which records of a JSON file it shows, and in which columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medvlm_probe.report.cells import Record

Rows = Callable[[Any], Sequence[Record]]


@dataclass(frozen=True)
class TableLayout:
    """One table: its caption, its rows out of the question's JSON, its columns (none: all), and the keys it covers."""

    caption: str
    rows: Rows
    columns: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()


def under(key: str) -> Rows:
    """Return how to read the list of records that a JSON object holds under a key."""
    return lambda value: list(value.get(key) or ())


def named_under(key: str) -> Rows:
    """Return how to read an object of objects under a key: a record each, with its key as `name`."""
    return lambda value: [
        {"name": name, **entry} for name, entry in (value.get(key) or {}).items() if isinstance(entry, Mapping)
    ]


def all_rows(value: Any) -> Sequence[Record]:
    """Return the records of a JSON list."""
    return list(value)
