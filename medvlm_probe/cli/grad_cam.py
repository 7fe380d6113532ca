"""`medvlm-probe grad-cam`: where a model looks, whether the finding is there, and whether the label matters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medvlm_probe.cli import grad_cam_agree, grad_cam_sheet
from medvlm_probe.cli.options import (
    COMPUTE,
    DATA,
    OUTPUT,
    BatchSizeOption,
    CohortOption,
    DeviceOption,
    JsonOption,
    LabelOption,
    MaxFailuresOption,
    ModelOption,
    NoColorOption,
    OutOption,
    PrecisionOption,
    QuietOption,
    SeedOption,
    SplitOption,
    SplitsOption,
    UncertaintyOption,
    VerboseOption,
    WorkersOption,
)
from medvlm_probe.cli.output import make_output
from medvlm_probe.errors import InputError

if TYPE_CHECKING:
    from medvlm_probe.cli.output import Output
    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.cohort.regions import Regions

app = typer.Typer(invoke_without_command=True)
app.command("sample")(grad_cam_sheet.sample)
app.command("agree")(grad_cam_agree.agree)


@app.callback()
def grad_cam(
    context: typer.Context,
    label: LabelOption = None,
    image: Annotated[
        Path | None,
        typer.Option("--image", help="One file, PNG, JPEG or DICOM, instead of a cohort.", rich_help_panel=DATA),
    ] = None,
    cohort: CohortOption = "phantom",
    model: ModelOption = "phantom-clip",
    split: SplitOption = None,
    splits: SplitsOption = None,
    uncertainty: UncertaintyOption = None,
    sample: Annotated[
        int | None,
        typer.Option("--sample", min=1, help="Most images of each label. Default: 20, or 4 where no label is named.",
                     rich_help_panel=DATA),
    ] = None,
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
    train_from: Annotated[
        str | None,
        typer.Option("--train-from", help="Split to fit a linear probe on, without --probe.", rich_help_panel=DATA),
    ] = None,
    regions: Annotated[
        str | None,
        typer.Option(
            "--regions", help="Where findings are: boxes, masks or run lengths. Default: the cohort's own.",
            rich_help_panel=DATA,
        ),
    ] = None,
    label_map: Annotated[
        Path | None, typer.Option("--label-map", help="TOML: other names in --regions.", rich_help_panel=DATA)
    ] = None,
    threshold_from: Annotated[
        str | None,
        typer.Option(
            "--threshold-from", help="Split to choose the IoU threshold on; no result uses it. Default: Otsu's.",
            rich_help_panel=DATA,
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option("--method", help="grad-cam, patch-text, legrad, occlusion, attention-rollout, ...",
                     rich_help_panel=COMPUTE),
    ] = "grad-cam",
    layer: Annotated[
        str | None, typer.Option("--layer", help="A layer in place of the model's own.", rich_help_panel=COMPUTE)
    ] = None,
    faithfulness: Annotated[
        int,
        typer.Option(
            "--faithfulness", min=0,
            help="Images of each label whose patches are taken out and put back, some 230 passes an image.",
            rich_help_panel=COMPUTE,
        ),
    ] = 0,
    reference: Annotated[
        int,
        typer.Option("--reference", min=0, help="Random images that scores are ranked among.", rich_help_panel=COMPUTE),
    ] = 100,
    panels: Annotated[
        int, typer.Option("--panels", min=0, help="Images drawn for each label.", rich_help_panel=OUTPUT)
    ] = 4,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    batch_size: BatchSizeOption = "auto",
    workers: WorkersOption = None,
    max_failures: MaxFailuresOption = "5%",
    out: OutOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
) -> None:  # fmt: skip
    """Draw where a model looks for a finding, and hold it against regions, chance and maps that must not find it.

    Without regions the maps are only compared with their controls, and nothing passes. Panels hold patients' images.

    Example: medvlm-probe grad-cam --label cardiomegaly --sample 20
    """
    if context.invoked_subcommand is not None:
        return
    from medvlm_probe.cli.grad_cam_print import print_maps
    from medvlm_probe.cli.grad_cam_run import MapRequest, run_maps
    from medvlm_probe.cli.grad_cam_settings import parse_settings
    from medvlm_probe.cli.steps import Compute, resolved_config
    from medvlm_probe.runs import open_run
    from medvlm_probe.saliency.heat_map_study import MapOptions
    from medvlm_probe.saliency.methods import method_named

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    compute = Compute.parse(device, precision, batch_size, workers, max_failures)
    method_named(method)
    asked = parse_settings(compare, probe, fine_tuned, train_from)
    if label_map is not None and regions is None:
        raise InputError("--label-map belongs to --regions; give both.")
    if image is not None:
        for option, given in (("--split", split), ("--regions", regions), ("--threshold-from", threshold_from)):
            if given is not None:
                raise InputError(f"{option} belongs to a cohort; leave it out with --image.")
        loaded, own_regions = _one_image(image), None
    else:
        loaded, own_regions = _cohort(output, cohort, uncertainty, splits, regions, label_map)
    request = MapRequest(
        cohort=loaded,
        regions=own_regions,
        model=model,
        asked=asked,
        prompts=prompts,
        labels=tuple(label or ()),
        split=split,
        train_from=train_from,
        threshold_from=threshold_from,
        sample=sample,
        reference=reference,
        options=MapOptions(method, layer, seed, faithfulness),
        compute=compute,
        panels=panels,
    )
    run = open_run("grad-cam", resolved_config(context), out)
    result = run_maps(output, request, run)
    if as_json:
        output.json(result.json)
    else:
        print_maps(output, result)
    output.wrote([*result.paths, run.path / "run.json"])


def _cohort(
    output: Output,
    spec: str,
    uncertainty: Any,
    splits: Path | None,
    regions: str | None,
    label_map: Path | None,
) -> tuple[Cohort, Regions | None]:
    """Return the cohort and where its findings are: the file that is given, else what lies with the cohort."""
    from medvlm_probe.cohort.catalog import load_with_notes
    from medvlm_probe.cohort.regions import regions_named, regions_of
    from medvlm_probe.cohort.split_files import read_splits
    from medvlm_probe.cohort.splits import with_splits

    loaded = load_with_notes(spec, uncertainty=uncertainty)
    cohort = loaded.cohort if splits is None else with_splits(loaded.cohort, read_splits(splits))
    found = (
        regions_of(cohort, boxes=loaded.boxes, boxes_file=loaded.boxes_file)
        if regions is None
        else regions_named(regions, cohort, label_map)
    )
    if found is None:
        output.warn("No regions are known, so maps are only compared with their controls. Give some with --regions.")
    else:
        for note in found.notes:
            output.warn(note)
        if len(found.skipped):
            output.warn(f"{len(found.skipped):,} rows of the regions cannot be used; see regions_skipped.csv.")
    return cohort, found


def _one_image(path: Path) -> Cohort:
    """Return a file as a cohort of one image of which nothing is known."""
    import numpy as np
    import pandas as pd

    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.cohort.data_cards import DataCard
    from medvlm_probe.cohort.images import FileImages, recipe_for
    from medvlm_probe.cohort.labels import CHEXPERT_LABELS

    if not path.is_file():
        raise InputError(f"There is no image '{path}'. Check the path.")
    table = pd.DataFrame({"image": [path.name]})
    table[list(CHEXPERT_LABELS)] = np.float32("nan")
    source = FileImages(path.parent, (path.name,), recipe=recipe_for((path.name,)))
    source.read(0)
    return Cohort("one-image", table, CHEXPERT_LABELS, "ignore", source, DataCard(name="one-image"))
