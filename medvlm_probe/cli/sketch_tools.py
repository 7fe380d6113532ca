"""`sketch merge`, `export`, `show` and `compare`: what is done with sketches once they are made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medvlm_probe.cli.options import OUTPUT, JsonOption, NoColorOption, QuietOption
from medvlm_probe.cli.output import Output, interval, make_output, number, p_value

if TYPE_CHECKING:
    from medvlm_probe.shift.sketch import Sketch
    from medvlm_probe.shift.sketch_comparison import SketchComparison

EpsilonOption = Annotated[
    float | None,
    typer.Option("--epsilon", help="Export: noise that hides any patient, this privacy loss.", rich_help_panel=OUTPUT),
]
DeltaOption = Annotated[
    float | None,
    typer.Option("--delta", help="Export: chance that the loss is larger, such as 1e-6.", rich_help_panel=OUTPUT),
]
SketchFile = Annotated[Path, typer.Argument(help="A file that 'sketch --out' wrote.")]
OutFile = Annotated[Path, typer.Option("--out", help="The file to write.", rich_help_panel=OUTPUT)]


def merge(
    files: Annotated[list[Path], typer.Argument(help="Working sketches of shards that share no patient.")],
    out: OutFile = Path("merged.sketch"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    no_color: NoColorOption = False,
) -> None:
    """Put working sketches together: the result equals sketching all shards at once.

    Example: medvlm-probe sketch merge a.sketch b.sketch --out both.sketch
    """
    from medvlm_probe.audit.sketch_files import read_sketch, write_sketch
    from medvlm_probe.shift.sketch import merge_sketches

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    made = merge_sketches([read_sketch(file) for file in files])
    write_sketch(out, made)
    tell(output, made, out, as_json=as_json)
    output.wrote([out])


def export(
    file: SketchFile,
    epsilon: EpsilonOption = None,
    delta: DeltaOption = None,
    out: OutFile = Path("export.sketch"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    no_color: NoColorOption = False,
) -> None:
    """Write what of a working sketch may leave the hospital: no cell under ten patients, with noise where asked for.

    Example: medvlm-probe sketch export site.sketch --epsilon 4 --delta 1e-6 --out for_them.sketch
    """
    from medvlm_probe.audit.sketch_files import read_sketch, write_sketch

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    made = exported(read_sketch(file), epsilon, delta)
    write_sketch(out, made)
    tell(output, made, out, as_json=as_json)
    output.wrote([out])


def show(file: SketchFile, as_json: JsonOption = False, no_color: NoColorOption = False) -> None:
    """Say what a sketch holds and what it promises.

    Example: medvlm-probe sketch show site.sketch
    """
    from medvlm_probe.audit.sketch_files import read_sketch

    tell(make_output(as_json=as_json, no_color=no_color), read_sketch(file), file, as_json=as_json)


def compare(
    reference: SketchFile,
    site: SketchFile,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    no_color: NoColorOption = False,
) -> None:
    """Say how far a site is from a reference, from their sketches alone; they must not share patients.

    Example: medvlm-probe sketch compare reference.sketch site.sketch
    """
    from medvlm_probe.audit.sketch_files import read_sketch
    from medvlm_probe.shift.sketch_comparison import compare_sketches

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    found = compare_sketches(read_sketch(reference), read_sketch(site))
    if as_json:
        output.json(found.to_json())
    else:
        _print_comparison(output, found)


def exported(working: Sketch, epsilon: float | None, delta: float | None) -> Sketch:
    """Return the export of a working sketch, with noise from the system's own entropy."""
    import secrets

    import numpy as np

    from medvlm_probe.shift.sketch_export import export_sketch

    return export_sketch(working, epsilon=epsilon, delta=delta, rng=np.random.default_rng(secrets.randbits(256)))


def tell(output: Output, sketch: Sketch, path: Path, *, as_json: bool) -> None:
    """Print what a sketch holds: a table for people, one object for machines."""
    import math

    import numpy as np

    plan = sketch.plan
    hidden = {name: int(np.isnan(array).sum()) for name, array in sketch.arrays().items() if np.isnan(array).any()}
    images = float(sketch.images[0])
    facts = {
        "kind": sketch.kind,
        "patients": round(sketch.n_patients),
        "images": round(images) if math.isfinite(images) else None,
        "folds": len(sketch.fold_patients),
        "bytes": path.stat().st_size,
        "plan": plan.to_json(),
        "plan_chosen_here": sketch.own_plan,
        "suppressed_cells": hidden,
        "noise": dict(sketch.noise),
        "privacy": dict(sketch.privacy),
    }
    if as_json:
        output.json(facts)
        return
    features = plan.features
    promise = "exact: stays inside, can be merged" if sketch.kind == "working" else "cells under 10 patients suppressed"
    if sketch.privacy:
        promise = "noise, epsilon {epsilon:g} and delta {delta:g} a patient".format(**sketch.privacy)
    output.table(
        "Sketch",
        ("What", "Value"),
        [
            ("Kind", f"{sketch.kind} ({promise})"),
            ("Patients", f"{facts['patients']:,}{' or so' if sketch.noise else ''}"),
            ("Images", "not told" if facts["images"] is None else f"{facts['images']:,}"),
            ("Model", f"{plan.model}, {features.n_dimensions} dimensions"),
            ("Random features", f"{features.n_features:,}, seed {features.seed}, bandwidth {features.bandwidth:g}"),
            ("Labels", f"{len(plan.labels)}" if plan.labels else "none"),
            ("Folds of patients", f"{facts['folds']}"),
            ("Numbers not told, or told with others", f"{sum(hidden.values()):,}"),
            ("Size", f"{path.stat().st_size / 1e6:.2f} MB"),
        ],
    )


def _print_comparison(output: Output, found: SketchComparison) -> None:
    distance = found.distance
    p = "–" if distance.test is None else p_value(distance.test.p_value)
    output.table(
        f"{found.n_patients[1]:,} patients of the site against {found.n_patients[0]:,} of the reference",
        ("Quantity", "Value", "p"),
        [
            ("Squared MMD", interval(distance.mmd, 4), p),
            ("Fréchet distance", number(distance.frechet, 4), "–"),
            ("Squared distance of means, unbiased", number(distance.frechet_mean, 4), "–"),
            *((f"AUROC of {score.score}", number(score.auroc), "–") for score in found.outliers),
        ],
        caption="The Fréchet distance has no null here: above 0 also without a shift, the more so the fewer patients.",
    )
    if found.labels:
        output.table(
            "Findings",
            ("Label", "Reference", "Site, by labels", "Site, by calls", "ECE ref.", "ECE site", "Overconfidence, site"),
            [
                (
                    row.label,
                    interval(row.reference_prevalence),
                    interval(row.site_prevalence),
                    interval(row.bbse),
                    number(row.reference_ece),
                    number(row.site_ece),
                    interval(row.site_overconfidence),
                )
                for row in found.labels
            ],
            caption="Shares of patients [95 % interval]; by calls: black-box shift estimation, where only prevalence "
            "moved. "
            "– not known, or suppressed; ? the interval is unreliable at this size.",
        )
