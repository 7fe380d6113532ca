"""How far labels stray from their wanted shares: `cohort split` beside scikit-learn's GroupShuffleSplit.

    python -m benchmarks.split_balance [COHORT ...]

Both keep patients together and aim at 70, 15 and 15 %. A deviation is the distance of a label's share of positives in a
part from the part's share, in percentage points; "unserved" counts labels with three positive patients or more that are
missing from a part. GroupShuffleSplit is drawn with 100 seeds, ours with 5 (its counts hardly depend on the seed).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.splits import content_keys, make_splits

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
SEEDS_OURS, SEEDS_THEIRS = 5, 100
RESULT = Path(__file__).resolve().parents[1] / "figures" / "benchmarks" / "split_balance.json"


def deviations(positive: NDArray[np.bool_], parts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the deviation of each label in each part (P, L), percentage points."""
    totals = positive.sum(axis=0)
    shares = np.stack([positive[parts == number].sum(axis=0) / totals for number in range(len(SHARES))])
    return 100 * np.abs(shares - np.array(list(SHARES.values()))[:, None])


def unserved(positive: NDArray[np.bool_], parts: NDArray[np.int64], groups: NDArray[np.int64]) -> int:
    """Return how often a label with enough positive patients is missing from a part."""
    enough = [np.unique(groups[column]).size >= len(SHARES) for column in positive.T]
    return sum(int((~positive[parts == number].any(axis=0) & enough).sum()) for number in range(len(SHARES)))


def ours(cohort: Cohort, seed: int) -> NDArray[np.int64]:
    """Return each image's part by `make_splits`."""
    assigned = make_splits(cohort, SHARES, seed).assigned
    return np.array([list(SHARES).index(assigned[key]) for key in content_keys(cohort.source)])


def theirs(cohort: Cohort, seed: int) -> NDArray[np.int64]:
    """Return each image's part by two GroupShuffleSplits."""
    from sklearn.model_selection import GroupShuffleSplit

    groups = cohort.groups()
    _, rest = next(GroupShuffleSplit(1, train_size=SHARES["train"], random_state=seed).split(groups, groups=groups))
    _, last = next(GroupShuffleSplit(1, train_size=0.5, random_state=seed).split(rest, groups=groups[rest]))
    parts = np.zeros(len(cohort), np.int64)
    parts[rest] = 1
    parts[rest[last]] = 2
    return parts


def main(specs: list[str]) -> None:
    rows = []
    for spec in specs:
        cohort = load_cohort(spec)
        positive = cohort.targets() == 1
        positive = positive[:, positive.any(axis=0)]
        for name, split, n_seeds in (("ours", ours, SEEDS_OURS), ("GroupShuffleSplit", theirs, SEEDS_THEIRS)):
            start = time.perf_counter()
            drawn = [split(cohort, seed) for seed in range(n_seeds)]
            seconds = (time.perf_counter() - start) / n_seeds
            found = np.stack([deviations(positive, parts) for parts in drawn])
            row = {
                "cohort": cohort.name,
                "n_images": len(cohort),
                "name": name,
                "mean_deviation": round(float(found.mean()), 2),
                "rarest_label": round(float(found[:, :, positive.sum(axis=0).argmin()].mean()), 2),
                "largest": round(float(found.max()), 2),
                "unserved_a_split": round(sum(unserved(positive, p, cohort.groups()) for p in drawn) / n_seeds, 2),
                "seconds": round(seconds, 3),
            }
            rows.append(row)
            print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps({"shares": SHARES, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:] or ["phantom"])
