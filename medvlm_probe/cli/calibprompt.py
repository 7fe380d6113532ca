"""`medvlm-probe figures calibprompt`: CalibPrompt's table and ablations on any cohorts and models."""

from __future__ import annotations

from typing import Annotated

import typer

from medvlm_probe.cli.options import (
    DATA,
    BatchSizeOption,
    DeviceOption,
    JsonOption,
    LabelOption,
    MaxFailuresOption,
    NoColorOption,
    OutOption,
    PrecisionOption,
    QuietOption,
    SeedOption,
    UncertaintyOption,
    VerboseOption,
    WorkersOption,
)

TRAINING = "How to tune"
SWEEPS = ("shots=4,8,16,32", "context=4,16,32")


def calibprompt(
    context: typer.Context,
    label: LabelOption = None,
    cohort: Annotated[
        list[str] | None,
        typer.Option("--cohort", help="Repeatable. Default: balanced phantoms, as two problems with one right label "
                     "and one with two labels.", rich_help_panel=DATA),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="Repeatable. Default: phantom-clip.", rich_help_panel=DATA),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--classes",
            help="Of cohorts with several labels: images with exactly one of these, such as pneumonia,no_finding; "
            "repeatable.",
            rich_help_panel=DATA,
        ),
    ] = None,
    uncertainty: UncertaintyOption = None,
    prompts: Annotated[
        str | None,
        typer.Option("--prompts", help="Default: the card's names; of several labels chexzero.", rich_help_panel=DATA),
    ] = None,
    train_from: Annotated[
        str | None,
        typer.Option("--train-from", help="Split that few-shot images are drawn from. Default: train, else calib; "
                     "cohorts without splits are parted by patient.", rich_help_panel=DATA),
    ] = None,
    fit_from: Annotated[
        str | None,
        typer.Option("--fit-from", help="Split to fit a temperature on. Default: calib, else val, else the training "
                     "split.", rich_help_panel=DATA),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Split to show. Default: test.", rich_help_panel=DATA)
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option("--methods", help="As for 'calibration'; repeatable. Default: 10.", rich_help_panel=TRAINING),
    ] = None,
    draws: Annotated[
        int, typer.Option("--draws", min=2, help="Few-shot sets each method is tuned on.", rich_help_panel=TRAINING)
    ] = 10,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep", help=f"Ablations of the first problem; repeatable. Default: {' and '.join(SWEEPS)}.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    ablation: Annotated[
        bool, typer.Option("--ablation/--no-ablation", help="Run ablations.", rich_help_panel=TRAINING)
    ] = True,
    ablation_draws: Annotated[
        int, typer.Option("--ablation-draws", min=2, help="At most so many draws there.", rich_help_panel=TRAINING)
    ] = 5,
    shots: Annotated[
        int, typer.Option("--shots", min=1, help="Images of each class to learn from.", rich_help_panel=TRAINING)
    ] = 8,
    n_context: Annotated[
        int, typer.Option("--context", min=1, help="Context vectors, 1 to 64.", rich_help_panel=TRAINING)
    ] = 16,
    views: Annotated[
        int,
        typer.Option(
            "--views", min=1, help="Augmented views an image; 1 is the clean image.", rich_help_panel=TRAINING
        ),
    ] = 1,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Passes.", rich_help_panel=TRAINING)] = 50,
    logit_scale: Annotated[
        float | None,
        typer.Option("--logit-scale", min=0.0, help="Instead of the model's own.", rich_help_panel=TRAINING),
    ] = None,
    recipes: Annotated[
        bool,
        typer.Option(
            "--recipes/--no-recipes", help="Published weights where model and data set have them.",
            rich_help_panel=TRAINING,
        ),
    ] = True,
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
    """Run CalibPrompt's study anew: does SMAC with angular separation mend prompt tuning's calibration?

    Every method is tuned on the same few-shot draws and shown on the same images, beside temperature scaling, with
    intervals over draws and patients; the paper's statements are put to the test. Published values stand beside where
    model and data set are the published ones. The default takes about 3
    minutes on an idle core; --draws 5 --no-ablation less than half of that.

    Example: medvlm-probe figures calibprompt --out figures/calibprompt

    Example: medvlm-probe figures calibprompt --model biomedclip --cohort covidx:DIR --cohort rsna18:DIR --views 8
    """
    from medvlm_probe.cli import calibprompt_run as running
    from medvlm_probe.cli.calibprompt_files import print_study, write_study
    from medvlm_probe.cli.calibration_sweep import parse_ablation
    from medvlm_probe.cli.output import make_output
    from medvlm_probe.cli.steps import Compute, resolved_config
    from medvlm_probe.cohort.catalog import load_cohort
    from medvlm_probe.runs import open_run

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    compute = Compute.parse(device, precision, batch_size, workers, max_failures)
    given = classes or (None if cohort or label else running.DEFAULT_CLASSES)
    options = running.StudyOptions(
        labels=tuple(label or (() if cohort or classes else running.DEFAULT_LABELS)),
        classes=tuple(tuple(filter(None, line.replace(" ", "").split(","))) for line in given or ()),
        methods=tuple(methods or ()),
        draws=draws,
        ablation_draws=ablation_draws,
        sweeps=dict(parse_ablation(text) for text in sweep or SWEEPS) if ablation else {},
        shots=shots,
        context=n_context,
        views=views,
        epochs=epochs,
        prompts=prompts,
        logit_scale=logit_scale,
        recipes=recipes,
        train_from=train_from,
        fit_from=fit_from,
        split=split,
        seed=seed,
    )
    cohorts = [load_cohort(spec, uncertainty=uncertainty) for spec in cohort or [running.DEFAULT_COHORT]]
    problems = tuple(running.problems_of(cohorts, options))
    run = open_run("figures-calibprompt", resolved_config(context), out)
    done = running.run_study(output, problems, model or ["phantom-clip"], compute, run, options)

    from medvlm_probe.report.calibprompt_study import calibprompt_study

    study = calibprompt_study(done.cells, done.ablations)
    result = study.to_json()
    paths = write_study(run.path, study, result, done.note)
    run.write_provenance({"cells": done.facts, "seeds": {"draws": list(range(draws)), "resampling": seed}})
    if as_json:
        output.json(result)
    else:
        print_study(output, study, done.note)
    output.wrote([*paths, run.path / "run.json"])
