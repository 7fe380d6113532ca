"""How often the intervals of prevalence and performance without labels hold the truth where label shift holds.

    python analyses/label_shift_coverage.py [--runs 200]

Writes figures/label_shift_coverage/coverage.csv: one row a layout and quantity. Scores are normal, positives higher by
`separation`; images of one patient share half of their noise and most of their labels. `coverage` counts the intervals
that call themselves reliable. Rows of `misfit` count runs whose true mixture was refuted at .05.
"""

from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path

import numpy as np
from scipy import special, stats

from medvlm_probe.shift.label_free import estimate_label_free
from medvlm_probe.shift.label_shift import estimate_label_shift
from medvlm_probe.types import Estimate

FIGURES = Path(__file__).resolve().parents[1] / "figures" / "label_shift_coverage"
LAYOUTS = (
    # reference patients, prevalence, site patients, prevalence, separation, images a patient
    (400, 0.1, 300, 0.1, 1.5, 1),
    (400, 0.1, 300, 0.4, 1.5, 1),
    (400, 0.1, 300, 0.0, 1.5, 1),
    (400, 0.1, 300, 0.1, 1.5, 2),
    (400, 0.3, 60, 0.6, 2.0, 1),
    (750, 0.08, 300, 0.5, 1.0, 1),
)


def sample(
    n_patients: int, prevalence: float, separation: float, images: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores and groups."""
    groups = np.repeat(np.arange(n_patients), images)
    own = rng.random(len(groups)) < (0.3 if images > 1 else 0)
    shared = (rng.random(n_patients) < prevalence)[groups]
    label = np.where(own, rng.random(len(groups)) < prevalence, shared).astype(float)
    correlation = 0.5 if images > 1 else 0.0
    noise = math.sqrt(correlation) * rng.standard_normal(n_patients)[groups]
    scores = noise + math.sqrt(1 - correlation) * rng.standard_normal(len(groups)) + separation * label
    return label, scores, groups


def one_run(
    layout: tuple[int, float, int, float, float, int], rng: np.random.Generator
) -> tuple[dict[str, tuple[Estimate, float]], float]:
    """Estimates beside their truths, and the p-value of the misfit."""
    n, prevalence, m, elsewhere, separation, images = layout
    label, scores, groups = sample(n, prevalence, separation, images, rng)
    _, site, other = sample(m, elsewhere, separation, images, rng)
    found = estimate_label_shift(label, scores, site, groups, other, rng=rng)
    cut = separation / 2

    def probability(s: np.ndarray) -> np.ndarray:
        """Probabilities that are too sure, .5 at the cut."""
        return special.expit(2 * separation * (s - cut))

    free = estimate_label_free(
        label, probability(scores), probability(site), groups, other, threshold=0.5, rng=rng, methods=("label_shift",)
    )["label_shift"]
    recall, specificity = stats.norm.sf(cut - separation), stats.norm.cdf(cut)
    called = elsewhere * recall + (1 - elsewhere) * (1 - specificity)
    pairs = {
        "black-box shift estimation": (found.bbse, elsewhere),
        "expectation maximisation": (found.em, elsewhere),
        "accuracy": (free["accuracy"], elsewhere * recall + (1 - elsewhere) * specificity),
        "recall": (free["recall"], recall),
        "precision": (free["precision"], elsewhere * recall / called),
    }
    return pairs, found.misfit_test.p_value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--out", type=Path, default=FIGURES)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    columns = ["reference_patients", "reference_prevalence", "site_patients", "site_prevalence", "separation", "images"]
    with (arguments.out / "coverage.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*columns, "quantity", "runs", "reliable", "coverage", "median_width"])
        for layout in LAYOUTS:
            rng = np.random.default_rng(1)
            runs = [one_run(layout, rng) for _ in range(arguments.runs)]
            for name in runs[0][0]:
                pairs = [found[name] for found, _ in runs]
                kept = [(e.low <= t <= e.high, e.high - e.low) for e, t in pairs if e.reliable]
                held, widths = zip(*kept, strict=True) if kept else ((math.nan,), (math.nan,))
                reliable = len(kept) / len(pairs)
                row = [*layout, name, arguments.runs, reliable, f"{np.mean(held):.3f}", f"{np.median(widths):.3f}"]
                table.writerow(row)
                print(*row, sep="  ", flush=True)
            refuted = np.mean([p <= 0.05 for _, p in runs])
            table.writerow([*layout, "misfit", arguments.runs, "", f"{refuted:.3f}", ""])
            print(*layout, "misfit refuted", refuted, sep="  ", flush=True)
            file.flush()


if __name__ == "__main__":
    main()
