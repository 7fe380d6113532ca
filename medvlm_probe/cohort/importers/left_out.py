"""What importers tell people besides the table: rows of `Published.skipped`, and sentences with counts."""

from __future__ import annotations

import pandas as pd

from medvlm_probe.cohort.importers.published import no_rows


def skipped(what: pd.Series, reason: str | pd.Series) -> pd.DataFrame:
    """Return rows of `Published.skipped`: what was left out, and why."""
    return pd.DataFrame({"what": what, "reason": reason})


def joined(*tables: pd.DataFrame | None) -> pd.DataFrame:
    """Return the rows of several tables of skipped things, those without rows passed over."""
    filled = [table.astype(object) for table in tables if table is not None and len(table)]
    return pd.concat(filled, ignore_index=True) if filled else no_rows()


def counted(count: int, text: str) -> tuple[str, ...]:
    """Return "TEXT: COUNT." as a note, none for a count of 0."""
    return (f"{text}: {count:,}.",) if count else ()
