"""Where phantom-clip looks: Grad-CAM against the phantoms' exact masks, by finding and by site, with its controls.

    python analyses/grad_cam_phantoms.py [--cohort SPEC] [--images 60]

Test split of phantoms that neither training nor the README's numbers use, zero-shot prompts; at most so many images of
each finding, drawn evenly over sites. Writes to figures/grad_cam/: phantom_sites.csv, a row for each finding and site
(and "all"), phantom_strata.csv, by the region's size, and phantom_sites.svg. AUROC is that of figures/phantom_clip/,
from other phantoms of the same sites. A map is above chance where its pixel average precision is, by its 95 % interval,
above both that of a flat map and that of a centred one.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.regions import regions_of
from medvlm_probe.metrics.baselines import NO_FINDING
from medvlm_probe.models.zoo import load_model
from medvlm_probe.plots.saliency_measures import localization_figure
from medvlm_probe.plots.style import figure_bytes
from medvlm_probe.saliency.controls import control_verdict
from medvlm_probe.saliency.heat_map_study import DECIDES, LabelMaps, MapOptions, MapSetting, StudyImages, study_label
from medvlm_probe.saliency.heat_map_tables import strata_table
from medvlm_probe.saliency.image_choice import Rows
from medvlm_probe.saliency.targets import prompt_target
from medvlm_probe.zero_shot.predict import resolve_task

PROJECT = Path(__file__).resolve().parents[1]
OUT = PROJECT / "figures" / "grad_cam"
COHORT = "phantom:prevalence=balanced,n=140,seed=3"
MEASURES = {"average_precision": "Pixel AP", "pointing_game": "Pointing game"}
ALL = "all"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohort", default=COHORT)
    parser.add_argument("--images", type=int, default=60, help="most images of each finding")
    arguments = parser.parse_args()
    cohort = load_cohort(arguments.cohort, split="test")
    model = load_model("phantom-clip")
    images = StudyImages(cohort, regions_of(cohort))
    setting = MapSetting(
        "zero-shot", "Zero-shot", model, prompt_target(model, resolve_task(cohort, "radiology", None, None).prompts)
    )
    sites = cohort.sites()
    found, rows = [], []
    for label in (name for name in cohort.labels if name != NO_FINDING):
        started = time.monotonic()
        positive = np.flatnonzero(cohort.targets([label])[:, 0] == 1)
        entry = study_label(images, setting, label, evenly(positive, sites, arguments.images), MapOptions())
        found.append(entry)
        of_images = sites[entry.rows[entry.located]]
        for site in (ALL, *sorted(set(of_images.tolist()))):
            rows.append(row_of(entry, site, np.isin(of_images, site) | (site == ALL), cohort.groups()[entry.rows]))
        print(f"{label}: {len(entry.rows)} images, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    table = pd.DataFrame(rows).merge(aurocs(), on=["site", "label"], how="left")
    OUT.mkdir(parents=True, exist_ok=True)
    table.to_csv(OUT / "phantom_sites.csv", index=False, float_format="%.4f")
    strata = strata_table(found)
    strata[strata["by"] == "size"].to_csv(OUT / "phantom_strata.csv", index=False, float_format="%.4f")
    (OUT / "phantom_sites.svg").write_bytes(figure_bytes(figure(table), "svg"))
    print(f"Wrote {OUT}")


def evenly(rows: Rows, sites: np.ndarray, most: int) -> Rows:
    """Return at most so many rows: the first of each site, then the second of each, in a seeded order."""
    order = np.random.default_rng(0).permutation(rows)
    turn = pd.Series(sites[order]).groupby(sites[order]).cumcount().to_numpy()
    return order[np.argsort(turn, kind="stable")][:most]


def row_of(entry: LabelMaps, site: str, inside: np.ndarray, groups: np.ndarray) -> dict[str, object]:
    """Return one finding at one site: measures, chance, and whether the maps follow the label."""
    assert entry.localization is not None
    owners = groups[entry.located][inside]
    wrong = entry.controls["wrong_label"]
    assert wrong.localization is not None
    estimates = entry.localization.rows(inside).estimates(owners)
    others = wrong.localization.rows(inside).estimates(owners)
    verdict = control_verdict(
        entry.localization.values[DECIDES][inside], wrong.localization.values[DECIDES][inside], owners
    )
    row: dict[str, object] = {"label": entry.label, "site": site, "n_images": int(inside.sum())}
    row |= {"n_patients": len(np.unique(owners)), "wrong_label": wrong.label}
    for name in MEASURES:
        measure = estimates[name]
        row |= {f"{name}_{end}": getattr(measure.estimate, end) for end in ("value", "low", "high", "reliable")}
        row |= {f"{name}_{kind}": level.value for kind, level in measure.chance.items()}
        row |= {f"{name}_over_{kind}_low": gain.low for kind, gain in measure.over_chance.items()}
        row |= {f"{name}_over_{kind}_high": gain.high for kind, gain in measure.over_chance.items()}
        row |= {f"{name}_wrong_label_{end}": getattr(others[name].estimate, end) for end in ("value", "low", "high")}
    gains = estimates[DECIDES].over_chance.values()
    row["above_chance"] = all(gain.reliable and gain.low > 0 for gain in gains)
    row |= {f"own_less_wrong_{end}": getattr(verdict.difference, end) for end in ("value", "low", "high")}
    return row | {"verdict": verdict.outcome}


def aurocs() -> pd.DataFrame:
    """Return phantom-clip's zero-shot AUROC of each finding at each site from its evaluation; for all, the mean."""
    table = pd.read_csv(PROJECT / "figures" / "phantom_clip" / "auroc.csv")
    table = table[(table["severity"] == "all") & (table["method"] == "pair")]
    whole = table.groupby("label", as_index=False)["auroc"].mean().assign(site=ALL)
    return pd.concat([table, whole])[["site", "label", "auroc"]]


def figure(table: pd.DataFrame) -> object:
    """Return pixel AP and the pointing game of each finding at each site, chance being that over all sites."""
    tidy = pd.concat(
        [
            pd.DataFrame(
                {
                    "label": table["label"],
                    "setting": table["site"],
                    "metric": name,
                    "n_images": table["n_images"],
                    **{
                        end: table[f"{name}_{end}"] for end in ("value", "low", "high", "reliable", "uniform", "centre")
                    },
                }
            )
            for name in MEASURES
        ]
    )
    whole = tidy[tidy["setting"] == ALL]
    for kind in ("uniform", "centre"):
        levels = whole.set_index(["label", "metric"])[kind]
        tidy[kind] = levels.loc[list(zip(tidy["label"], tidy["metric"], strict=True))].to_numpy()
    everywhere = table[table["site"] == ALL]
    wrong = [
        whole[whole["metric"] == name].assign(
            setting="wrong",
            **{end: everywhere[f"{name}_wrong_label_{end}"].to_numpy() for end in ("value", "low", "high")},
        )
        for name in MEASURES
    ]
    sites = [site for site in table["site"].unique() if site != ALL]
    settings = {site: site.replace("_", " ").capitalize() for site in sites} | {"wrong": "All, map of another label"}
    drawn = pd.concat([tidy[tidy["setting"] != ALL], *wrong]).assign(
        n_images=lambda frame: frame["label"].map(everywhere.set_index("label")["n_images"])
    )
    return localization_figure(
        drawn,
        MEASURES,
        settings=settings,
        controls=("wrong",),
        title="Do phantom-clip's Grad-CAM maps find the findings, at each site?",
        note="Synthetic radiographs (phantoms) seen through phantom-clip: not medicine.",
    )


if __name__ == "__main__":
    main()
