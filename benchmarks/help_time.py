"""How long `medvlm-probe --help` takes, beside a bare typer program: `python -m benchmarks.help_time`."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.table import Row

REPEATS = 15
LIMIT_SECONDS = 0.4
RESULT = Path(__file__).resolve().parents[1] / "figures" / "benchmarks" / "help_time.json"

BARE_TYPER = "import typer; app = typer.Typer(); app.command()(lambda: None); app(['--help'], standalone_mode=False)"
PROGRAMS = {
    "medvlm-probe --help": [str(Path(sys.executable).parent / "medvlm-probe"), "--help"],
    "medvlm-probe embed-dist --help": [str(Path(sys.executable).parent / "medvlm-probe"), "embed-dist", "--help"],
    "typer with one command": [sys.executable, "-c", BARE_TYPER],
    "python -c pass": [sys.executable, "-c", "pass"],
}


def seconds(command: list[str]) -> float:
    """Return the wall time of one run."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def measure(repeats: int) -> dict[str, float]:
    """Return each program's median seconds."""
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(repeats):
        for name, command in PROGRAMS.items():
            times[name].append(seconds(command))
    return {name: statistics.median(values) for name, values in times.items()}


def rows(quick: bool) -> list[Row]:
    """Return the row of `--help`, above that of a typer program with nothing in it."""
    ours, _, bare, _ = measure(3 if quick else REPEATS).values()
    floor = "a bare typer program"
    return [Row("--help", "", ours, floor_seconds=bare, floor=floor, limit=LIMIT_SECONDS)]


def main() -> None:
    found = measure(REPEATS)
    for name, value in found.items():
        print(f"{name:34s} {value:.3f} s")
    print(f"limit {LIMIT_SECONDS} s")
    rounded = {name: round(value, 4) for name, value in found.items()}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps({"median_seconds": rounded, "repeats": REPEATS}, indent=2) + "\n")


if __name__ == "__main__":
    main()
