"""How often the intervals of a finding's prevalence, estimated without labels, hold the truth where label shift holds.

    python analyses/label_shift_coverage.py [--runs 250]

Writes figures/label_shift/coverage.csv: for each AUROC of the classifier, prevalence and size, black-box shift
estimation and expectation maximisation: the share of intervals that hold the truth, of all (`coverage`) and of those
that call themselves reliable (`coverage_if_reliable`, `reliable` of all). `refuted` is how often the true mixture was
refuted at .05. Anew after each layout.

Scores are normal, those with the finding higher and `spread` times as wide; images of one patient share half of their
noise and most of their labels.
"""

from __future__ import annotations

import argparse
import itertools
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from simulation_tables import Rows, share_of, write_cells

from medvlm_probe.shift.label_shift import LabelShift, estimate_label_shift

FIGURES = Path(__file__).resolve().parents[1] / "figures" / "label_shift"


@dataclass(frozen=True)
class Layout:
    """Patients and prevalence of both sides, the classifier's AUROC, and what makes it harder."""

    auroc: float
    site_prevalence: float
    site_patients: int
    reference_patients: int = 400
    reference_prevalence: float = 0.1
    images_a_patient: int = 1
    spread: float = 1.0

    @property
    def separation(self) -> float:
        """How much higher the finding's mean score is, in the others' standard deviations."""
        return float(stats.norm.ppf(self.auroc)) * math.sqrt(1 + self.spread**2)


LAYOUTS = [
    *(Layout(*cell) for cell in itertools.product((0.65, 0.75, 0.85, 0.95), (0.0, 0.05, 0.2, 0.6), (60, 300))),
    # Ten positives at the reference; several images a patient; positives that score more variably than any curve says.
    *(Layout(auroc, p, 300, reference_patients=100) for auroc in (0.75, 0.95) for p in (0.05, 0.6)),
    *(Layout(0.85, p, 300, images_a_patient=2) for p in (0.0, 0.2)),
    *(Layout(0.85, p, 300, spread=1.6) for p in (0.05, 0.6)),
]


def sample(
    n_patients: int, prevalence: float, layout: Layout, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, scores and groups."""
    images = layout.images_a_patient
    groups = np.repeat(np.arange(n_patients), images)
    own = rng.random(len(groups)) < (0.3 if images > 1 else 0)
    shared = (rng.random(n_patients) < prevalence)[groups]
    label = np.where(own, rng.random(len(groups)) < prevalence, shared).astype(float)
    correlation = 0.5 if images > 1 else 0.0
    noise = math.sqrt(correlation) * rng.standard_normal(n_patients)[groups]
    noise = noise + math.sqrt(1 - correlation) * rng.standard_normal(len(groups))
    return label, np.where(label == 1, layout.spread * noise + layout.separation, noise), groups


def one_run(layout: Layout, rng: np.random.Generator) -> LabelShift | None:
    """Return both estimates; None where the reference has no positive at all."""
    label, scores, groups = sample(layout.reference_patients, layout.reference_prevalence, layout, rng)
    _, site, other = sample(layout.site_patients, layout.site_prevalence, layout, rng)
    return estimate_label_shift(label, scores, site, groups, other, rng=rng) if label.any() else None


def rows_of(layout: Layout, found: list[LabelShift]) -> list[dict[str, Any]]:
    """Return a row a method."""
    truth, rows = layout.site_prevalence, []
    refuted = np.mean([one.misfit_test.p_value <= 0.05 for one in found])
    for method in ("bbse", "em"):
        estimates = [getattr(one, method) for one in found]
        held = np.array([e.low <= truth <= e.high for e in estimates])
        reliable = np.array([e.reliable for e in estimates])
        rows.append(
            asdict(layout)
            | {"method": method, "runs": len(found), **share_of("coverage", held)}
            | {"reliable": f"{reliable.mean():.3f}"}
            | {"coverage_if_reliable": f"{held[reliable].mean():.4f}" if reliable.any() else ""}
            | {"median_width": f"{np.median([e.high - e.low for e in estimates]):.3f}", "refuted": f"{refuted:.3f}"}
        )
    return rows


def cells(runs: int) -> Rows:
    for layout in LAYOUTS:
        rng = np.random.default_rng(1)
        found = [one for _ in range(runs) if (one := one_run(layout, rng)) is not None]
        yield str(layout), rows_of(layout, found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=250)
    parser.add_argument("--out", type=Path, default=FIGURES)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_cells(arguments.out / "coverage.csv", cells(arguments.runs))


if __name__ == "__main__":
    main()
