"""How often estimates of performance without labels hold the truth, by what moved: on phantoms and on real sites.

    python analyses/label_free_coverage.py [phantoms|real ...] [--runs 60]

Writes figures/label_free/phantoms.csv and real.csv (a row a shift, label, method and metric, anew after each shift),
summary.csv (labels and severities of one kind of shift together) and coverage.svg.

Each run draws patients with replacement from populations whose labels are known: some of the reference for threshold
and calibration, as many again to be compared with, and some of the site. `held` is the share of intervals that hold the
truth of the site's whole population, `held_if_reliable` that of intervals that call themselves reliable,
`held_in_sample` that on the run's own images (what an audit with labels sees), `held_if_fits` that of runs in which the
scores fit a mixture of the reference's, `fits` how many those are; errors are in points. `distance` is how well a
classifier tells the site's embeddings from the reference's (AUROC, .5: not at all), at the prevalences that the
populations have.

phantoms: phantom-clip; a prevalence is set by drawing images with and without the finding, and is the reference's where
only the scanner (or a gamma transform) differs. real: dino-minilm, Indiana's test split as the reference, and as a site
of its own; runs where ../shared is present.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from simulation_tables import Rows, write_cells

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "tests" / "statistics"))  # the tests run the same simulations

from label_free_simulation import Outcome, Population, one_run  # noqa: E402

from medvlm_probe.plots.intervals import IntervalAxis, interval_figure  # noqa: E402
from medvlm_probe.plots.style import figure_bytes  # noqa: E402
from medvlm_probe.runs import write_bytes_atomically  # noqa: E402
from medvlm_probe.shift import shift_tests  # noqa: E402

SHARED = PROJECT.parent / "shared"
FIGURES = PROJECT / "figures" / "label_free"
LABELS = ("lung_opacity", "pneumonia", "lung_lesion", "pneumothorax")
"""AUROC from .94 to .78 at the phantom reference site."""

PREVALENCES = (0.05, 0.4, 0.7)
MOVED = 0.5
PATIENTS = (300, 200)
FEWEST_PEOPLE = 10
WORDS = {
    "none": "Nothing moved",
    "prevalence": "Frequency moved",
    "covariate": "Look of the images moved",
    "both": "Both moved",
    "indiana": "Indiana against itself",
    "nih": "NIH against Indiana",
    "guangzhou": "Guangzhou against Indiana",
}


@dataclass(frozen=True)
class Shift:
    """What moved, how far, and every label's two populations."""

    kind: str
    severity: str
    distance: float
    populations: dict[str, tuple[Population, Population]]
    patients: tuple[int, int] = PATIENTS


def phantoms() -> Iterator[Shift]:
    from phantom_pool import ALTERED, SCANNERS, phantom_pool

    def populations(pool: Any) -> dict[str, Population]:
        return {
            label: Population.of(pool.targets[:, k], pool.scores.values[:, k], pool.groups)
            for k, label in enumerate(pool.scores.labels)
            if label in LABELS
        }

    reference = phantom_pool("reference")
    own = populations(reference)
    yield Shift("none", "", 0.5, {label: (one, one) for label, one in own.items()})
    for p in PREVALENCES:
        yield Shift("prevalence", f"to {p}", 0.5, {label: (one, one.at(p)) for label, one in own.items()})
    for name in (*SCANNERS, *ALTERED):
        pool = phantom_pool(name)
        away, distance = populations(pool), distance_of(reference, pool)
        same = {label: (one, away[label].at(float(one.labels.mean()))) for label, one in own.items()}
        yield Shift("covariate", name, distance, same)
        if name in ("portable", "gamma/v1@1.4"):
            moved = {label: (one, away[label].at(MOVED)) for label, one in own.items()}
            yield Shift("both", f"{name}, to {MOVED}", distance, moved)


@dataclass(frozen=True, eq=False)
class Seen:
    """A real site through the model."""

    vectors: np.ndarray
    groups: np.ndarray
    scores: np.ndarray
    targets: dict[str, np.ndarray]
    labels: tuple[str, ...]


def real() -> Iterator[Shift]:
    from medvlm_probe.cohort.catalog import load_cohort
    from medvlm_probe.embeddings.extract import embed
    from medvlm_probe.models.zoo import load_model
    from medvlm_probe.zero_shot.predict import resolve_task, zero_shot_scores

    model = load_model(f"local:{SHARED / 'models' / 'dino-minilm'}", device="cpu")
    indiana = load_cohort(str(SHARED / "real_cxr" / "iu_xray" / "manifest.csv")).select_split("test")
    several = load_cohort(str(SHARED / "real_cxr" / "multisite" / "manifest.csv"))
    task = resolve_task(indiana, "radiology", None, None)

    def seen(cohort: Any) -> Seen:
        embedded = embed(cohort, model, precision="float32", workers=1)
        used = cohort.select(embedded.rows)
        scores = zero_shot_scores(embedded.vectors, used, model, task)
        held = [label for label in scores.labels if label in used.labels]
        targets = dict(zip(held, used.targets(held).T, strict=True))
        return Seen(embedded.vectors, used.groups(), scores.values, targets, scores.labels)

    reference = seen(indiana)
    sites = several.sites()
    yield from _real_shift("none", "indiana again", reference, reference, 0.5)
    for name in ("nih", "guangzhou"):
        site = seen(several.select(sites == name))
        yield from _real_shift("real site", name, reference, site, distance_of(reference, site))


def _real_shift(kind: str, severity: str, reference: Seen, site: Seen, distance: float) -> Iterator[Shift]:
    found = {}
    for k, label in enumerate(reference.labels):
        if label not in site.targets or label not in reference.targets:
            continue
        sides = []
        for side in (reference, site):
            y = side.targets[label]
            people = min(len(np.unique(side.groups[y == kind])) for kind in (0, 1))
            if people >= 2 * FEWEST_PEOPLE:
                sides.append(Population.of(y, side.scores[:, k], side.groups))
        if len(sides) == 2:
            found[label] = (sides[0], sides[1])
    half = len(np.unique(reference.groups)) // 2
    yield Shift(kind, severity, distance, found, (half, min(half, len(np.unique(site.groups)))))


def distance_of(reference: Any, site: Any) -> float:
    """Return the cross-fitted AUROC between two sites' embeddings."""
    found = shift_tests.test_shift(
        reference.vectors,
        site.vectors,
        [f"reference {g}" for g in reference.groups],
        [f"site {g}" for g in site.groups],
        tests=("classifier",),
        n_permutations=99,
        rng=np.random.default_rng(0),
    )
    return found.tests[0].statistic


PARTS = {part.__name__: part for part in (phantoms, real)}


def cells(part: str, runs: int) -> Rows:
    for shift in PARTS[part]():
        rows = []
        for label, (reference, site) in shift.populations.items():
            rng = np.random.default_rng([1, *label.encode()])
            found = defaultdict(list)
            for _ in range(runs):
                for one in one_run(reference, site, shift.patients, rng):
                    found[one.method, one.metric].append(one)
            facts = {
                "shift": shift.kind,
                "severity": shift.severity,
                "distance": f"{shift.distance:.3f}",
                "label": label,
                "prevalence": f"{site.weights @ site.labels:.3f}",
            }
            rows += [facts | {"method": m, "metric": q} | row_of(outcomes) for (m, q), outcomes in found.items()]
        yield f"{shift.kind} {shift.severity}", rows


def row_of(outcomes: list[Outcome]) -> dict[str, Any]:
    """Return how often the intervals held, and the errors in points, of runs whose estimate is defined."""
    known = [one for one in outcomes if np.isfinite([one.value, one.low, one.high, one.truth]).all()]
    held, fits, reliable = (np.array([getattr(one, name) for one in known]) for name in ("held", "fits", "reliable"))
    in_sample = [one.low <= one.in_sample <= one.high for one in known]
    errors = 100 * np.array([one.value - one.truth for one in known])
    if not known:
        return {"runs": 0}
    return {
        "runs": len(known),
        "truth": f"{np.mean([one.truth for one in known]):.3f}",
        "held": f"{held.mean():.4f}",
        "reliable": f"{reliable.mean():.4f}",
        "held_if_reliable": f"{held[reliable].mean():.4f}" if reliable.any() else "",
        "held_in_sample": f"{np.mean(in_sample):.4f}",
        "fits": f"{fits.mean():.4f}",
        "held_if_fits": f"{held[fits].mean():.4f}" if fits.any() else "",
        "mean_error": f"{errors.mean():.2f}",
        "mean_absolute_error": f"{np.abs(errors).mean():.2f}",
        "median_width": f"{100 * np.median([one.high - one.low for one in known]):.2f}",
    }


def summary(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return labels and severities of one kind of shift together, each run counting once; real sites by name."""
    rows = []
    for cohort, table in tables.items():
        table = table[table["runs"] > 0]
        kind = table["shift"].where(table["shift"] != "real site", table["severity"])
        for (shift, method, metric), part in table.groupby([kind, "method", "metric"], sort=False):
            n = part["runs"].to_numpy()
            mean = {column: float(np.average(part[column], weights=n)) for column in ("held", "mean_absolute_error")}
            sure = n * part["reliable"]
            held_if = float((part["held_if_reliable"].fillna(0) * sure).sum() / sure.sum()) if sure.sum() else np.nan
            rows.append(
                {
                    "cohort": cohort,
                    "shift": shift,
                    "method": method,
                    "metric": metric,
                    "labels": part["label"].nunique(),
                    "runs": int(n.sum()),
                    "held": f"{mean['held']:.3f}",
                    "standard_error": f"{np.sqrt(mean['held'] * (1 - mean['held']) / n.sum()):.3f}",
                    "reliable": f"{sure.sum() / n.sum():.3f}",
                    "held_if_reliable": f"{held_if:.3f}",
                    "mean_error": f"{np.average(part['mean_error'], weights=n):.1f}",
                    "mean_absolute_error": f"{mean['mean_absolute_error']:.1f}",
                }
            )
    return pd.DataFrame(rows)


def draw(found: pd.DataFrame) -> Figure:
    """Return the shares of intervals that hold the true accuracy, a panel a method."""
    rows = found[found["metric"] == "accuracy"].astype({"held": float, "standard_error": float})
    names = rows["shift"].where((rows["cohort"] == "phantoms") | (rows["shift"] != "none"), "indiana")
    two = 2 * np.maximum(rows["standard_error"], 0.5 / rows["runs"])
    table = pd.DataFrame(
        {
            "label": names,
            "site": rows["method"].str.replace("_", " ").str.capitalize(),
            "value": rows["held"],
            "low": np.maximum(rows["held"] - two, 0),
            "high": np.minimum(rows["held"] + two, 1),
        }
    )
    axis = IntervalAxis(0.95, "Share of intervals that hold the true accuracy", "too narrow", "wide enough")
    note = "Line: the 95 % that is stated. Intervals of two standard errors. Phantoms, and last three real sites."
    return interval_figure(table, axis, labels_words=WORDS, sort=False, too_few=0, title=None, note=note)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--summary", action="store_true", help="only the summary, of the tables that are there")
    parser.add_argument("--out", type=Path, default=FIGURES)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for part in () if arguments.summary else arguments.parts or PARTS:
        write_cells(arguments.out / f"{part}.csv", cells(part, arguments.runs))
    there = {part: arguments.out / f"{part}.csv" for part in PARTS}
    found = summary({part: pd.read_csv(path) for part, path in there.items() if path.exists()})
    found.to_csv(arguments.out / "summary.csv", index=False, lineterminator="\n")
    write_bytes_atomically(arguments.out / "coverage.svg", figure_bytes(draw(found), "svg"))


if __name__ == "__main__":
    main()
