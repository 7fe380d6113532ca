"""Tables of simulations, written anew after each block of runs, so that what is stopped early keeps the runs it had."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

Rows = Iterator[tuple[str, list[dict[str, Any]]]]
"""A cell's name and its rows; a name that comes again replaces what it had."""


def write_cells(path: Path, cells: Rows) -> None:
    """Write the rows of all cells, anew after each."""
    start = time.perf_counter()
    found: dict[str, list[dict[str, Any]]] = {}
    for name, rows in cells:
        found[name] = rows
        everything = [row for cell in found.values() for row in cell]
        print(name, *rows[-1].values(), f"{time.perf_counter() - start:.0f} s", sep="  ", flush=True)
        with path.open("w", newline="") as file:
            columns = list(dict.fromkeys(key for row in everything for key in row))
            table = csv.DictWriter(file, columns, lineterminator="\n")
            table.writeheader()
            table.writerows(everything)


def rejected(p: np.ndarray) -> dict[str, Any]:
    """Return the share of p-values of at most .05."""
    return {"simulations": len(p), **share_of("rejected", p <= 0.05)}


def share_of(name: str, held: np.ndarray) -> dict[str, Any]:
    """Return a share and its standard error as columns."""
    share = float(np.mean(held)) if len(held) else float("nan")
    error = np.sqrt(share * (1 - share) / max(len(held), 1))
    return {name: f"{share:.4f}", "standard_error": f"{error:.4f}"}
