"""How often attribution names an injected acquisition change, and how often it calls other patients one, on phantoms.

    python analyses/acquisition_attribution.py [--runs 40] [--patients 100] [--cache FOLDER]

Each run draws patients from a pool of phantoms of the reference site and from one of another site, and asks why the
site moved. The sites: the same hospital; one whose images have another resolution, contrast, compression or noise, at a
level that is not among those tried; one with another case mix; one with both. The pools are drawn once, so the runs of
a site are not independent of each other. Writes runs.csv, a row a run, and verdicts.csv to
figures/acquisition_attribution/.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from medvlm_probe.cohort.acquisition_source import acquired
from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.phantom_export import export_phantoms
from medvlm_probe.embeddings.acquisition_embeddings import acquisition_embeddings
from medvlm_probe.embeddings.acquisition_words import reason
from medvlm_probe.embeddings.extract import embed
from medvlm_probe.models.zoo import load_model
from medvlm_probe.shift.attribution import Attribution, attribute_shift

PROJECT = Path(__file__).resolve().parents[1]
OUT = PROJECT / "figures" / "acquisition_attribution"
POOL, REFERENCE_POOL = 300, 160
TRIED = (
    *("resolution/v1@96", "resolution/v1@64", "blur/v1@1", "blur/v1@2", "jpeg/v1@25", "jpeg/v1@10"),
    *("noise/v1@2000", "noise/v1@500", "contrast/v1@0.5", "contrast/v1@0.7", "contrast/v1@1.4"),
    *("gamma/v1@0.7", "gamma/v1@1.4", "window/v1@-10", "window/v1@10", "aspect/v1@0.85", "aspect/v1@1.18"),
    *("collimation/v1@5", "rotation/v1@6", "marker/v1@10", "inversion/v1@25"),
)
SITES = {
    "same hospital": ("same", ""),
    "resolution 80 px": ("same", "resolution/v1@80"),
    "contrast x 0.6": ("same", "contrast/v1@0.6"),
    "JPEG quality 18": ("same", "jpeg/v1@18"),
    "noise 1000 photons": ("same", "noise/v1@1000"),
    "case mix": ("mix", ""),
    "case mix, resolution 80 px": ("mix", "resolution/v1@80"),
}
SPECS = {
    "reference": f"phantom:sites=reference,n={POOL},seed=11",
    "same": f"phantom:sites=reference,n={POOL},seed=12",
    "mix": f"phantom:sites=reference,n={POOL},seed=13,prevalence=balanced",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--patients", type=int, default=100)
    parser.add_argument("--cache", type=Path, default=None)
    arguments = parser.parse_args()
    model = load_model("phantom-clip")
    with TemporaryDirectory() as folder:
        pools = {name: _drawn(spec, Path(folder) / name) for name, spec in SPECS.items()}
        options = {"precision": "float32", "cache_dir": arguments.cache}
        reference = acquisition_embeddings(
            pools["reference"], model, TRIED, max_images=REFERENCE_POOL, say=_say, **options
        )
        sites = {}
        for name, (pool, transform) in SITES.items():
            cohort = acquired(pools[pool], transform) if transform else pools[pool]
            sites[name] = (embed(cohort, model, **options).vectors, cohort.groups())
    groups = reference.cohort.groups()
    rows = []
    for name, (vectors, of_site) in sites.items():
        started = time.perf_counter()
        for seed in range(arguments.runs):
            rng = np.random.default_rng([seed, list(SITES).index(name)])
            here = np.isin(groups, rng.choice(groups.max() + 1, arguments.patients, replace=False))
            there = np.isin(of_site, rng.choice(of_site.max() + 1, arguments.patients, replace=False))
            found = attribute_shift(
                reference.untouched[here],
                vectors[there],
                {transform: moved[here] for transform, moved in reference.transformed.items()},
                reference_groups=[f"reference {group}" for group in groups[here]],
                site_groups=[f"site {group}" for group in of_site[there]],
                rng=rng,
            )
            row = {"site": name, "run": seed, "verdict": found.verdict, "best": found.best}
            row |= {"named": _reason(found)}
            row |= {"distance": f"{found.distance.value:.4f}", "chance": f"{found.chance:.3f}"}
            rows.append(row | {part: f"{share.value:.3f}" for part, share in vars(found.parts).items()})
        verdicts = Counter(row["verdict"] for row in rows if row["site"] == name)
        named = Counter(row["named"] for row in rows if row["site"] == name)
        _say(f"{name}: {dict(verdicts)}, {dict(named)}, {time.perf_counter() - started:.1f} s")
    OUT.mkdir(parents=True, exist_ok=True)
    _write(OUT / "runs.csv", rows)
    counted = Counter((row["site"], row["verdict"], row["named"]) for row in rows)
    _write(
        OUT / "verdicts.csv",
        [
            {"site": site, "verdict": verdict, "named": named, "runs": count, "of": arguments.runs}
            for (site, verdict, named), count in counted.items()
        ],
    )


def _drawn(spec: str, folder: Path) -> Cohort:
    """Return a pool of phantoms as PNG files: each is drawn once, whatever is done to it then."""
    source = load_cohort(spec).source
    export_phantoms(source.cases, folder, format="png", size=224)  # type: ignore[attr-defined]
    return load_cohort(str(folder / "manifest.csv"))


def _reason(found: Attribution) -> str:
    """Return the transforms that the sentence names; "" where it names none as the reason."""
    return reason(found) if found.verdict.startswith("acquisition") else ""


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main()
