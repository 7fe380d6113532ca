"""How long `medvlm-probe --help` takes, beside a bare typer program: `python -m benchmarks.help_time`."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

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


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(REPEATS):
        for name, command in PROGRAMS.items():
            times[name].append(seconds(command))
    rows = {name: round(statistics.median(values), 4) for name, values in times.items()}
    for name, value in rows.items():
        print(f"{name:34s} {value:.3f} s")
    print(f"limit {LIMIT_SECONDS} s")
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps({"median_seconds": rows, "repeats": REPEATS}, indent=2) + "\n")


if __name__ == "__main__":
    main()
