"""`medvlm-probe sketch`: what a hospital can send instead of images or embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medvlm_probe.cli import sketch_tools
from medvlm_probe.cli.options import (
    COMPUTE,
    DATA,
    OUTPUT,
    AddressOption,
    BatchSizeOption,
    CohortOption,
    DeviceOption,
    EngineOption,
    JsonOption,
    LabelOption,
    MaxFailuresOption,
    ModelOption,
    ModelWorkersOption,
    NoColorOption,
    PrecisionOption,
    QuietOption,
    SplitOption,
    SplitsOption,
    UncertaintyOption,
    VerboseOption,
    WorkersOption,
)
from medvlm_probe.cli.output import make_output
from medvlm_probe.cli.sketch_tools import DeltaOption, EpsilonOption
from medvlm_probe.errors import InputError

app = typer.Typer(invoke_without_command=True)
app.command("merge")(sketch_tools.merge)
app.command("export")(sketch_tools.export)
app.command("show")(sketch_tools.show)
app.command("compare")(sketch_tools.compare)


@app.callback()
def sketch(
    context: typer.Context,
    label: LabelOption = None,
    cohort: CohortOption = "phantom",
    model: ModelOption = "phantom-clip",
    split: SplitOption = None,
    splits: SplitsOption = None,
    uncertainty: UncertaintyOption = None,
    prompts: Annotated[
        str,
        typer.Option("--prompts", help="What makes probabilities; see 'prompts'. none: no labels.",
                     rich_help_panel=DATA),
    ] = "radiology",
    like: Annotated[
        Path | None,
        typer.Option("--like", help="A sketch to be compared or merged with: measure what it measures.",
                     rich_help_panel=DATA),
    ] = None,
    features: Annotated[
        int, typer.Option("--features", min=2, help="Random features, an even number.", rich_help_panel=COMPUTE)
    ] = 4_096,
    bandwidth: Annotated[
        float | None,
        typer.Option("--bandwidth", help="Of the kernel. Default: the median distance.", rich_help_panel=COMPUTE),
    ] = None,
    export: Annotated[
        bool,
        typer.Option("--export", help="Write what may leave: cells under 10 suppressed.", rich_help_panel=OUTPUT),
    ] = False,
    epsilon: EpsilonOption = None,
    delta: DeltaOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    batch_size: BatchSizeOption = "auto",
    workers: WorkersOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    model_workers: ModelWorkersOption = None,
    max_failures: MaxFailuresOption = "5%",
    out: Annotated[
        Path, typer.Option("--out", help="The file to write.", rich_help_panel=OUTPUT)
    ] = Path("cohort.sketch"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
) -> None:  # fmt: skip
    """Sum a cohort up in one file without a vector of any patient, to compare hospitals or to audit beyond memory.

    A working sketch is exact and stays inside: its shards can be merged. With --export it may leave: see 'sketch
    show'. A site's sketch is made --like the reference's; patients must not be in two shards.

    Example: medvlm-probe sketch --cohort site.csv --like reference.sketch --out site.sketch
    """
    if context.invoked_subcommand is not None:
        return
    from medvlm_probe.audit.cohort_sketch import own_plan, patient_names, score_cohort, sketch_cohort
    from medvlm_probe.audit.sketch_files import read_sketch, write_sketch
    from medvlm_probe.cli.steps import Compute, embed_cohort
    from medvlm_probe.cohort.catalog import load_cohort
    from medvlm_probe.cohort.cohort import resolve_labels
    from medvlm_probe.embeddings.engines import EngineOptions, open_engine

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    compute = Compute.parse(device, precision, batch_size, workers, max_failures)
    if (epsilon is not None or delta is not None) and not export:
        raise InputError("--epsilon and --delta belong to --export: only what leaves gets noise.")
    plan = None if like is None else read_sketch(like).plan
    if plan is not None and (label or bandwidth is not None):
        raise InputError("--like settles labels and bandwidth: leave --label and --bandwidth out.")
    loaded = load_cohort(cohort, split=split, splits=splits, uncertainty=uncertainty)
    with open_engine(engine, EngineOptions(model, device, address, model_workers, workers)) as opened:
        done = embed_cohort(output, loaded, model, compute, opened)
        vectors = done.embedded.vectors
        names = patient_names(done.cohort, done.embedded.keys)
        wanted = plan.labels if plan is not None else resolve_labels(loaded, label) if label else None
        scored = score_cohort(done.cohort, vectors, done.model, prompts, wanted)
        settled = plan or own_plan(done.model, vectors, names, scored, n_features=features, bandwidth=bandwidth)
        # Thresholds come from the labels, where there are any: a bandwidth alone does not make the plan another's.
        free = bandwidth is not None and all(threshold == 0.5 for threshold in settled.thresholds)
        made = sketch_cohort(
            settled, done.model, vectors, names, scored, chosen_here=plan is None and not free, engine=opened
        )
    if export:
        made = sketch_tools.exported(made, epsilon, delta)
    write_sketch(out, made)
    sketch_tools.tell(output, made, out, as_json=as_json)
    output.wrote([out])
