"""How often identification names injected shifts rightly: a confusion matrix on features and on phantoms.

    python analyses/shift_identification.py [--runs 100] [--part features|phantoms] [--patients 800]

Writes figures/shift_identification/PART.csv: one row an injected shift and severity, how many runs were named none,
prevalence, covariate and both, and how often each interval of the site's prevalence holds the truth.

`features`: normal features in 32 dimensions, two images a patient correlated at .5; a label of prevalence .3 at the
reference that moves the mean by 2 standard deviations (an AUROC of .92) in one direction; the site has another
prevalence, or lies elsewhere (a random direction) and is narrower, or both. `phantoms`: phantom-clip's embeddings of
phantoms of the reference site with pleural effusion or not, one image a patient; patients are drawn anew for each run
without overlap, by label for a prevalence shift; for a covariate shift the site's images went through an acquisition
transform, or are another phantom site's.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medvlm_probe.shift.identification import ShiftIdentification, identify_shift

FIGURES = Path(__file__).resolve().parents[1] / "figures" / "shift_identification"
NAMES = ("none", "prevalence", "covariate", "both")
LABEL = "pleural_effusion"
ALTERED = ("gamma/v1@1.4", "resolution/v1@96")
OTHER_SITE = "community"
SEED = 5000


@dataclass(frozen=True)
class Sides:
    """What one run sees, and the site's true prevalence."""

    labels: np.ndarray
    reference: np.ndarray
    site: np.ndarray
    reference_groups: np.ndarray
    site_groups: np.ndarray
    truth: float


@dataclass(frozen=True)
class Design:
    """One injected shift, its severity in words, and how to draw a run of it."""

    injected: str
    severity: str
    prevalence: float
    move: float | str


def feature_designs() -> list[Design]:
    found = [Design("none", "", 0.3, 0.0)]
    found += [Design("prevalence", f".30 to {p:.2f}", p, 0.0) for p in (0.45, 0.6)]
    found += [Design("covariate", f"{m} sd, {m / 10:.0%} narrower", 0.3, m) for m in (0.5, 1.0)]
    found += [Design("both", f".30 to {p:.2f}, {m} sd", p, m) for p, m in ((0.45, 0.5), (0.6, 1.0))]
    return found


def feature_sides(design: Design, rng: np.random.Generator) -> Sides:
    """300 reference patients and 200 of the site, two images each."""
    d = 32
    direction = rng.standard_normal(d)
    move = float(design.move) * direction / np.linalg.norm(direction)
    sides = []
    for n_patients, prevalence, shift in ((300, 0.3, 0.0), (200, design.prevalence, 1.0)):
        groups = np.repeat(np.arange(n_patients), 2)
        label = (rng.random(n_patients) < prevalence)[groups]
        noise = rng.standard_normal((n_patients, d))[groups] + rng.standard_normal((2 * n_patients, d))
        x = noise / np.sqrt(2) + 2 * label[:, None] * np.eye(d)[0]
        x = (1 - shift * float(design.move) / 10) * x + shift * move
        # A constant direction, as models' embeddings have one: normalising then keeps the geometry.
        sides.append((label.astype(float), np.column_stack([x, np.full(len(x), 12.0)]), groups))
    (labels, reference, groups), (_, site, site_groups) = sides
    return Sides(labels, reference, site, groups, site_groups, design.prevalence)


def phantom_designs() -> list[Design]:
    moves = (*ALTERED, OTHER_SITE)
    found = [Design("none", "", 0.2, "plain"), Design("prevalence", ".20 to .40", 0.4, "plain")]
    found += [Design("covariate", move, 0.2, move) for move in moves]
    return found + [Design("both", f".20 to .40, {move}", 0.4, move) for move in moves]


def phantom_pool(n_patients: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return embeddings (n, d) and label (n,) of one image a patient, by what was done to the image."""
    import torch
    from PIL import Image

    from medvlm_probe.cohort.acquisition import acquire, parse_steps
    from medvlm_probe.cohort.phantom import draw, sample_patient
    from medvlm_probe.models.zoo import load_model

    model = load_model("phantom-clip")

    @torch.inference_mode()
    def embedded(images: list[Image.Image]) -> np.ndarray:
        blocks = [images[start : start + 50] for start in range(0, len(images), 50)]
        return np.concatenate(
            [model.encode_images(torch.stack([model.preprocess(i) for i in block])).numpy() for block in blocks]
        )

    pool = {}
    for site, n in (("reference", n_patients), (OTHER_SITE, n_patients // 2)):
        cases = [sample_patient(site, SEED, index, "balanced")[0] for index in range(n)]
        label = np.array([any(finding.kind == LABEL for finding in case.findings) for case in cases])
        images = [Image.fromarray(draw(case).pixels) for case in cases]
        pool["plain" if site == "reference" else site] = embedded(images), label
        for steps in ALTERED if site == "reference" else ():
            moved = [acquire(image, parse_steps(steps), str(k)) for k, image in enumerate(images)]
            pool[steps] = embedded(moved), label
    return pool


def phantom_sides(design: Design, pool: dict[str, tuple[np.ndarray, np.ndarray]], rng: np.random.Generator) -> Sides:
    """250 reference patients at a prevalence of .2, and 150 of the site."""
    plain, label = pool["plain"]
    reference = drawn(label, 250, 0.2, rng, np.ones(len(label), dtype=bool))
    left = np.ones(len(label), dtype=bool)
    left[reference] = False
    vectors, site_label = pool[str(design.move)]
    site = drawn(site_label, 150, design.prevalence, rng, left if len(site_label) == len(left) else site_label >= 0)
    return Sides(
        label[reference].astype(float),
        plain[reference],
        vectors[site],
        np.arange(250),
        np.arange(150),
        design.prevalence,
    )


def drawn(label: np.ndarray, n: int, prevalence: float, rng: np.random.Generator, free: np.ndarray) -> np.ndarray:
    n_present = rng.binomial(n, prevalence)
    present, absent = np.flatnonzero(label & free), np.flatnonzero(~label & free)
    return np.concatenate(
        [rng.choice(present, n_present, replace=False), rng.choice(absent, n - n_present, replace=False)]
    )


def rows(part: str, runs: int, patients: int) -> Iterator[dict[str, object]]:
    pool = phantom_pool(patients) if part == "phantoms" else {}
    for design in phantom_designs() if part == "phantoms" else feature_designs():
        rng = np.random.default_rng(1)
        found: list[ShiftIdentification] = []
        held = np.zeros(2)
        for _ in range(runs):
            sides = phantom_sides(design, pool, rng) if pool else feature_sides(design, rng)
            one = identify_shift(
                sides.labels, sides.reference, sides.site, sides.reference_groups, sides.site_groups, rng=rng
            )
            found.append(one)
            held += [e.low <= sides.truth <= e.high for e in (one.site_prevalence, one.shape_prevalence)]
        named = Counter(one.shift for one in found)
        yield {
            "injected": design.injected,
            "severity": design.severity,
            "runs": runs,
            **{name: named[name] for name in NAMES},
            "named_rightly": f"{named[design.injected] / runs:.2f}",
            "prevalence_held": f"{held[0] / runs:.2f}",
            "shape_prevalence_held": f"{held[1] / runs:.2f}",
            "median_effective_share": f"{np.median([one.effective_share for one in found]):.2f}",
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--part", choices=("features", "phantoms"), default="features")
    parser.add_argument("--patients", type=int, default=800)
    parser.add_argument("--out", type=Path, default=FIGURES)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (arguments.out / f"{arguments.part}.csv").open("w", newline="") as file:
        table: csv.DictWriter[str] | None = None
        for row in rows(arguments.part, arguments.runs, arguments.patients):
            if table is None:
                table = csv.DictWriter(file, list(row), lineterminator="\n")
                table.writeheader()
            table.writerow(row)
            file.flush()
            print(*row.values(), sep="  ", flush=True)


if __name__ == "__main__":
    main()
