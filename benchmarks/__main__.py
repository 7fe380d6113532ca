"""Every speed claim in one table: `python -m benchmarks [--quick] [--only NAME ...] [--readme]`.

Runs each benchmark in this process, ours beside what a user would pick instead, and writes its rows into
figures/benchmarks/table.json as they come, then table.svg; `--only` leaves the others' rows as they are. `--readme`
puts the table that was written last into the README, and measures nothing. With `--quick` sizes are small, to see that
all of it runs, and nothing is written.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.table import Row, markdown, text

PROJECT = Path(__file__).resolve().parents[1]
RESULT = PROJECT / "figures" / "benchmarks" / "table.json"
NAMES = (
    "embed_throughput",
    "model_busy",
    "performance_metrics",
    "mmd",
    "kde_calibration",
    "prompt_tuning",
    "grad_cam",
    "class_distances",
    "linear_probe",
    "near_copies",
    "audit",
    "help_time",
)
BEGIN, END = "<!-- benchmarks: written by python -m benchmarks --readme -->", "<!-- end of benchmarks -->"
SCALE_BEGIN, SCALE_END = "<!-- scale: written by python -m benchmarks --readme -->", "<!-- end of scale -->"


def run(names: Sequence[str], quick: bool, keep: Callable[[str, list[Row]], None]) -> list[Row]:
    """Return all rows; each benchmark's are handed to `keep` and said on stderr as they come."""
    rows: list[Row] = []
    for name in names:
        print(f"benchmarks.{name} ...", file=sys.stderr, flush=True)
        started = time.perf_counter()
        found: list[Row] = import_module(f"benchmarks.{name}").rows(quick)
        print(f"{text(found)}\n{time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        keep(name, found)
        rows += found
    return rows


def write_rows(name: str, rows: Sequence[Row]) -> None:
    """Put a benchmark's rows into the table in place of its earlier ones, with the machine."""
    from benchmarks.machine import machine_facts

    rows_by_name = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else {}
    rows_by_name[name] = [asdict(row) for row in rows]
    found = {
        "machine": machine_facts(),
        "rows": {known: rows_by_name[known] for known in NAMES if known in rows_by_name},
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(found, indent=2) + "\n")


def read_rows() -> tuple[dict[str, Any], list[Row]]:
    """Return machine and rows of the table as it was written last."""
    found = json.loads(RESULT.read_text())
    return found["machine"], [Row(**row) for rows in found["rows"].values() for row in rows]


def readme_block() -> str:
    """Return the README's table, with the machine that it was measured on."""
    machine, rows = read_rows()
    on = f"{machine['cores']} cores ({machine['processor']}), torch {machine['torch']}, numpy {machine['numpy']}"
    return f"{BEGIN}\n{markdown(rows)}\n\nBoth sides of a row were measured in one process, in turn, on {on}.\n{END}"


def scale_block() -> str:
    """Return the README's paragraphs on large cohorts, from what `benchmarks.distributed_embed` measured last."""
    from benchmarks.distributed_embed import RESULT as MEASURED
    from benchmarks.distributed_embed import scale_text

    return f"{SCALE_BEGIN}\n{scale_text(json.loads(MEASURED.read_text())).strip()}\n{SCALE_END}"


def write_readme(path: Path) -> None:
    """Replace the README's table and its paragraphs on large cohorts by those measured last."""
    words = path.read_text()
    for begin, end, block in ((BEGIN, END, readme_block), (SCALE_BEGIN, SCALE_END, scale_block)):
        before, _, rest = words.partition(begin)
        _, _, after = rest.partition(end)
        words = before + block() + after
    path.write_text(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that all of it runs")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--readme", action="store_true", help="write the last table into the README, and stop")
    given = parser.parse_args()
    if given.readme:
        write_readme(PROJECT / "README.md")
        return
    rows = run(given.only or NAMES, given.quick, (lambda *_: None) if given.quick else write_rows)
    print(text(rows))
    if not given.quick:
        from benchmarks.figure import draw
        from medvlm_probe.plots.style import figure_bytes

        RESULT.with_suffix(".svg").write_bytes(figure_bytes(draw(read_rows()[1]), "svg"))


if __name__ == "__main__":
    main()
