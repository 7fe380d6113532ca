"""Every speed claim in one table: `python -m benchmarks [--quick] [--only NAME ...] [--readme]`.

Runs each benchmark in this process, ours beside what a user would pick instead, and writes the table to
figures/benchmarks/table.json and table.svg. `--readme` puts the table that was written last into the README, and
measures nothing. With `--quick` sizes are small, to see that all of it runs, and nothing is written.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
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


def run(names: list[str], quick: bool) -> dict[str, Any]:
    """Return machine and rows; each benchmark's rows are said on stderr as they come."""
    from benchmarks.machine import machine_facts

    facts, rows = machine_facts(), []
    for name in names:
        print(f"benchmarks.{name} ...", file=sys.stderr, flush=True)
        started = time.perf_counter()
        found = import_module(f"benchmarks.{name}").rows(quick)
        print(f"{text(found)}\n{time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        rows += [asdict(row) for row in found]
    return {"machine": facts, "rows": rows}


def read_rows() -> tuple[dict[str, Any], list[Row]]:
    """Return machine and rows of the table that was written last."""
    found = json.loads(RESULT.read_text())
    return found["machine"], [Row(**row) for row in found["rows"]]


def readme_block() -> str:
    """Return the README's table, with the machine that it was measured on."""
    machine, rows = read_rows()
    on = f"{machine['cores']} cores ({machine['processor']}), torch {machine['torch']}, numpy {machine['numpy']}"
    return f"{BEGIN}\n{markdown(rows)}\n\nMeasured in one process on {on}.\n{END}"


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
    found = run(given.only or list(NAMES), given.quick)
    rows = [Row(**row) for row in found["rows"]]
    print(text(rows))
    if not given.quick and not given.only:
        from benchmarks.figure import draw
        from medvlm_probe.plots.style import figure_bytes

        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(found, indent=2) + "\n")
        RESULT.with_suffix(".svg").write_bytes(figure_bytes(draw(rows), "svg"))


if __name__ == "__main__":
    main()
