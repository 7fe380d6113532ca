"""`medvlm-probe cohort import`: a published data set, a DICOM folder, or several cohorts joined, as one manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medvlm_probe.cli.options import (
    DATA,
    OUTPUT,
    JsonOption,
    NoColorOption,
    QuietOption,
    UncertaintyOption,
    VerboseOption,
)
from medvlm_probe.cli.output import Output, make_output

if TYPE_CHECKING:
    import pandas as pd

    from medvlm_probe.cohort.write_manifest import WrittenManifest

SpecsArgument = Annotated[
    list[str],
    typer.Argument(
        help="NAME:FOLDER of a published data set (iu_xray, nih_cxr14, ...), dicom:FOLDER, a manifest, a data card or "
        "a folder. Several are joined, each as a site.",
        metavar="SPEC",
        show_default=False,
    ),
]
ManifestOption = Annotated[
    Path,
    typer.Option(
        "--out",
        help="The manifest to write (.csv or .parquet); images must lie below its folder.",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]


def import_cohort(
    specs: SpecsArgument,
    out: ManifestOption,
    labels_file: Annotated[
        Path | None,
        typer.Option(
            "--labels-file",
            help="Labels made elsewhere (CheXbert's CSV) instead of the publisher's.",
            rich_help_panel=DATA,
        ),
    ] = None,
    site: Annotated[
        list[str] | None,
        typer.Option(
            "--site",
            help="The site's name, one for each cohort in order; - keeps a cohort's own.",
            rich_help_panel=DATA,
        ),
    ] = None,
    uncertainty: UncertaintyOption = None,
    pseudonym_key: Annotated[
        Path | None,
        typer.Option(
            "--pseudonym-key",
            help="dicom: file of the secret key. Default: made in your data folder.",
            rich_help_panel=DATA,
        ),
    ] = None,
    legacy_split: Annotated[
        bool,
        typer.Option(
            "--legacy-split",
            help="covidx, rsna18, pannuke, digestpath: the split of published results, with its leaks.",
            rich_help_panel=DATA,
        ),
    ] = False,
    copy_images: Annotated[
        bool,
        typer.Option(
            "--copy-images", help="Copy images from elsewhere below the manifest's folder.", rich_help_panel=OUTPUT
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write over an earlier import.", rich_help_panel=OUTPUT)
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
) -> None:
    """Write a manifest, boxes and data card for data as published or archived; several cohorts are joined as sites.

    Example: medvlm-probe cohort import nih_cxr14 DIR --out DIR/manifest.csv
    """
    import time

    from medvlm_probe.cohort.catalog import load_with_notes
    from medvlm_probe.cohort.importers.published import ImportOptions
    from medvlm_probe.cohort.write_manifest import ManifestPlan, check_plan, write_manifest

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    plan = ManifestPlan(out, tuple(site or ()), uncertainty, copy_images, overwrite, labels_file)
    check_plan(plan)
    options = ImportOptions(
        labels_file, unpack_to=out.parent, say=output.say, pseudonym_key=pseudonym_key, legacy_split=legacy_split
    )
    loaded = []
    for spec in _joined_names(specs):
        output.say(f"Reading {spec} ...")
        loaded.append(load_with_notes(spec, options, uncertainty=uncertainty))
    start = time.monotonic()
    with output.progress("Copying") as show_progress:
        written = write_manifest(loaded, plan, lambda done, n: show_progress(done, n, time.monotonic() - start))
    if as_json:
        output.json(_as_json(written, out))
    else:
        _print(output, written)
    output.wrote(written.paths)
    output.say(f"Use it: --cohort {out}")


def _joined_names(arguments: Sequence[str]) -> list[str]:
    """Return the specs: a data set's name followed by a folder (`dicom DIR`) is `dicom:DIR`."""
    from medvlm_probe.cohort.catalog import OF_A_FOLDER

    specs: list[str] = []
    for argument in arguments:
        if specs and specs[-1] in OF_A_FOLDER:
            specs[-1] = f"{specs[-1]}:{argument}"
        else:
            specs.append(argument)
    return specs


def _label_totals(written: WrittenManifest) -> pd.DataFrame:
    from medvlm_probe.cohort.check import label_counts

    counts = label_counts(written.cohort).drop(columns="site")
    return counts.groupby("label", sort=False).sum().reset_index()


def _sites(written: WrittenManifest) -> list[dict[str, Any]]:
    import pandas as pd

    cohort = written.cohort
    frame = pd.DataFrame({"site": cohort.sites(), "group": cohort.groups()})
    counts = frame.groupby("site", sort=True)["group"].agg(n_images="size", n_groups="nunique").reset_index()
    return [{str(name): value for name, value in row.items()} for row in counts.to_dict(orient="records")]


def _skipped(written: WrittenManifest) -> dict[str, int]:
    return {str(reason): int(n) for reason, n in written.skipped["reason"].value_counts().items()}


def _as_json(written: WrittenManifest, out: Path) -> dict[str, Any]:
    cohort = written.cohort
    return {
        "manifest": str(out),
        "name": cohort.name,
        "n_images": len(cohort),
        "n_groups": len(set(cohort.groups().tolist())),
        "group_kind": cohort.group_kind,
        "uncertainty": cohort.uncertainty,
        "sites": _sites(written),
        "labels": _label_totals(written).to_dict(orient="records"),
        "absent": list(cohort.absent),
        "extra": list(cohort.extra),
        "n_boxes": written.n_boxes,
        "skipped": [{"reason": reason, "n": n} for reason, n in _skipped(written).items()],
        "notes": list(written.notes),
        "paths": [str(path) for path in written.paths],
    }


def _print(output: Output, written: WrittenManifest) -> None:
    cohort = written.cohort
    groups = len(set(cohort.groups().tolist()))
    kind = {"patient": "patients", "study": "studies"}.get(cohort.group_kind)
    boxes = f", {written.n_boxes:,} boxes" if written.n_boxes else ""
    people = f"{groups:,} {kind}" if kind else "no patients or studies given"
    output.line(f"{cohort.card.title or cohort.name}: {len(cohort):,} images, {people}{boxes}.")
    sites = _sites(written)
    if len(sites) > 1 or sites[0]["site"]:
        site_rows = [(row["site"] or "–", f"{row['n_images']:,}", f"{row['n_groups']:,}") for row in sites]
        output.table("Sites", ("Site", "Images", "Groups"), site_rows)
    counts = _label_totals(written)
    if len(counts):
        rows = [(cohort.card.words(row[0]), *(f"{n:,}" for n in row[1:])) for row in counts.itertuples(index=False)]
        output.table("Labels (images)", ("Label", "Present", "Absent", "Uncertain", "Unknown"), rows)
    skipped = _skipped(written)
    if skipped:
        output.table("Left out", ("Why", "How many"), [(reason, f"{n:,}") for reason, n in skipped.items()])
    for note in written.notes:
        output.warn(note)
