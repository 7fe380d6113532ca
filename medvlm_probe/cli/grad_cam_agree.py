"""`medvlm-probe grad-cam agree`: maps held against what a radiologist marked on a sheet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medvlm_probe.cli.grad_cam_sheet import FOR_THE_READER, MANIFEST_FILE, SHEET_FILE
from medvlm_probe.cli.options import (
    COMPUTE,
    DATA,
    OUTPUT,
    BatchSizeOption,
    DeviceOption,
    JsonOption,
    LabelOption,
    ModelOption,
    NoColorOption,
    OutOption,
    PrecisionOption,
    QuietOption,
    SeedOption,
    VerboseOption,
    WorkersOption,
)
from medvlm_probe.cli.output import Output, make_output
from medvlm_probe.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.cohort.regions import Regions
    from medvlm_probe.saliency.reader_sheet import Annotations

PHANTOM_NOTE = "Synthetic radiographs (phantoms): not medicine."


def agree(
    context: typer.Context,
    sheet: Annotated[
        str, typer.Option("--sheet", help="The folder that 'grad-cam sample' wrote.", rich_help_panel=DATA)
    ],
    annotations: Annotated[
        Path, typer.Option("--annotations", help="The annotation file, filled in.", rich_help_panel=DATA)
    ],
    label: LabelOption = None,
    model: ModelOption = "phantom-clip",
    compare: Annotated[
        str | None,
        typer.Option(
            "--compare", help="zero-shot, linear-probe, fine-tuned, tuned:DIR, with commas.", rich_help_panel=DATA
        ),
    ] = None,
    prompts: Annotated[
        str, typer.Option("--prompts", help="Prompts of zero-shot; see 'prompts'.", rich_help_panel=DATA)
    ] = "radiology",
    probe: Annotated[
        str | None, typer.Option("--probe", help="The folder of a 'linear-probe' run.", rich_help_panel=DATA)
    ] = None,
    fine_tuned: Annotated[
        str | None, typer.Option("--fine-tuned", help="The folder of a 'fine-tune' run.", rich_help_panel=DATA)
    ] = None,
    method: Annotated[
        str,
        typer.Option("--method", help="grad-cam, patch-text, legrad, occlusion, ...", rich_help_panel=COMPUTE),
    ] = "grad-cam",
    layer: Annotated[
        str | None, typer.Option("--layer", help="A layer in place of the model's own.", rich_help_panel=COMPUTE)
    ] = None,
    panels: Annotated[
        int, typer.Option("--panels", min=0, help="Images drawn for each label.", rich_help_panel=OUTPUT)
    ] = 4,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    batch_size: BatchSizeOption = "auto",
    workers: WorkersOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
) -> None:
    """Hold maps against a radiologist's boxes: pointing game, IoU, relevance mass, with intervals and chance.

    Example: medvlm-probe grad-cam agree --sheet runs/grad-cam-sample/1a2b3c --annotations filled.csv
    """
    from medvlm_probe.cli.grad_cam_print import print_maps
    from medvlm_probe.cli.grad_cam_run import MapRequest, run_maps
    from medvlm_probe.cli.grad_cam_settings import parse_settings
    from medvlm_probe.cli.steps import Compute, resolved_config
    from medvlm_probe.runs import open_run, write_csv, write_json
    from medvlm_probe.saliency.heat_map_study import MapOptions
    from medvlm_probe.saliency.reader_sheet import read_annotations

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    compute = Compute.parse(device, precision, batch_size, workers, "0")
    asked = parse_settings(compare, probe, fine_tuned, None)
    folder = Path(sheet)
    facts = _facts(folder)
    cohort = _cohort(folder, facts)
    marked = read_annotations(annotations, facts["asked"])
    labels = tuple(dict.fromkeys(name for names in facts["asked"].values() for name in names))
    if not len(marked.boxes):
        raise InputError(f"{annotations.name} holds no box, so there is nothing to hold maps against.")
    run = open_run("grad-cam-agree", resolved_config(context), out)
    regions = _regions(run.path, cohort, marked)
    counts = {name: marked.count(name) for name in labels}
    request = MapRequest(
        cohort=cohort,
        regions=regions,
        model=model,
        asked=asked,
        prompts=prompts,
        labels=tuple(label or (name for name in cohort.labels if name in regions.labels)),
        split=None,
        train_from=None,
        threshold_from=None,
        sample=len(cohort),
        reference=0,
        options=MapOptions(method, layer, seed),
        compute=compute,
        panels=panels,
        note=PHANTOM_NOTE if facts["phantoms"] else None,
    )
    result = run_maps(output, request, run)
    result.json["reader"] = counts
    write_json(run.path / "grad-cam.json", result.json)
    write_csv(run.path / "answers.csv", marked.answers)
    if as_json:
        output.json(result.json)
    else:
        _print_reader(output, cohort, counts)
        print_maps(output, result)
    output.wrote([*result.paths, run.path / "answers.csv", run.path / "run.json"])


_FIELDS: dict[str, Any] = {
    "asked": dict[str, list[str]],
    "labels": dict[str, str],
    "same_as": list[str],
    "cohort": str,
    "phantoms": bool,
}


def _facts(folder: Path) -> dict[str, Any]:
    from pydantic import TypeAdapter

    from medvlm_probe.runs import parse_json

    path = folder / SHEET_FILE
    try:
        facts: dict[str, Any] = parse_json(path.read_bytes())
        for name, kind in _FIELDS.items():
            TypeAdapter(kind).validate_python(facts[name], strict=True)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"'{folder}' is no folder of 'grad-cam sample' ({SHEET_FILE}: {error}).") from error
    return facts


def _cohort(folder: Path, facts: Mapping[str, Any]) -> Cohort:
    """Return the sheet's images as a cohort, whose labels are those that the images were drawn by."""
    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.cohort.data_cards import DataCard
    from medvlm_probe.cohort.images import FileImages
    from medvlm_probe.cohort.manifest import read_manifest

    labels = tuple(facts["labels"])
    manifest = read_manifest(folder / MANIFEST_FILE, labels)
    name = f"sheet-of-{facts['cohort']}"
    try:
        card = DataCard(name=name, labels=dict(facts["labels"]), same_as=list(facts["same_as"]))
    except ValueError as error:
        raise InputError(f"{SHEET_FILE} of '{folder}' names a cohort or labels that are none.") from error
    source = FileImages(folder, tuple(manifest.table["image"]))
    return Cohort(name, manifest.table, labels, "ignore", source, card)


def _regions(folder: Path, cohort: Cohort, marked: Annotations) -> Regions:
    from medvlm_probe.cohort.regions import read_regions
    from medvlm_probe.runs import write_csv

    boxes = marked.boxes.assign(image=[f"{FOR_THE_READER}/images/{name}.png" for name in marked.boxes["image"]])
    write_csv(folder / "reader_boxes.csv", boxes.assign(source="reader"), exact=True)
    return read_regions(folder / "reader_boxes.csv", cohort, form="boxes")


def _print_reader(output: Output, cohort: Cohort, counts: Mapping[str, Mapping[str, int]]) -> None:
    columns = {
        "n_asked": "Asked",
        "n_present": "Present",
        "n_absent": "Absent",
        "n_present_without_box": "Present, no box",
        "n_not_answered": "Not answered",
    }
    output.table(
        "What the reader marked",
        ("Label", *columns.values()),
        [(cohort.card.words(label), *(str(found[name]) for name in columns)) for label, found in counts.items()],
    )
