"""`medvlm-probe cohort list | show | check | export`: what cohorts there are and what is wrong with one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medvlm_probe.cli import recipe_sensitivity
from medvlm_probe.cli.cohort_import import import_cohort
from medvlm_probe.cli.cohort_split import split_cohort
from medvlm_probe.cli.options import (
    DeviceOption,
    JsonOption,
    NoColorOption,
    OutOption,
    PhantomFormat,
    QuietOption,
    SplitOption,
    SplitsOption,
    UncertaintyOption,
    VerboseOption,
    WorkersOption,
)
from medvlm_probe.cli.output import Output, make_output

if TYPE_CHECKING:
    import pandas as pd

    from medvlm_probe.cohort.check import CohortCheck
    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.embeddings.seen import SeenInTraining

MOST_ROWS = 20
GROUP_WORDS = {"patient": "patients", "study": "studies"}

app = typer.Typer(no_args_is_help=True, help="Cohorts: list the data cards, show one, check a cohort, export phantoms.")
app.command("import")(import_cohort)
app.command("split")(split_cohort)

CohortArgument = Annotated[
    str, typer.Argument(help="phantom, a manifest (.csv, .parquet), a data card (.md) or a folder of images.")
]


@app.command("list")
def list_cards(
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
) -> None:
    """List the data cards that come with the tool.

    Example: medvlm-probe cohort list
    """
    from medvlm_probe.cohort.catalog import shipped_cards
    from medvlm_probe.cohort.data_cards import read_card

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    cards = [read_card(path) for path in shipped_cards().values()]
    if as_json:
        output.json({"cohorts": [{"name": card.name, "title": card.title, "task": card.task} for card in cards]})
        return
    rows = [(card.name, card.title, card.task.replace("_", "-"), str(len(card.labels) or "–")) for card in cards]
    output.table("Data cards", ("Name", "What it is", "Task", "Labels"), rows)
    output.say("Show one: medvlm-probe cohort show NAME. Your own: a manifest.csv with a column 'image', or a card.")


@app.command("show")
def show(
    cohort: CohortArgument = "phantom",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
) -> None:
    """Show a cohort's data card: what it is, how it is read, its licence and its traps.

    Example: medvlm-probe cohort show nih_cxr14
    """
    from medvlm_probe.cohort.catalog import card_of

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    card = card_of(cohort)
    if as_json:
        output.json(card.model_dump())
        return
    output.line(f"{card.title or card.name} ({card.name})")
    facts = {
        "Task": card.task.replace("_", "-"),
        "Labels": ", ".join(card.labels) or "the manifest's",
        "Prompt template": card.prompt_template or "none declared",
        "Uncertain labels (-1)": card.uncertainty,
        "Read by": card.importer,
        "Splits": ", ".join(card.split) or "none declared",
        "Copies of": ", ".join(card.same_as) or "none declared",
        "Licence": card.licence,
        "Access": card.access,
        "Citation": card.citation,
    }
    for name, fact in facts.items():
        output.line(f"{name}: {fact}")
    for trap in card.known_traps:
        output.line(f"Trap: {trap}")
    if card.body:
        output.line(f"\n{card.body}")


@app.command("check")
def check(
    cohort: CohortArgument = "phantom",
    split: SplitOption = None,
    splits: SplitsOption = None,
    uncertainty: UncertaintyOption = None,
    table_only: Annotated[
        bool, typer.Option("--table-only", help="Look at the manifest without opening images.")
    ] = False,
    sensitivity: Annotated[
        bool,
        typer.Option(
            "--recipe-sensitivity", help="Also measure how far other windows and scalings move a model's embeddings."
        ),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Also say whether this model declares to have been trained on these images."),
    ] = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
) -> None:
    """Look through a cohort: labels by site, groups, copies and leaks between splits, images that cannot be read.

    Example: medvlm-probe cohort check manifest.csv --recipe-sensitivity
    """
    import time

    from medvlm_probe.cohort.catalog import load_cohort
    from medvlm_probe.cohort.check import check_cohort
    from medvlm_probe.embeddings.threads import available_cores

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    loaded = load_cohort(cohort, uncertainty=uncertainty, split=split, splits=splits)
    n_workers = workers or available_cores()
    reading = "the table only" if table_only else f"every image, on {n_workers} threads"
    output.say(f"Checking cohort '{loaded.name}': {len(loaded):,} images, reading {reading}.")
    start = time.monotonic()
    with output.progress("Reading") as show_progress:
        found = check_cohort(
            loaded,
            read_images=not table_only,
            workers=n_workers,
            progress=lambda done: show_progress(done, len(loaded), time.monotonic() - start),
        )
    seen = None if model is None else _seen(loaded, model)
    effects = (
        recipe_sensitivity.measure(output, loaded, model or "phantom-clip", device, workers) if sensitivity else None
    )
    if as_json:
        extra = {} if effects is None else {"recipe_sensitivity": recipe_sensitivity.sensitivity_json(effects)}
        extra |= {} if seen is None else {"seen_in_training": seen.to_json()}
        output.json(_check_json(found) | extra)
    else:
        _print_check(output, found)
        if effects is not None:
            recipe_sensitivity.print_sensitivity(output, effects)
        if seen is not None:
            output.line(seen.reason)
    if out is not None:
        tables = _tables(found) | ({} if effects is None else {"recipe_sensitivity": effects.table()})
        output.wrote(_write_check(out, tables))


@app.command("export")
def export(
    cohort: CohortArgument = "phantom",
    image_format: Annotated[
        PhantomFormat, typer.Option("--format", help="png, or dicom as an archive has it.")
    ] = "png",
    out: Annotated[Path, typer.Option("--out", help="Folder for the images, manifest, boxes and masks.")] = Path(
        "phantoms"
    ),
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
) -> None:
    """Write phantom radiographs as files, with their manifest, boxes and masks.

    Example: medvlm-probe cohort export phantom:sites=portable,n=60 --format dicom --out archive
    """
    from medvlm_probe.cohort.catalog import load_cohort
    from medvlm_probe.cohort.phantom_export import export_phantoms
    from medvlm_probe.cohort.phantom_source import PhantomImages
    from medvlm_probe.errors import InputError

    output = make_output(quiet=quiet, no_color=no_color)
    loaded = load_cohort(cohort)
    if not isinstance(loaded.source, PhantomImages):
        raise InputError(
            f"'{cohort}' consists of files already; only the phantom cohort is exported (phantom:OPTIONS)."
        )
    output.say(f"Drawing {len(loaded):,} phantoms of {loaded.source.size} pixels as {image_format} into {out}.")
    export_phantoms(loaded.source.cases, out, format=image_format, size=loaded.source.size)
    output.say(f"Wrote {out / 'manifest.csv'}. Use it: --cohort {out / 'manifest.csv'}")


def _seen(cohort: Cohort, model: str) -> SeenInTraining:
    """Return whether a model declares to have been trained on a cohort's images; the model is not loaded."""
    from medvlm_probe.cohort.splits import content_keys
    from medvlm_probe.embeddings.seen import seen_in_training
    from medvlm_probe.models.training_data import declared_training_data

    return seen_in_training(cohort, model, declared_training_data(model), content_keys(cohort.source))


def _tables(found: CohortCheck) -> dict[str, pd.DataFrame]:
    return {
        "labels": found.labels,
        "sites": found.sites,
        "groups_in_splits": found.groups_in_splits,
        "ids_at_sites": found.ids_at_sites,
        "copies": found.copies,
        "leaks": found.leaks,
        "near_copies": found.near_copies,
        "near_leaks": found.near_leaks,
        "quarantine": found.quarantine,
        "sizes": found.sizes,
    }


def _check_json(found: CohortCheck) -> dict[str, Any]:
    facts = {
        "name": found.name,
        "recipe": found.recipe,
        "n_images": found.n_images,
        "n_groups": found.n_groups,
        "group_kind": found.group_kind,
        "absent": list(found.absent),
        "partly_empty": found.partly_empty,
        "extra": list(found.extra),
        "images_read": found.images_read,
        "notes": list(found.notes),
    }
    return facts | {name: table.to_dict(orient="records") for name, table in _tables(found).items()}


def _write_check(out: Path, tables: dict[str, pd.DataFrame]) -> list[Path]:
    from medvlm_probe.runs import write_csv

    paths = []
    for name, table in tables.items():
        path = out / f"{name}.csv"
        write_csv(path, table)
        paths.append(path)
    return paths


def _print_check(output: Output, found: CohortCheck) -> None:
    groups = (
        f"{found.n_groups:,} {GROUP_WORDS[found.group_kind]}"
        if found.group_kind != "image"
        else "no patients or studies given"
    )
    output.line(f"Cohort '{found.name}': {found.n_images:,} images, {groups}, read by {found.recipe}.")
    if found.absent:
        output.line(f"Absent columns: {', '.join(found.absent)}.")
    if found.extra:
        output.line(f"Other columns, not labels: {', '.join(found.extra)}.")
    _print_frame(output, "Sites and splits", found.sites)
    _print_frame(output, "Labels", found.labels, most=len(found.labels))
    if found.images_read:
        _print_frame(output, "Image sizes", found.sizes)
    for title, frame in (
        ("Groups in several splits", found.groups_in_splits),
        ("Patient ids at several sites", found.ids_at_sites),
        ("Copies across splits, sites or patients", found.leaks),
        ("Near copies, to be looked at", found.near_copies),
        ("Quarantine", found.quarantine),
    ):
        if len(frame):
            _print_frame(output, title, frame)
    for note in found.notes:
        output.warn(note)


def _print_frame(output: Output, title: str, frame: pd.DataFrame, most: int = MOST_ROWS) -> None:
    rows = [[str(cell) if cell != "" else "–" for cell in row] for row in frame.head(most).itertuples(index=False)]
    more = f"and {len(frame) - most:,} more" if len(frame) > most else ""
    output.table(title, [str(column).replace("_", " ") for column in frame.columns], rows, caption=more)
