"""How often identification names injected shifts rightly: confusion matrices on features and on phantoms.

    python analyses/shift_identification.py [--part features|phantoms|oracle|figure] [--runs 100] [--seed 1]

Writes figures/shift_identification/PART.csv: one row an injected shift, severity, size and kind of evidence (the
site's labels, or scores alone): how many runs were named none, prevalence, covariate and both, and how often the
interval of the site's prevalence that allows for a move of the look holds the truth. `figure` draws both.

`features`: normal features in 32 dimensions, two images a patient correlated at .5; a label of prevalence .3 at the
reference that moves the mean by 2 standard deviations (an AUROC of .92) in one direction; the site has another
prevalence, or lies elsewhere (a random direction) and is narrower, or both. `phantoms`: phantom-clip's embeddings of
phantoms of the reference site, one image a patient, for an easy label (pleural effusion, AUROC 1.00) and a hard one
(lung lesion, .82). They are drawn and embedded once (--patients, kept in --pool); each run draws patients anew without
overlap, by label for a prevalence shift; for a covariate shift the site's images went through an acquisition transform,
or are another phantom site's. Rows that stand in the file are not run again. `oracle`: how often a likelihood-ratio
test that knows the densities of both classes (of the features, and of scores as far apart as lung lesion's), and that a
patient's images share their label, sees the change of prevalence: no test can do better.

The constants of `shift/identification*.py` were chosen on other draws (seed 99, pool seed 7001, and
`analyses/label_direction_moves.py`).
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from medvlm_probe.shift.identification import ShiftIdentification, identify_shift

FIGURES = Path(__file__).resolve().parents[1] / "figures" / "shift_identification"
NAMES = ("none", "prevalence", "covariate", "both")
HARD = "lung_lesion"
LABELS = ("pleural_effusion", HARD)
ALTERED = ("gamma/v1@2", "noise/v1@2000", "resolution/v1@96")
OTHER_SITE = "community"
SIZES = ((300, 200), (600, 400))
POOL_SEED = 7003
DESCRIPTION = ("injected", "severity", "label", "evidence", "reference_patients", "site_patients", "runs")


@dataclass(frozen=True)
class Sides:
    """What one run sees, and the site's true prevalence."""

    labels: np.ndarray
    reference: np.ndarray
    site: np.ndarray
    site_labels: np.ndarray
    reference_groups: np.ndarray
    site_groups: np.ndarray
    truth: float


@dataclass(frozen=True)
class Design:
    """One injected shift, its severity in words, and how to draw a run of it: patients on both sides, and the label."""

    injected: str
    severity: str
    prevalence: float
    move: float | str
    size: tuple[int, int]
    evidence: str = "scores"
    label: str = ""


def feature_designs() -> list[Design]:
    shifts = [("none", "", 0.3, 0.0)]
    shifts += [("prevalence", f".30 to {p:.2f}", p, 0.0) for p in (0.45, 0.6)]
    shifts += [("covariate", f"{m} sd, {m / 10:.0%} narrower", 0.3, m) for m in (0.5, 1.0)]
    shifts += [("both", f".30 to {p:.2f}, {m} sd", p, m) for p, m in ((0.45, 0.5), (0.6, 1.0))]
    first = [Design(*shift, SIZES[0]) for shift in shifts]
    mild = [shift for shift in shifts if shift[2] != 0.6 and shift[3] != 1.0]
    return first + [
        Design(*shift, size, evidence)
        for size, evidence in ((SIZES[1], "scores"), (SIZES[0], "labels"))
        for shift in mild
    ]


def feature_sides(design: Design, rng: np.random.Generator) -> Sides:
    """Two images a patient."""
    d = 32
    direction = rng.standard_normal(d)
    move = float(design.move) * direction / np.linalg.norm(direction)
    sides = []
    for n_patients, prevalence, shift in zip(design.size, (0.3, design.prevalence), (0.0, 1.0), strict=True):
        groups = np.repeat(np.arange(n_patients), 2)
        label = (rng.random(n_patients) < prevalence)[groups]
        noise = rng.standard_normal((n_patients, d))[groups] + rng.standard_normal((2 * n_patients, d))
        x = noise / np.sqrt(2) + 2 * label[:, None] * np.eye(d)[0]
        x = (1 - shift * float(design.move) / 10) * x + shift * move
        # A constant direction, as models' embeddings have one: normalising then keeps the geometry.
        sides.append((label.astype(float), np.column_stack([x, np.full(len(x), 12.0)]), groups))
    (labels, reference, groups), (site_labels, site, site_groups) = sides
    return Sides(labels, reference, site, site_labels, groups, site_groups, design.prevalence)


def phantom_designs() -> list[Design]:
    moves = (*ALTERED, OTHER_SITE)
    shifts = [("none", "", 0.2, "plain"), ("prevalence", ".20 to .40", 0.4, "plain")]
    shifts += [("covariate", move, 0.2, move) for move in moves]
    shifts += [("both", f".20 to .40, {move}", 0.4, move) for move in moves]
    settings = [(label, SIZES[0]) for label in LABELS] + [(HARD, SIZES[1])]
    return [Design(*shift, size, label=label) for label, size in settings for shift in shifts]


def pool_of_phantoms(path: Path, n_patients: int, seed: int) -> dict[str, np.ndarray]:
    """Return embeddings (n, d) of one image a patient by what was done to it, and labels (n, L) by site."""
    if path.exists():
        return dict(np.load(path))
    from phantom_pool import seen_phantoms

    labels, seen = seen_phantoms("reference", seed, n_patients, LABELS, ALTERED)
    labels_there, seen_there = seen_phantoms(OTHER_SITE, seed, n_patients // 2, LABELS)
    pool = {"labels reference": labels, "plain": seen.pop(""), **seen}
    pool |= {f"labels {OTHER_SITE}": labels_there, OTHER_SITE: seen_there[""]}
    aside = path.with_suffix(".part.npz")
    np.savez(aside, **pool)
    aside.replace(path)
    return pool


def phantom_sides(design: Design, pool: dict[str, np.ndarray], rng: np.random.Generator) -> Sides:
    """Patients of the reference at a prevalence of .2, and of the site, none on both sides."""
    column = LABELS.index(design.label)
    label = pool["labels reference"][:, column]
    n, m = design.size
    reference = drawn(label, n, 0.2, rng, np.ones(len(label), dtype=bool))
    left = np.ones(len(label), dtype=bool)
    left[reference] = False
    if design.move == OTHER_SITE:
        label_there = pool[f"labels {OTHER_SITE}"][:, column]
        left = np.ones(len(label_there), dtype=bool)
    else:
        label_there = label
    site = drawn(label_there, m, design.prevalence, rng, left)
    return Sides(
        label[reference].astype(float),
        pool["plain"][reference],
        pool[str(design.move)][site],
        label_there[site].astype(float),
        np.arange(n),
        np.arange(m),
        design.prevalence,
    )


def drawn(label: np.ndarray, n: int, prevalence: float, rng: np.random.Generator, free: np.ndarray) -> np.ndarray:
    n_present = rng.binomial(n, prevalence)
    present, absent = np.flatnonzero(label & free), np.flatnonzero(~label & free)
    return np.concatenate(
        [rng.choice(present, n_present, replace=False), rng.choice(absent, n - n_present, replace=False)]
    )


def described(design: Design, runs: int) -> tuple[str, ...]:
    return (design.injected, design.severity, design.label, design.evidence, *map(str, design.size), str(runs))


def standing(path: Path) -> dict[tuple[str, ...], dict[str, object]]:
    """Return the rows of an earlier call."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {tuple(row[name] for name in DESCRIPTION): dict(row) for row in csv.DictReader(file)}


def rows(
    designs: list[Design],
    pool: dict[str, np.ndarray],
    runs: int,
    seed: int,
    done: dict[tuple[str, ...], dict[str, object]],
) -> Iterator[dict[str, object]]:
    for number, design in enumerate(designs):
        standing_row = done.get(described(design, runs))
        yield standing_row or row_of(design, pool, runs, np.random.default_rng([seed, number]))


def row_of(design: Design, pool: dict[str, np.ndarray], runs: int, rng: np.random.Generator) -> dict[str, object]:
    found: list[ShiftIdentification] = []
    held = 0
    for _ in range(runs):
        sides = phantom_sides(design, pool, rng) if pool else feature_sides(design, rng)
        one = identify_shift(
            sides.labels,
            sides.reference,
            sides.site,
            sides.reference_groups,
            sides.site_groups,
            rng=rng,
            site_labels=sides.site_labels if design.evidence == "labels" else None,
        )
        found.append(one)
        held += one.prevalence_despite_move.low <= sides.truth <= one.prevalence_despite_move.high
    named = Counter(one.shift for one in found)
    return {
        "injected": design.injected,
        "severity": design.severity,
        "label": design.label,
        "evidence": design.evidence,
        "reference_patients": design.size[0],
        "site_patients": design.size[1],
        "runs": runs,
        **{name: named[name] for name in NAMES},
        "named_rightly": f"{named[design.injected] / runs:.2f}",
        "prevalence_held": f"{held / runs:.2f}",
        "median_move": f"{np.median([one.look_moved_by for one in found]):.2f}",
        "median_separation": f"{np.median([one.separation for one in found]):.1f}",
    }


@dataclass(frozen=True)
class Densities:
    """What the oracle knows: prevalence at the reference, distance of the classes, variance of a patient's score."""

    prevalence: float
    separation: float
    variance: float


ORACLES = {
    # The mean of two images correlated at .5 is sufficient, and has a variance of .75.
    Densities(0.3, 2.0, 0.75): (0.3, 0.45, 0.6),
    # As far apart as lung lesion's scores.
    Densities(0.2, 1.3, 1.0): (0.2, 0.4),
}


def oracle_rows(runs: int, seed: int) -> Iterator[dict[str, object]]:
    """Yield how often the likelihood-ratio test of two mixtures of known densities rejects equal prevalence at .05."""
    for known, prevalences in ORACLES.items():
        for n, m in SIZES:
            for prevalence in prevalences:
                rng = np.random.default_rng([seed, n, round(100 * prevalence)])
                yield {
                    "separation": known.separation,
                    "severity": f"{known.prevalence:.2f} to {prevalence:.2f}".replace("0.", ".", 1),
                    "reference_patients": n,
                    "site_patients": m,
                    "runs": runs,
                    "rejected": f"{np.mean([oracle_rejects(known, prevalence, n, m, rng) for _ in range(runs)]):.3f}",
                }


def oracle_rejects(known: Densities, prevalence: float, n: int, m: int, rng: np.random.Generator) -> bool:
    grid = np.linspace(0.02, 0.98, 97)
    gap, variance = known.separation, known.variance
    scores = gap * (rng.random(m) < prevalence) + np.sqrt(variance) * rng.standard_normal(m)
    ratio = np.exp((gap * scores - gap**2 / 2) / variance)
    site = np.log(1 + grid[:, None] * (ratio - 1)).sum(axis=1)
    reference = stats.binom.logpmf(rng.binomial(n, known.prevalence), n, grid)
    return bool(2 * (site.max() + reference.max() - (site + reference).max()) > stats.chi2.ppf(0.95, 1))


def draw_figure(folder: Path) -> None:
    """Draw both matrices beside each other, a block of rows a setting."""
    import pandas as pd

    from medvlm_probe.plots.identification import identification_figure
    from medvlm_probe.plots.style import figure_bytes

    features, phantoms = (
        pd.read_csv(folder / f"{part}.csv", keep_default_na=False) for part in ("features", "phantoms")
    )
    table = pd.concat([features.assign(side=0), phantoms.assign(side=1)], ignore_index=True)
    table["block"] = [
        f"{row.label.replace('_', ' ').capitalize() + ' in phantoms' if row.label else 'Normal features'}, "
        f"by {'the labels of the site' if row.evidence == 'labels' else 'scores'}\n"
        f"{row.reference_patients} patients at the reference, {row.site_patients} at the site"
        for row in table.itertuples()
    ]
    table["severity"] = [words.replace("/v1@", " ").replace(" to 0.", " to .") for words in table["severity"]]
    figure = identification_figure(table)
    for kind in ("svg", "png"):
        (folder / f"shift_identification.{kind}").write_bytes(figure_bytes(figure, kind, dpi=200))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--part", choices=("features", "phantoms", "oracle", "figure"), default="features")
    parser.add_argument("--seed", type=int, default=1, help="of the runs")
    parser.add_argument("--patients", type=int, default=3600, help="phantoms of the reference site in the pool")
    parser.add_argument("--pool-seed", type=int, default=POOL_SEED)
    parser.add_argument(
        "--pool", type=Path, help="file that keeps the pool's embeddings; left out: the temporary folder"
    )
    parser.add_argument("--out", type=Path, default=FIGURES)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.part == "figure":
        draw_figure(arguments.out)
        return
    path = arguments.out / f"{arguments.part}.csv"
    done = {} if arguments.part == "oracle" else standing(path)
    if arguments.part == "oracle":
        found = oracle_rows(max(arguments.runs, 2000), arguments.seed)
    elif arguments.part == "features":
        found = rows(feature_designs(), {}, arguments.runs, arguments.seed, done)
    else:
        name = f"phantom-pool-{arguments.pool_seed}-{arguments.patients}.npz"
        kept = arguments.pool or Path(tempfile.gettempdir()) / name
        pool = pool_of_phantoms(kept, arguments.patients, arguments.pool_seed)
        found = rows(phantom_designs(), pool, arguments.runs, arguments.seed, done)
    with path.open("w", newline="") as file:
        table: csv.DictWriter[str] | None = None
        for row in found:
            if table is None:
                table = csv.DictWriter(file, list(row), lineterminator="\n")
                table.writeheader()
            table.writerow(row)
            file.flush()
            print(*row.values(), sep="  ", flush=True)


if __name__ == "__main__":
    main()
