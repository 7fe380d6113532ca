"""False alarms of the sequential test over streams of 5,000 patients, and how soon it notices a change.

    python analyses/monitor_false_alarms.py [--streams 200]

Writes figures/monitor/false_alarms.csv and figures/monitor/delays.csv.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from medvlm_probe.shift.sequential import simulate_delays

PROJECT = Path(__file__).resolve().parents[1]
LENGTH = 5_000
POOLS = {
    "normal scores": lambda rng: rng.standard_normal(400),
    "heavy tails": lambda rng: rng.standard_t(2, 400),
    "five different scores": lambda rng: rng.integers(0, 5, 400).astype(float),
    "50 reference patients": lambda rng: rng.standard_normal(50),
}
SHIFTS = (0.25, 0.5, 1.0, 2.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--out", type=Path, default=PROJECT / "figures" / "monitor")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []
    for name, draw in POOLS.items():
        for alpha in (0.05, 0.01):
            pool = draw(rng)
            found = simulate_delays(
                pool, pool, change_at=LENGTH - 1, length=LENGTH, alpha=alpha, rng=rng, n_streams=arguments.streams
            )
            rows.append((name, alpha, arguments.streams, LENGTH, found.false_alarms))
            print(*rows[-1], flush=True)
    columns = ["scores", "alpha", "streams", "patients", "false_alarms"]
    pd.DataFrame(rows, columns=columns).to_csv(arguments.out / "false_alarms.csv", index=False, lineterminator="\n")
    rows = []
    for shift in SHIFTS:
        for change_at in (0, 1_000, 4_000):
            pool = rng.standard_normal(400)
            found = simulate_delays(
                pool,
                pool + shift,
                change_at=change_at,
                length=change_at + 1_000,
                alpha=0.05,
                rng=rng,
                n_streams=arguments.streams,
            )
            rows.append((shift, change_at, found.median, found.upper, found.detected, found.false_alarms))
            print(*rows[-1], flush=True)
    columns = ["shift_in_deviations", "change_at", "median_delay", "delay_90_percent", "noticed", "false_alarms"]
    pd.DataFrame(rows, columns=columns).to_csv(arguments.out / "delays.csv", index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
