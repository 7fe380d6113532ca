"""Does `audit --why` name an injected acquisition change, and not call other patients one? On phantoms and on Indiana.

    python analyses/acquisition_attribution.py [--part phantoms|real] [--blocks 1] [--cache FOLDER]

Each run draws 80 patients of a reference and 80 of a site, without a patient in both, and asks why the site moved,
with the transforms and pairs that the audit tries. The site is nothing else; or its images have another acquisition, at
a level that is not among those tried; or it has other patients (phantoms: balanced prevalences, or half so); or both.
`phantoms` draws new pools for each block; `real` splits Indiana's test images by patient, sees them through
dino-minilm, and needs `--images` and `--model`; "other patients" are then those with a finding. Runs of one block share
their pools, so they are not independent of each other. Appends to
figures/acquisition_attribution/PART.csv, a row a run, without those that stand there; PART_answers.csv, PART_shares.csv
and PART.svg then say how often what was named.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from medvlm_probe.audit.why import TRIED, attribute_with_pairs
from medvlm_probe.cohort.acquisition import ACQUISITIONS, parse_steps
from medvlm_probe.cohort.acquisition_source import acquired
from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.phantom_export import export_phantoms
from medvlm_probe.embeddings.acquisition_embeddings import sample_of_groups
from medvlm_probe.embeddings.acquisition_words import families_named
from medvlm_probe.embeddings.extract import embed
from medvlm_probe.models.contract import VisionLanguageModel
from medvlm_probe.models.zoo import load_model
from medvlm_probe.plots.attribution_study import named_causes
from medvlm_probe.plots.style import figure_bytes
from medvlm_probe.shift.attribution import Attribution
from medvlm_probe.shift.attribution_sums import family_of

PROJECT = Path(__file__).resolve().parents[1]
OUT = PROJECT / "figures" / "acquisition_attribution"
PATIENTS = 80
POOLS = {"phantoms": (160, 160), "real": (150, 100)}
"""Images of the reference, which go through every transform, and of the site."""

SINGLE = (
    *("resolution/v1@112", "resolution/v1@80", "contrast/v1@0.6", "gamma/v1@1.7", "window/v1@15", "jpeg/v1@18"),
    *("noise/v1@1000", "blur/v1@1.5", "aspect/v1@0.8", "rotation/v1@8", "collimation/v1@7", "marker/v1@14"),
    "inversion/v1@20",
)
BOTH = ("resolution/v1@80", "contrast/v1@0.6", "jpeg/v1@18", "collimation/v1@7")
CHAINS = ("contrast/v1@0.6+resolution/v1@80", "gamma/v1@1.7+jpeg/v1@18")
REAL_SINGLE = (
    *("jpeg/v1@30", "resolution/v1@80", "gamma/v1@1.7", "contrast/v1@0.6", "collimation/v1@7", "blur/v1@1.5"),
    *("noise/v1@1000", "inversion/v1@20"),
)
ALIKE = ({"resolution", "blur"}, {"gamma", "window"})
"""Families that do nearly the same: both take detail away; both make the film darker or brighter."""

RIGHT_VERDICT = {
    "nothing moved": {"no distance"},
    "one transform": {"acquisition"},
    "two transforms": {"acquisition"},
    "other patients": {"other patients"},
    "both": {"acquisition and other patients"},
}
COLUMNS = {
    "Verdict": (
        *("no distance", "not these transforms", "not enough evidence", "other patients"),
        *("acquisition and other patients", "acquisition"),
    ),
    "Named first": (*ACQUISITIONS, "two, one right", "two, none right"),
}
SEED = 40
"""Of the first block's pools; each block takes the next ten."""


@dataclass(frozen=True)
class Case:
    """What a site is: its case, what happened to its images, its patients, how many runs each block has.

    With `pairs`, promising pairs are embedded for each run as the audit does; that is most of the work of a run.
    """

    case: str
    transform: str
    patients: str
    runs: int
    pairs: bool = False


PHANTOM_CASES = (
    Case("nothing moved", "", "same", 26),
    Case("other patients", "", "half", 13),
    Case("other patients", "", "mix", 13),
    *(Case("one transform", name, "same", 4) for name in SINGLE),
    *(Case("both", name, "mix", 7) for name in BOTH),
    *(Case("two transforms", name, "same", 6, pairs=True) for name in CHAINS),
)
REAL_CASES = (
    Case("nothing moved", "", "same", 20),
    Case("other patients", "", "mix", 20),
    *(Case("one transform", name, "same", 6) for name in REAL_SINGLE),
    *(Case("both", name, "mix", 5) for name in BOTH[:2]),
)
CASES = {"phantoms": PHANTOM_CASES, "real": REAL_CASES}


class Pools:
    """One block's images: the reference's pool and the site's, embedded under a transform when first asked for."""

    def __init__(self, cohorts: Mapping[str, Cohort], model: VisionLanguageModel, cache: Path | None) -> None:
        self.groups = {name: cohort.groups() for name, cohort in cohorts.items()}
        self._cohorts, self._model, self._cache = cohorts, model, cache
        self._seen: dict[tuple[str, str], np.ndarray] = {}

    def vectors(self, name: str, transform: str) -> np.ndarray:
        """Return a pool's embeddings, (n, D)."""
        if (name, transform) not in self._seen:
            whole = self._cohorts[name]
            cohort = acquired(whole, transform) if transform else whole
            found = embed(cohort, self._model, precision="float32", workers=1, cache_dir=self._cache)
            self._seen[name, transform] = found.vectors
        return self._seen[name, transform]


def phantom_pools(block: int, model: VisionLanguageModel, folder: Path, cache: Path | None) -> Pools:
    """Draw pools of one block's seeds: the reference, the same hospital's other patients, and balanced ones."""
    n_reference, n_site = POOLS["phantoms"]
    cohorts = {}
    for k, (name, n, extra) in enumerate(
        (("reference", n_reference, ""), ("same", n_site, ""), ("mix", n_site, ",prevalence=balanced"))
    ):
        source = load_cohort(f"phantom:sites=reference,n={n},seed={SEED + 10 * block + k}{extra}").source
        # As PNG files each is drawn once, whatever is done to it then.
        export_phantoms(source.cases, folder / name, format="png", size=224)  # type: ignore[attr-defined]
        cohorts[name] = load_cohort(str(folder / name / "manifest.csv"))
    return Pools(cohorts, model, cache)


def real_pools(block: int, model: VisionLanguageModel, manifest: str, cache: Path | None) -> Pools:
    """Split Indiana's test patients in two; the site's other patients are those with a finding."""
    whole = load_cohort(manifest)
    whole = whole.select(np.flatnonzero(whole.table["split"] == "test"))
    n_reference, n_site = POOLS["real"]
    # The images that the audit itself takes, whose embeddings an audit of another site has left in the cache.
    reference = sample_of_groups(whole, n_reference)
    left = ~whole.table["patient"].isin(reference.table["patient"]).to_numpy()
    others = np.random.default_rng(SEED + block).permutation(np.flatnonzero(left))
    same, rest = others[:n_site], others[n_site:]
    sick = whole.table["no_finding"].to_numpy(dtype=float)[rest] == 0
    return Pools(
        {
            "reference": reference,
            "same": whole.select(np.sort(same)),
            "mix": whole.select(np.sort(rest[sick][:n_site])),
        },
        model,
        cache,
    )


def one_run(pools: Pools, case: Case, seed: Sequence[int]) -> Attribution:
    """Draw patients of both sides and ask why the site moved."""
    rng = np.random.default_rng(seed)
    kept = _drawn(pools.groups["reference"], PATIENTS, rng)
    parts = {"same": ["same"], "mix": ["mix"], "half": ["same", "mix"]}[case.patients]
    site, of_site = [], []
    for name in parts:
        there = _drawn(pools.groups[name], PATIENTS // len(parts), rng)
        site.append(pools.vectors(name, case.transform)[there])
        of_site += [f"{name} {group}" for group in pools.groups[name][there]]

    def moved(names: Sequence[str]) -> dict[str, np.ndarray]:
        return {name: pools.vectors("reference", name)[kept] for name in names}

    return attribute_with_pairs(
        moved([""])[""],
        np.concatenate(site),
        moved(TRIED),
        moved if case.pairs else None,
        reference_groups=[f"reference {group}" for group in pools.groups["reference"][kept]],
        site_groups=of_site,
        rng_of=lambda purpose: np.random.default_rng([*seed, *purpose.encode()]),
    )


def _drawn(groups: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return which images belong to n random groups, (n images,)."""
    every = np.unique(groups)
    return np.isin(groups, rng.choice(every, min(n, len(every)), replace=False))


def row_of(case: Case, found: Attribution) -> dict[str, object]:
    """Return what one run found, a row of the CSV."""
    row: dict[str, object] = {"verdict": found.verdict, "best": found.best}
    # Only an acquisition verdict names transforms as the reason.
    row["named"] = "; ".join(families_named(found)) if found.verdict.startswith("acquisition") else ""
    row |= {"distance": f"{found.distance.value:.4f}", "chance": f"{found.chance:.3f}"}
    for part, share in [*vars(found.parts).items(), ("pair_adds", found.pair_adds)]:
        for end in ("value", "low", "high"):
            row[f"{part}_{end}"] = "" if share is None else f"{getattr(share, end):.3f}"
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("phantoms", "real"), default="phantoms")
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--first-block", type=int, default=0)
    parser.add_argument("--case", choices=tuple(RIGHT_VERDICT), help="run only these; the others stay as they are")
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--images", default="", help="manifest of Indiana's images, for --part real")
    parser.add_argument("--model", default="phantom-clip")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    if arguments.part == "real" and not Path(arguments.images).is_file():
        print(f"No manifest at '{arguments.images}': nothing to do without Indiana's images.", file=sys.stderr)
        return
    model, path = load_model(arguments.model), arguments.out / f"{arguments.part}.csv"
    for block in range(arguments.first_block, arguments.first_block + arguments.blocks):
        with TemporaryDirectory() as folder:
            if arguments.part == "real":
                pools = real_pools(block, model, arguments.images, arguments.cache)
            else:
                pools = phantom_pools(block, model, Path(folder), arguments.cache)
            for row in runs_of(pools, CASES[arguments.part], block, path, arguments.case):
                append(path, row)
    summarise(path, "* And other patients." if arguments.part == "phantoms" else "* And other patients. Real images.")


def runs_of(
    pools: Pools, cases: Sequence[Case], block: int, path: Path, only: str | None
) -> Iterator[dict[str, object]]:
    """Yield the rows of one block's runs, without those that stand in the file already."""
    done = _done(path)
    for place, case in enumerate(cases):
        if only not in (None, case.case):
            continue
        started = time.perf_counter()
        for run in range(case.runs):
            front = {"block": block, "case": case.case, "transform": case.transform, "patients": case.patients}
            if (str(block), case.transform, case.patients, str(run)) not in done:
                yield front | {"run": run} | row_of(case, one_run(pools, case, (SEED, block, place, run)))
        print(f"{block} {case}: {time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)


def summarise(path: Path, note: str) -> None:
    """Write how often each injected cause was answered how, and draw it."""
    runs = pd.read_csv(path, keep_default_na=False)
    runs["injected"] = [_words(*row) for row in runs[["case", "transform", "patients"]].itertuples(index=False)]
    runs["answer"] = [_answer(*row) for row in runs[["transform", "named"]].itertuples(index=False)]
    runs["best_value"] = pd.to_numeric(runs["best_value"])
    counts, shares = [], []
    for injected, mine in runs.groupby("injected", sort=False):
        case, transform = mine["case"].iloc[0], mine["transform"].iloc[0]
        about = {"group": case, "injected": injected, "of": len(mine)}
        right = {"Verdict": RIGHT_VERDICT[case], "Named first": _right_families(transform)}
        for block, column in (("Verdict", "verdict"), ("Named first", "answer")):
            found = mine.loc[mine[column] != "", column].value_counts()
            counts += [
                about
                | {"block": block, "answer": answer, "runs": int(found.get(answer, 0)), "right": answer in right[block]}
                for answer in COLUMNS[block]
                if answer in found or answer in right[block]
            ]
        # Where there is no distance, a share of it means nothing.
        moved = mine.loc[mine["verdict"] != "no distance", "best_value"]
        if len(moved):
            low, high = moved.quantile([0.1, 0.9])
            shares.append({"injected": injected, "value": moved.mean(), "low": low, "high": high, "runs": len(moved)})
    answers, explained = pd.DataFrame(counts), pd.DataFrame(shares)
    answers.to_csv(path.with_name(f"{path.stem}_answers.csv"), index=False, lineterminator="\n")
    explained.round(3).to_csv(path.with_name(f"{path.stem}_shares.csv"), index=False, lineterminator="\n")
    figure = named_causes(answers, explained, COLUMNS, note=note)
    path.with_suffix(".svg").write_bytes(figure_bytes(figure, "svg"))


def _words(case: str, transform: str, patients: str) -> str:
    """Return what was injected, for people."""
    if not transform:
        return {"same": "Nothing", "mix": "Other patients", "half": "Other patients, half of them"}[patients]
    words = ", ".join(step.words for step in parse_steps(transform))
    if case == "two transforms":
        words = " and ".join(family_of(step.name) for step in parse_steps(transform))
    return f"{words[:1].upper()}{words[1:]}{' *' if case == 'both' else ''}"


def _answer(transform: str, named: str) -> str:
    """Return the column of the family named first; "" where none was named."""
    first = named.split("; ")[0].split(" + ")
    if len(first) == 1:
        return first[0]
    return "two, one right" if set(first) & _right_families(transform) else "two, none right"


def _right_families(transform: str) -> set[str]:
    """Return the families of a transform, and those that cannot be told from them."""
    families = {step.acquisition.name for step in parse_steps(transform)} if transform else set()
    near = set().union(*(pair for pair in ALIKE if pair & families))
    two = {"two, one right"} if len(families) > 1 else set()
    return families | near | two


def _done(path: Path) -> set[tuple[str, ...]]:
    if not path.exists():
        return set()
    with path.open(newline="") as file:
        return {tuple(row[name] for name in ("block", "transform", "patients", "run")) for row in csv.DictReader(file)}


def append(path: Path, row: Mapping[str, object]) -> None:
    """Add a row to a CSV, with a header where the file is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        table = csv.DictWriter(file, list(row), lineterminator="\n")
        if new:
            table.writeheader()
        table.writerow(row)


if __name__ == "__main__":
    main()
