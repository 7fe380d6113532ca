"""`medvlm-probe tune`: learn prompts' context, or all weights, from a few images; show what that is worth on others."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medvlm_probe.cli.options import (
    DATA,
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
    SplitOption,
    SplitsOption,
    UncertaintyOption,
    VerboseOption,
    WorkersOption,
)
from medvlm_probe.cli.output import Output, interval, make_output, number
from medvlm_probe.cli.tuning_options import TrainFromOption
from medvlm_probe.errors import InputError

if TYPE_CHECKING:
    from medvlm_probe.tuning.loss_mix import LossMix
    from medvlm_probe.tuning.prompt_tuning import Schedule
    from medvlm_probe.tuning.tuned_worth import Worth

TRAINING = "How to tune"
METRIC_WORDS = {"accuracy": "Accuracy ↑", "macro_auroc": "Mean AUROC ↑"}


def tune(
    context: typer.Context,
    label: LabelOption = None,
    cohort: CohortOption = "phantom",
    model: ModelOption = "phantom-clip",
    train_from: TrainFromOption = None,
    split: SplitOption = None,
    splits: SplitsOption = None,
    uncertainty: UncertaintyOption = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts",
            help="Texts beside the context: the first of each label. Default: chexzero; names for one label an image.",
            rich_help_panel=DATA,
        ),
    ] = None,
    regime: Annotated[
        Literal["prompts", "full"],
        typer.Option(
            "--regime", help="What is learned: prompts' context, or every weight of both towers (full).",
            rich_help_panel=TRAINING,
        ),
    ] = "prompts",
    loss: Annotated[
        str, typer.Option("--loss", help="Losses with weights: ls+1.0*smac(alpha=0.1)+3*as.", rich_help_panel=TRAINING)
    ] = "ls+smac+as",
    shots: Annotated[
        int, typer.Option("--shots", min=1, help="Images of each class to learn from.", rich_help_panel=TRAINING)
    ] = 8,
    validation_shots: Annotated[
        int,
        typer.Option(
            "--validation-shots", min=0, help="More images of each class, other patients', to choose the epoch by.",
            rich_help_panel=TRAINING,
        ),
    ] = 0,
    n_context: Annotated[
        int | None, typer.Option("--context", help="Context vectors, 1 to 64. Default: 16.", rich_help_panel=TRAINING)
    ] = None,
    context_for: Annotated[
        Literal["all", "side", "text"],
        typer.Option(
            "--context-for", help="One context for all texts, for each side (present, absent), or for each text.",
            rich_help_panel=TRAINING,
        ),
    ] = "all",
    words: Annotated[
        str, typer.Option("--words", help="Begin as these words instead of at random.", rich_help_panel=TRAINING)
    ] = "",
    place: Annotated[
        Literal["end", "middle", "front"],
        typer.Option("--place", help="Where the name stands beside the context.", rich_help_panel=TRAINING),
    ] = "end",
    views: Annotated[
        int,
        typer.Option(
            "--views", min=1, help="Augmented views an image; 1 is the clean image.", rich_help_panel=TRAINING
        ),
    ] = 8,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Passes.", rich_help_panel=TRAINING)] = 50,
    rate: Annotated[
        float | None,
        typer.Option("--rate", help="Full rate. Default: 0.002; for all weights 2e-7.", rich_help_panel=TRAINING),
    ] = None,
    optimizer: Annotated[
        Literal["sgd", "adamw"] | None,
        typer.Option("--optimizer", help="For all weights. Default: sgd, as for prompts.", rich_help_panel=TRAINING),
    ] = None,
    train_batch: Annotated[
        int, typer.Option("--train-batch", min=1, help="Images a step.", rich_help_panel=TRAINING)
    ] = 16,
    logit_scale: Annotated[
        float | None,
        typer.Option("--logit-scale", help="Multiplier of cosines in place of the model's.", rich_help_panel=TRAINING),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", help="A published one, such as biomedclip-covidx, for all options above that are not given.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    legacy: Annotated[
        bool,
        typer.Option(
            "--legacy", help="The released code's views (random crops, mirrored) and double embedding of BERT's words.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="Draws of the few-shot set, from seed 0 on.", rich_help_panel=TRAINING)
    ] = 1,
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
    """Learn the context of text prompts from a few images of one split, and show what that is worth on others.

    Images go through the model once, a few views of each; only the text tower runs in a step. Each draw's prompts lie
    in OUT/seed-NN and serve every command as --prompts tuned:OUT/seed-NN. Killed at any moment, the same command goes
    on.

    With --regime full the prompts stay as they are, and every weight is tuned at the published rate of 2e-7. Each
    draw's model lies in OUT/seed-NN and serves every command as --model local:OUT/seed-NN.

    Example: medvlm-probe tune --train-from calib --split test --seeds 3
    """
    from medvlm_probe.cli.steps import Compute, resolved_config, write_quarantine
    from medvlm_probe.cli.tune_full import refuse_options_of_prompts, tune_and_show
    from medvlm_probe.cli.tune_steps import Asked, prepare, tuned_prompts, worth_before_and_after
    from medvlm_probe.cohort.catalog import load_cohort
    from medvlm_probe.runs import open_run, write_csv, write_json
    from medvlm_probe.tuning.full_fine_tuning import PUBLISHED_RATE, FullSettings, full_schedule
    from medvlm_probe.tuning.losses import parse_losses
    from medvlm_probe.tuning.prompt_learner import ContextSettings
    from medvlm_probe.tuning.prompt_tuning import Schedule
    from medvlm_probe.tuning.views import Views
    from medvlm_probe.zero_shot.predict import NAMES, resolve_task

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    compute = Compute.parse(device, precision, batch_size, workers, max_failures)
    schedule = Schedule(epochs=epochs, batch_size=train_batch, rate=0.002 if rate is None else rate)
    if recipe is not None:
        loss, shots, n_context, schedule = _of_recipe(context, recipe, loss, shots, n_context, schedule)
    mix = parse_losses(loss)
    if regime == "full":
        refuse_options_of_prompts(context)
    elif optimizer is not None:
        raise InputError("--optimizer is for --regime full; prompts are tuned by stochastic gradient descent.")
    if logit_scale is not None and logit_scale <= 0:
        raise InputError(f"--logit-scale {logit_scale:g}: expected above 0.")
    kind: Literal["clean", "light", "crops"] = "crops" if legacy else "light" if views > 1 else "clean"
    asked = Asked(
        shots=shots,
        validation_shots=validation_shots,
        seeds=tuple(range(seeds)),
        context=ContextSettings(n_context, context_for, place, words, legacy),
        views=Views(views, kind),
        schedule=schedule,
        logit_scale=logit_scale,
    )
    loaded = load_cohort(cohort, uncertainty=uncertainty, splits=splits)
    single = loaded.card.task == "single_label"
    task = resolve_task(loaded, prompts or (NAMES if single else "chexzero"), label, None)
    task = replace(task, kind="softmax" if single else "probability")
    _refuse_without_gradient(output, mix, len(task.labels) if single else 2)
    run = open_run("tune", resolved_config(context), out)

    prepared = prepare(output, loaded, task, model, compute, asked, train_from, split)
    if regime == "full":
        settings = FullSettings(
            full_schedule(epochs, train_batch, PUBLISHED_RATE if rate is None else rate),
            optimizer or "sgd",
            asked.views,
            asked.logit_scale,
        )
        tune_and_show(output, prepared, task, model, compute, asked, mix, settings, run)
        return
    start = time.monotonic()
    found, learner = tuned_prompts(output, prepared, task, compute, asked, mix, run.path)
    seconds = time.monotonic() - start
    output.say(f"Tuned {len(found)} draws with '{mix}', {asked.views.words}, in {seconds:.1f} s.")
    for name, count in prepared.few_shot[0].short.items():
        output.warn(f"{name}: {count} images of different patients in '{train_from}', {shots} asked for.")

    worth = worth_before_and_after(prepared, task, found, asked)
    done = prepared.done
    result = {
        "loss": str(mix),
        "logit_scale": asked.logit_scale or done.model.logit_scale,
        "shots": shots,
        "views": asked.views.words,
        "labels": list(task.labels),
        "labels_used": prepared.few_shot[0].n_labels_used,
        "parameters": int(learner.shape[0] * learner.shape[1] * learner.shape[2]),
        "roles": prepared.roles.to_json(),
        "zero_shot": worth["zero-shot"].to_json(),
        "draws": [
            {"prompts": name, "kept_epoch": tuned.about["kept_epoch"], "steps": tuned.about["steps"]}
            | worth[name].to_json()
            for name, tuned in found.items()
        ],
        "seen_in_training": done.seen.to_json(),
    }
    paths = write_quarantine(run, done.embedded)
    for few_shot in prepared.few_shot:
        path = run.path / "few_shot" / f"seed-{few_shot.seed:02d}.json"
        write_json(path, few_shot.to_json(prepared.keys))
        paths.append(path)
    write_csv(run.path / "losses.csv", loss_table({name: tuned.about for name, tuned in found.items()}))
    write_json(run.path / "tune.json", result)
    paths += [run.path / "losses.csv", run.path / "tune.json"]
    run.write_provenance(done.provenance() | {"tuning_seconds": round(seconds, 3), "recipe": recipe, **_facts(result)})
    if as_json:
        output.json(result)
    else:
        print_worth(output, worth, title=f"Prompts of {done.model.name} tuned with '{mix}', {shots} shots a class")
        output.line(
            f"Each draw used {result['labels_used']:,} labels and {result['parameters']:,} parameters. Draws share the "
            "images shown, so their spread is that of few-shot sets alone."
        )
        if done.note:
            output.line(done.note)
    output.wrote([*paths, *(run.path / name for name in found), run.path / "run.json"])


def _refuse_without_gradient(output: Output, mix: LossMix, n_classes: int) -> None:
    """Say which term can teach nothing here, and refuse the mix where no other teaches the classes."""
    note = mix.without_gradient(n_classes)
    if note and not any(term.kind.teaches and term.name != "zs-norm" for term in mix.terms):
        raise InputError(f"{note} Give another loss than '{mix}', such as ls+smac+as.")
    if note:
        output.warn(note)


def _of_recipe(
    context: typer.Context, name: str, loss: str, shots: int, n_context: int | None, schedule: Schedule
) -> tuple[str, int, int | None, Schedule]:
    """Return the options as a recipe has them, but for those that stand on the command line."""
    from medvlm_probe.tuning.prompt_recipes import prompt_recipe

    found = prompt_recipe(name)

    def given(option: str) -> bool:
        source = context.get_parameter_source(option)
        return source is not None and source.name != "DEFAULT"

    own = {"epochs": "epochs", "rate": "rate", "train_batch": "batch_size"}
    kept = {field: getattr(schedule, field) for option, field in own.items() if given(option)}
    return (
        loss if given("loss") else found.loss,
        shots if given("shots") else found.shots,
        n_context if given("n_context") or given("words") else found.context,
        replace(found.schedule, **kept),
    )


def loss_table(found: Mapping[str, Mapping[str, Any]], what: str = "prompts") -> Any:
    """Return each epoch's losses of what was tuned, as a table; `found` is what each says of itself, by name."""
    import pandas as pd

    rows = []
    for name, about in found.items():
        validation = about["validation"] or [None] * len(about["losses"])
        for epoch, (value, held_out) in enumerate(zip(about["losses"], validation, strict=True), start=1):
            rows.append({what: name, "epoch": epoch, "loss": value, "validation_cross_entropy": held_out})
    return pd.DataFrame(rows)


def _facts(result: Mapping[str, Any]) -> dict[str, Any]:
    return {"roles": result["roles"], "seeds": {"draws": [entry["prompts"] for entry in result["draws"]]}}


def print_worth(output: Output, worth: Mapping[str, Worth], *, title: str, what: str = "Prompts") -> None:
    """Print what is worth how much, before and after, with the spread over draws; `what` was tuned."""
    import numpy as np

    rows = [
        (
            name if name != "zero-shot" else "Zero-shot, untuned",
            interval(entry.value, 3),
            number(entry.ece.plain),
            interval(entry.ece.estimate, 3),
            f"{number(entry.ece.band.low)} to {number(entry.ece.band.high)}",
            interval(entry.overconfidence.estimate, 3),
        )
        for name, entry in worth.items()
    ]
    draws = [entry for name, entry in worth.items() if name != "zero-shot"]
    if len(draws) > 1:

        def spread(values: Sequence[float]) -> str:
            return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"

        rows.append(
            (
                "Mean over draws ± SD",
                spread([entry.value.value for entry in draws]),
                spread([entry.ece.plain for entry in draws]),
                spread([entry.ece.estimate.value for entry in draws]),
                "",
                spread([entry.overconfidence.estimate.value for entry in draws]),
            )
        )
    first = next(iter(worth.values()))
    output.table(
        title,
        (what, METRIC_WORDS[first.metric], "ECE ↓", "ECE, debiased", "ECE if calibrated", "Overconfidence"),
        rows,
        caption="Value [95 % interval]. ECE if calibrated: what a perfectly calibrated model of this size shows. "
        "Overconfidence: confidence less accuracy; below 0 is under-confident.",
    )
