"""`medvlm-probe fine-tune`: train a model's image tower with a linear head, and show what the result is worth."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medvlm_probe.cli.options import (
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
    ThresholdFromOption,
    ThresholdRuleOption,
    UncertaintyOption,
    VerboseOption,
    WorkersOption,
)
from medvlm_probe.cli.output import make_output, number
from medvlm_probe.cli.tuning_options import TrainFromOption, ValidationFromOption
from medvlm_probe.errors import InputError

if TYPE_CHECKING:
    from medvlm_probe.tuning.fine_tune_settings import EpochLog, FineTuneSettings
    from medvlm_probe.tuning.material import Material

LossName = Literal["bce", "weighted-bce", "asymmetric"]

TRAINING = "How to train"


def fine_tune(
    context: typer.Context,
    label: LabelOption = None,
    cohort: CohortOption = "phantom",
    model: ModelOption = "phantom-clip",
    train_from: TrainFromOption = None,
    validation_from: ValidationFromOption = None,
    threshold_from: ThresholdFromOption = None,
    split: SplitOption = None,
    splits: SplitsOption = None,
    uncertainty: UncertaintyOption = None,
    epochs: Annotated[
        int, typer.Option("--epochs", min=1, help="Most passes over the images.", rich_help_panel=TRAINING)
    ] = 10,
    train_batch: Annotated[
        int, typer.Option("--train-batch", min=1, help="Images through the tower at once.", rich_help_panel=TRAINING)
    ] = 32,
    accumulate: Annotated[
        int, typer.Option("--accumulate", min=1, help="Batches to one update.", rich_help_panel=TRAINING)
    ] = 1,
    rate: Annotated[
        float, typer.Option("--rate", help="Full learning rate of the tower.", rich_help_panel=TRAINING)
    ] = 3e-5,
    head_rate: Annotated[
        float | None,
        typer.Option("--head-rate", help="That of the head. Default: ten times --rate.", rich_help_panel=TRAINING),
    ] = None,
    decay: Annotated[float, typer.Option("--decay", help="Weight decay.", rich_help_panel=TRAINING)] = 0.01,
    warmup: Annotated[
        float, typer.Option("--warmup", help="Share of the updates before the full rate.", rich_help_panel=TRAINING)
    ] = 0.1,
    loss: Annotated[LossName, typer.Option("--loss", help="What is made small.", rich_help_panel=TRAINING)] = "bce",
    patience: Annotated[
        int, typer.Option("--patience", min=1, help="Epochs without gain before it stops.", rich_help_panel=TRAINING)
    ] = 3,
    last_blocks: Annotated[
        int | None,
        typer.Option("--last-blocks", min=1, help="Train only the last blocks, for CPUs.", rich_help_panel=TRAINING),
    ] = None,
    augment: Annotated[
        bool, typer.Option("--augment", help="Small turns, shifts and contrasts; no flips.", rich_help_panel=TRAINING)
    ] = False,
    legacy: Annotated[
        bool,
        typer.Option(
            "--legacy", help="The published study's effective schedule; all options above are its own.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    threshold_rule: ThresholdRuleOption = "youden",
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
    """Train the image tower and a linear head on one split, stopped by another, and show what that is worth on a third.

    The model is written to OUT/model and loads in every command with --model local:OUT/model. Killed at any moment, the
    same command goes on.

    Example: medvlm-probe fine-tune --cohort phantom:n=100 --train-from calib --split test --epochs 3 --rate 1e-4
    """
    import numpy as np

    from medvlm_probe.cli.performance_files import print_performance, write_performance
    from medvlm_probe.cli.steps import Compute, embed_cohort, resolved_config, write_quarantine
    from medvlm_probe.cohort.catalog import load_cohort
    from medvlm_probe.cohort.cohort import resolve_labels
    from medvlm_probe.runs import open_run
    from medvlm_probe.tuning.fine_tune_settings import FineTuneSettings, legacy_settings
    from medvlm_probe.tuning.roles import assign_roles
    from medvlm_probe.zero_shot.performance import label_frequencies
    from medvlm_probe.zero_shot.thresholds import parse_rule

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    parse_rule(threshold_rule)
    compute = Compute.parse(device, precision, batch_size, workers, max_failures)
    settings = legacy_settings(seed) if legacy else FineTuneSettings(
        epochs=epochs, batch_size=train_batch, accumulate=accumulate, rate=rate,
        head_rate=10 * rate if head_rate is None else head_rate,
        decay=decay, warmup=warmup, loss=loss, patience=patience, last_blocks=last_blocks, augment=augment, seed=seed,
    )  # fmt: skip
    if threshold_from is not None and threshold_from == train_from:
        raise InputError("Thresholds cannot come from the training images. Name another --threshold-from.")
    loaded = load_cohort(cohort, uncertainty=uncertainty, splits=splits)
    labels = resolve_labels(loaded, label)
    if not labels:
        raise InputError(f"Cohort '{loaded.name}' has no labels to fit. Add a column of 1 and 0 for each label.")
    named: dict[str, Any] = {"train_from": train_from, "validation_from": validation_from, "stops": True}
    named |= {"threshold_from": threshold_from, "split": split, "seed": seed}
    needed = assign_roles(loaded, **named)
    run = open_run("fine-tune", resolved_config(context), out)
    before = embed_cohort(output, loaded.select(needed.used), model, compute)
    roles = assign_roles(before.cohort, **named, keys=before.embedded.keys)
    for note in roles.notes:
        output.warn(note)
    from medvlm_probe.models.training_data import declared_training_data
    from medvlm_probe.tuning.evaluate import evaluate
    from medvlm_probe.tuning.make_tuned import base_of, make_tuned
    from medvlm_probe.tuning.material import Material

    material = Material(
        before.cohort, before.embedded.keys, before.embedded.vectors, roles.train, roles.validation, labels
    )
    output.say(_intention(material, settings))
    with output.progress("Training") as progress:
        head = make_tuned(
            run.path,
            before.model,
            base_of(model),
            material,
            roles,
            settings,
            precision="bfloat16" if before.embedded.precision == "bfloat16" else "float32",
            workers=workers,
            progress=progress,
            on_epoch=lambda log: output.say(_epoch_words(log)),
        )
    output.say(f"The weights of epoch {head.about['best_epoch']} are in {run.path / 'model'}.")

    tuned_name = f"local:{run.path / 'model'}"
    evaluated = np.flatnonzero(roles.shown | roles.thresholds)
    after = embed_cohort(output, before.cohort.select(evaluated), tuned_name, compute)
    found = evaluate(
        head.scores(after.embedded.vectors, tuple(after.cohort.table["image"])),
        after.cohort,
        roles.select(evaluated[after.embedded.rows]),
        prior=label_frequencies(before.cohort.select(roles.train), labels),
        rule=threshold_rule,
        model=after.model.name,
        trained_on=declared_training_data(tuned_name),
        keys=after.embedded.keys,
    )
    after = replace(after, seen=found.seen)
    words = {name: after.cohort.card.words(name) for name in labels}
    training = {"roles": roles.to_json(), "kind": head.kind, **head.about}
    result = found.analysis.to_json() | {"training": training, "seen_in_training": found.seen.to_json()}
    paths = write_quarantine(run, before.embedded)
    paths += write_performance(run.path, found.analysis, result, found.scores, words, name="fine-tune", note=after.note)
    run.write_provenance(after.provenance() | {"roles": roles.to_json(), "seeds": {"training": seed}})
    if as_json:
        output.json(result)
    else:
        print_performance(
            output, found.analysis, words, title=f"{after.model.name}, its head's scores", note=after.note
        )
        output.line(found.seen.reason)
    output.wrote([run.path / "model", *paths, run.path / "run.json"])
    output.say(f"Use it: --model {tuned_name}")


def _intention(material: Material, settings: FineTuneSettings) -> str:
    blocks = "all blocks" if settings.last_blocks is None else f"the last {settings.last_blocks} blocks"
    recipe = "the published schedule" if settings.legacy else f"{settings.loss}, rate {settings.rate:g}"
    return (
        f"Training {blocks} of the image tower and a head for {len(material.labels)} labels on "
        f"{int(material.train.sum()):,} images, at most {settings.epochs} epochs ({recipe}); "
        f"{int(material.validation.sum()):,} images decide when to stop. A checkpoint is kept: rerun to go on."
    )


def _epoch_words(log: EpochLog) -> str:
    trained = "before training" if log.epoch == 0 else f"training loss {number(log.train_loss, 4)}"
    return (
        f"Epoch {log.epoch}: {trained}, validation loss {number(log.validation_loss, 4)}, "
        f"mean AUROC {number(log.validation_auroc)}"
    )
