"""`medvlm-probe linear-probe`: a logistic regression per label on a model's embeddings, and what it is worth."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from medvlm_probe.cli.options import (
    COMPUTE,
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
    Space,
    SplitOption,
    SplitsOption,
    ThresholdFromOption,
    ThresholdRuleOption,
    UncertaintyOption,
    VerboseOption,
    WorkersOption,
)
from medvlm_probe.cli.output import Output, make_output, number
from medvlm_probe.cli.tuning_options import TrainFromOption, ValidationFromOption
from medvlm_probe.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from medvlm_probe.cli.steps import EmbeddedCohort
    from medvlm_probe.tuning.legacy_probe import LegacyProbe
    from medvlm_probe.tuning.linear_probe import LinearProbe
    from medvlm_probe.tuning.roles import Roles

HOW_WORDS = {"cross-validated": "", "shared": "few", "constant": "prevalence only"}


def linear_probe(
    context: typer.Context,
    label: LabelOption = None,
    cohort: CohortOption = "phantom",
    model: ModelOption = "phantom-clip",
    train_from: TrainFromOption = None,
    threshold_from: ThresholdFromOption = None,
    split: SplitOption = None,
    splits: SplitsOption = None,
    validation_from: ValidationFromOption = None,
    uncertainty: UncertaintyOption = None,
    space: Annotated[
        Space, typer.Option("--space", help="Fit on normalised vectors (l2) or raw ones.", rich_help_panel=COMPUTE)
    ] = "l2",
    folds: Annotated[
        int,
        typer.Option("--folds", min=2, help="Parts of the cross-validation, by patient.", rich_help_panel=COMPUTE),
    ] = 5,
    legacy: Annotated[
        bool,
        typer.Option(
            "--legacy", help="The published study's recipe instead: ten epochs of AdamW.", rich_help_panel=COMPUTE
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
    """Fit a logistic regression per label on one split's embeddings, and show what it is worth on another's.

    Strengths are chosen by cross-validation over the training split's patients. With --threshold-from the training
    split itself, thresholds are chosen on scores of the probes that had not seen the image.

    Example: medvlm-probe linear-probe --train-from calib --threshold-from calib --split test
    """
    import time

    from medvlm_probe.cli.performance_files import print_performance, write_performance
    from medvlm_probe.cli.steps import Compute, embed_cohort, resolved_config, write_quarantine
    from medvlm_probe.cohort.catalog import load_cohort
    from medvlm_probe.cohort.cohort import resolve_labels
    from medvlm_probe.models.training_data import declared_training_data
    from medvlm_probe.runs import open_run
    from medvlm_probe.tuning.evaluate import evaluate
    from medvlm_probe.tuning.heads import write_head
    from medvlm_probe.tuning.roles import assign_roles
    from medvlm_probe.zero_shot.performance import label_frequencies
    from medvlm_probe.zero_shot.thresholds import parse_rule

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    parse_rule(threshold_rule)
    if legacy and threshold_from is not None and threshold_from == train_from:
        raise InputError("--legacy has no cross-validation, so thresholds cannot come from its training split.")
    compute = Compute.parse(device, precision, batch_size, workers, max_failures)
    loaded = load_cohort(cohort, uncertainty=uncertainty, splits=splits)
    labels = resolve_labels(loaded, label)
    if not labels:
        raise InputError(f"Cohort '{loaded.name}' has no labels to fit. Add a column of 1 and 0 for each label.")
    named = {
        "train_from": train_from,
        "threshold_from": threshold_from,
        "split": split,
        "validation_from": validation_from,
        "stops": legacy,
        "seed": seed,
    }
    needed = assign_roles(loaded, **named).used  # type: ignore[arg-type]
    run = open_run("linear-probe", resolved_config(context), out)
    done = embed_cohort(output, loaded.select(needed), model, compute)
    roles = assign_roles(done.cohort, **named, keys=done.embedded.keys)  # type: ignore[arg-type]
    for note in roles.notes:
        output.warn(note)

    start = time.monotonic()
    fitted = _fit_legacy(done, roles, labels, seed) if legacy else _fit(done, roles, labels, space, folds, seed)
    seconds = {"fit": round(time.monotonic() - start, 3)}
    output.say(f"Fitted {len(labels)} labels on {int(roles.train.sum()):,} images in {seconds['fit']:.1f} s.")
    scores = fitted.head.scores(done.embedded.vectors, tuple(done.cohort.table["image"]))
    found = evaluate(
        scores,
        done.cohort,
        roles,
        prior=label_frequencies(done.cohort.select(roles.train), labels),
        rule=threshold_rule,
        out_of_fold=getattr(fitted, "out_of_fold", None),
        model=done.model.name,
        trained_on=declared_training_data(model),
        keys=done.embedded.keys,
    )
    done = replace(done, seen=found.seen)
    words = {name: done.cohort.card.words(name) for name in labels}
    probe = {"kind": fitted.head.kind, "space": fitted.head.space, "roles": roles.to_json(), **fitted.head.about}
    result = found.analysis.to_json() | {"probe": probe, "seen_in_training": found.seen.to_json()}
    paths = write_quarantine(run, done.embedded) + write_head(run.path, fitted.head) + _write_fits(run.path, fitted)
    paths += write_performance(
        run.path, found.analysis, result, found.scores, words, name="linear-probe", note=done.note
    )
    run.write_provenance(done.provenance() | {"roles": roles.to_json(), "seeds": {"folds": seed}, "seconds": seconds})
    if as_json:
        output.json(result)
    else:
        _print_fits(output, fitted, words)
        title = f"Linear probe on {done.model.name}, fitted on '{roles.train_from}'"
        print_performance(output, found.analysis, words, title=title, note=done.note)
        if threshold_from is not None and threshold_from == train_from:
            output.line("Those thresholds come from scores of the folds' probes, which had not seen the image.")
        output.line(found.seen.reason)
    output.wrote([*paths, run.path / "run.json"])


def _fit(
    done: EmbeddedCohort, roles: Roles, labels: tuple[str, ...], space: Space, folds: int, seed: int
) -> LinearProbe:
    from medvlm_probe.tuning.linear_probe import fit_linear_probe

    return fit_linear_probe(
        done.embedded.vectors[roles.train],
        done.cohort.targets(labels)[roles.train],
        done.cohort.groups()[roles.train],
        labels,
        space=space,
        n_folds=folds,
        seed=seed,
        model_fingerprint=done.model.fingerprint,
    )


def _fit_legacy(done: EmbeddedCohort, roles: Roles, labels: tuple[str, ...], seed: int) -> LegacyProbe:
    from medvlm_probe.tuning.legacy_probe import fit_legacy_probe

    vectors, targets = done.embedded.vectors, done.cohort.targets(labels)
    return fit_legacy_probe(
        vectors[roles.train],
        targets[roles.train],
        vectors[roles.validation],
        targets[roles.validation],
        labels,
        seed=seed,
        model_fingerprint=done.model.fingerprint,
    )


def _write_fits(folder: Path, fitted: LinearProbe | LegacyProbe) -> list[Path]:
    from medvlm_probe.runs import write_csv
    from medvlm_probe.tuning.linear_probe import LinearProbe
    from medvlm_probe.tuning.probe_tables import curve_table, fit_table, strength_table

    if isinstance(fitted, LinearProbe):
        tables = {"fits": fit_table(fitted), "strengths": strength_table(fitted)}
    else:
        tables = {"epochs": curve_table(fitted)}
    for name, table in tables.items():
        write_csv(folder / f"{name}.csv", table)
    return [folder / f"{name}.csv" for name in tables]


def _print_fits(output: Output, fitted: LinearProbe | LegacyProbe, words: Mapping[str, str]) -> None:
    from medvlm_probe.tuning.linear_probe import LinearProbe

    if not isinstance(fitted, LinearProbe):
        output.line(
            f"The published recipe: best of {len(fitted.validation_loss)} epochs is {fitted.best_epoch}, validation "
            f"loss {fitted.validation_loss[fitted.best_epoch - 1]:.4f}. Labels not known counted as absent."
        )
        return
    rows = [
        (
            words[fit.label],
            f"{fit.n_positive:,} / {fit.n_negative:,}" + (f" ({fit.n_unknown:,} unknown)" if fit.n_unknown else ""),
            f"{fit.strength:.3g}" if fit.how != "constant" else "–",
            number(fit.held_out_loss),
            number(fit.prior_loss),
            HOW_WORDS[fit.how],
        )
        for fit in fitted.fits
    ]
    output.table(
        "Fits on the training split",
        ("Label", "Pos. / neg.", "Strength C", "Held-out loss", "Loss of the prevalence", ""),
        rows,
        caption="Strength: inverse penalty, chosen by cross-validation over groups. A held-out loss (nats an image) "
        "above the prevalence's means that the probe knows nothing of the label. Few: strength of the other labels.",
    )
