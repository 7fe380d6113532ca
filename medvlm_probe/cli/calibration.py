"""`medvlm-probe calibration`: how far a model's probabilities can be believed, before and after they are mended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medvlm_probe.cli.options import (
    COMPUTE,
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
    SeedOption,
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
    from collections.abc import Sequence

    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.metrics.calibration import CalibrationEstimate
    from medvlm_probe.tuning.calibration_comparison import MethodCalibration, NamedProbabilities
    from medvlm_probe.types import BoolArray, Scores

WORDS = {
    "ece": "ECE ↓",
    "brier": "Brier ↓",
    "nll": "NLL ↓",
    "overconfidence": "Overconfidence",
}
SWEEP = "Sweep over tuned prompts"
MACRO = ("ece", "brier", "nll", "overconfidence")


def calibration(
    context: typer.Context,
    label: LabelOption = None,
    cohort: CohortOption = "phantom",
    model: ModelOption = "phantom-clip",
    split: SplitOption = None,
    splits: SplitsOption = None,
    uncertainty: UncertaintyOption = None,
    prompts: Annotated[
        str, typer.Option("--prompts", help="Prompts of the first method; see 'prompts'.", rich_help_panel=DATA)
    ] = "radiology",
    tuned: Annotated[
        list[str] | None,
        typer.Option("--tuned", help="A folder of 'tune', to compare; repeatable.", rich_help_panel=DATA),
    ] = None,
    fit_from: Annotated[
        str | None,
        typer.Option("--fit-from", help="Split to fit post-hoc methods on; no result uses it.", rich_help_panel=DATA),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", help="Post-hoc methods to fit; repeatable. Default: all that apply.",
                     rich_help_panel=COMPUTE),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option("--scores", help="A CSV of any model's scores instead of a model.", rich_help_panel=DATA),
    ] = None,
    label_map: Annotated[
        Path | None,
        typer.Option("--label-map", help="TOML: other names in --scores, and its own truth.", rich_help_panel=DATA),
    ] = None,
    logit_scale: Annotated[
        float | None,
        typer.Option("--logit-scale", min=0.0, help="Instead of the model's own.", rich_help_panel=COMPUTE),
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--methods", help="Sweep: zero-shot, temperature, losses such as ls+smac+as; repeatable. Default: 19.",
            rich_help_panel=SWEEP,
        ),
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option("--draws", min=2, help="Sweep: few-shot sets each method is tuned on. Default: 20.",
                     rich_help_panel=SWEEP),
    ] = None,
    ablation: Annotated[
        str | None,
        typer.Option("--sweep", help="Sweep over shots=4,8,16,32 or context=4,16 too.", rich_help_panel=SWEEP),
    ] = None,
    train_from: TrainFromOption = None,
    train_site: Annotated[
        str | None,
        typer.Option("--train-site", help="Sweep: tune and fit on this site's images alone.", rich_help_panel=SWEEP),
    ] = None,
    by: Annotated[
        Literal["site"] | None,
        typer.Option("--by", help="Sweep: show each site apart; all together stay beside them.", rich_help_panel=SWEEP),
    ] = None,
    shots: Annotated[
        int, typer.Option("--shots", min=1, help="Images of each class to learn from.", rich_help_panel=SWEEP)
    ] = 8,
    n_context: Annotated[
        int | None, typer.Option("--context", help="Context vectors, 1 to 64. Default: 16.", rich_help_panel=SWEEP)
    ] = None,
    views: Annotated[
        int,
        typer.Option("--views", min=1, help="Augmented views an image; 1 is the clean image.", rich_help_panel=SWEEP),
    ] = 8,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Passes.", rich_help_panel=SWEEP)] = 50,
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
    """Measure calibration error, Brier, log likelihood and overconfidence, beside what perfect calibration would show.

    --draws, --methods or --sweep tune prompts with many losses on many few-shot sets and compare them all, which takes
    minutes; killed at any moment, the same command goes on.

    Example: medvlm-probe calibration --fit-from calib

    Example: medvlm-probe calibration --train-from train --fit-from calib --split test --draws 20
    """
    from medvlm_probe.cli.calibration_files import write_calibration
    from medvlm_probe.cli.steps import evaluated_rows, resolved_config
    from medvlm_probe.runs import open_run
    from medvlm_probe.tuning.calibration_comparison import compare_calibration
    from medvlm_probe.tuning.post_hoc import POST_HOC

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    if label_map is not None and scores is None:
        raise InputError("--label-map belongs to --scores; give both.")
    if draws is not None or methods or ablation is not None:
        if scores is not None or tuned or method:
            raise InputError("A sweep tunes prompts itself: leave --scores, --tuned and --method out.")
        _sweep(output, context, as_json)
        return
    if train_from is not None or train_site is not None or by is not None:
        raise InputError("--train-from, --train-site and --by belong to a sweep: start it with --draws 20.")
    if method and fit_from is None:
        raise InputError("Post-hoc methods are fitted on a split that no result uses: name it with --fit-from.")
    chosen = tuple(method or POST_HOC)
    run = open_run("calibration", resolved_config(context), out)
    note, extra, facts = "", {}, {"seeds": {"bands": seed}}
    if scores is not None:
        if tuned or logit_scale is not None:
            raise InputError("--tuned and --logit-scale need a model; leave them out with --scores.")
        from medvlm_probe.cli.zero_shot import scores_from_file

        everything, first = scores_from_file(output, context, scores, label_map, cohort, label, uncertainty, splits)
        candidates = [(scores.name, first)]
    else:
        from medvlm_probe.cli.steps import Compute, embed_cohort
        from medvlm_probe.cohort.catalog import load_cohort
        from medvlm_probe.zero_shot.predict import resolve_task, zero_shot_scores

        compute = Compute.parse(device, precision, batch_size, workers, max_failures)
        loaded = load_cohort(cohort, uncertainty=uncertainty, splits=splits)
        needed = evaluated_rows(loaded, split, fit_from)
        needed.warn(output, loaded.group_kind)
        kind = "softmax" if loaded.card.task == "single_label" else "logit"
        tasks = [(f"zero-shot, {prompts}", resolve_task(loaded, prompts, label, kind))]
        tasks += [(f"tuned, {Path(f).name}", resolve_task(loaded, f"tuned:{f}", label, kind)) for f in tuned or ()]
        done = embed_cohort(output, loaded.select(needed.shown | needed.chosen_on), model, compute)
        everything, note = done.cohort, done.note
        candidates = [
            (name, zero_shot_scores(done.embedded.vectors, everything, done.model, task, logit_scale=logit_scale))
            for name, task in tasks
        ]
        extra = {"seen_in_training": done.seen.to_json()}
        facts |= done.provenance() | {"logit_scale": logit_scale or done.model.logit_scale}
    rows = evaluated_rows(everything, split, fit_from)
    rows.warn(output, everything.group_kind)
    shown = everything.select(rows.shown)
    compared = _methods(everything, candidates, rows.shown, rows.chosen_on, fit_from, chosen)
    found = compare_calibration(compared, shown, seed=seed)
    result = {"methods": [entry.to_json() for entry in found], "fit_from": fit_from, **extra}
    paths = write_calibration(run.path, found, compared, shown, result, note)
    run.write_provenance(facts)
    if as_json:
        output.json(result)
    else:
        _print(output, found, shown, note, fit_from)
    output.wrote([*paths, run.path / "run.json"])


def _sweep(output: Output, context: typer.Context, as_json: bool) -> None:
    from medvlm_probe.cli.calibration_sweep import DRAWS, SweepOptions, run_calibration_sweep
    from medvlm_probe.cli.steps import Compute, resolved_config
    from medvlm_probe.cohort.catalog import load_cohort
    from medvlm_probe.runs import open_run

    given = context.params
    source = context.get_parameter_source("prompts")
    options = SweepOptions(
        methods=tuple(given["methods"] or ()),
        draws=given["draws"] or DRAWS,
        ablation=given["ablation"],
        shots=given["shots"],
        context=given["n_context"],
        views=given["views"],
        epochs=given["epochs"],
        prompts=given["prompts"] if source is not None and source.name != "DEFAULT" else None,
        labels=tuple(given["label"]) if given["label"] else None,
        logit_scale=given["logit_scale"],
        train_from=given["train_from"],
        train_site=given["train_site"],
        split=given["split"],
        fit_from=given["fit_from"],
        by_site=given["by"] is not None,
        seed=given["seed"],
    )
    compute = Compute.parse(*(given[name] for name in ("device", "precision", "batch_size", "workers", "max_failures")))
    loaded = load_cohort(given["cohort"], uncertainty=given["uncertainty"], splits=given["splits"])
    run = open_run("calibration", resolved_config(context), given["out"])
    done = run_calibration_sweep(output, loaded, given["model"], compute, run, options)
    if as_json:
        output.json(done.result)
    else:
        done.show()
    output.wrote(done.paths)


def _methods(
    everything: Cohort,
    candidates: Sequence[tuple[str, Scores]],
    shown: BoolArray,
    fitted_on: BoolArray,
    fit_from: str | None,
    chosen: Sequence[str],
) -> list[NamedProbabilities]:
    """Return every candidate's own probabilities, and after each post-hoc method of the first candidate's."""
    from medvlm_probe.errors import unknown_name
    from medvlm_probe.tuning.calibration_comparison import NamedProbabilities
    from medvlm_probe.tuning.post_hoc import POST_HOC, fit_post_hoc

    for name in chosen:
        if name not in POST_HOC:
            raise unknown_name("post-hoc method", name, POST_HOC)
    task = everything.card.task
    labels = candidates[0][1].labels
    fit_rows = fitted_on if fitted_on.any() else shown
    targets = everything.targets(labels)

    def applied(name: str, label: str, scores: Scores, used: int) -> NamedProbabilities:
        fitted = fit_post_hoc(
            name, scores.rows(fit_rows), targets[fit_rows], task=task, source=fit_from or "none", share_temperature=True
        )
        values = fitted.apply(scores.rows(shown))
        return NamedProbabilities(label, values, used, fitted.n_parameters, fitted.notes)

    found = [applied("none", name, scores, 0) for name, scores in candidates]
    if fit_from is not None:
        used = int((targets[fitted_on] == targets[fitted_on]).sum())
        found += [
            applied(name, name.replace("_", " "), candidates[0][1], used)
            for name in chosen
            if name != "none" and task in POST_HOC[name].tasks
        ]
    return found


def _print(output: Output, found: Sequence[MethodCalibration], shown: Cohort, note: str, fit_from: str | None) -> None:
    single = shown.card.task == "single_label"
    rows = [
        (
            entry.method.name,
            f"{entry.method.labels_used:,}",
            interval(entry.accuracy, 3),
            *(interval(entry.found[metric].estimate, 3) for metric in WORDS),
        )
        for entry in found
    ]
    what = "the top label" if single else "all labels' entries together"
    output.table(
        f"Calibration of {what}, {len(shown):,} images",
        ("Method", "Labels used", "Accuracy", *WORDS.values()),
        rows,
        caption="value [95 % interval]; calibration errors are debiased; ? the interval is unreliable at this size. "
        "Overconfidence: mean confidence minus accuracy, below 0 is underconfident.",
    )
    band_rows = [
        (
            entry.method.name,
            *(_with_band(entry.found[metric]) for metric in ("ece", "ace", "mce", "ece_kde")),
        )
        for entry in found
    ]
    output.table(
        "As the formulas have them (what a perfectly calibrated model of this size would show)",
        ("Method", "ECE", "Adaptive ECE", "MCE", "KDE-ECE"),
        band_rows,
    )
    if not single:
        output.table(
            "Means over labels",
            ("Method", "ECE ↓", "Brier ↓", "NLL ↓", "Overconfidence"),
            [
                (entry.method.name, *(interval(entry.macro[metric].estimate, 3) for metric in MACRO))
                for entry in found
                if entry.macro
            ],
        )
    compared = [entry for entry in found if entry.against_first]
    if compared:
        output.table(
            f"Paired difference to {found[0].method.name} (below 0 is better)",
            ("Method", "Brier", "NLL"),
            [(e.method.name, *(interval(e.against_first[metric], 4) for metric in ("brier", "nll"))) for e in compared],
        )
    for entry in found:
        for text in entry.method.notes:
            output.say(f"{entry.method.name}: {text}")
    if fit_from is None:
        output.line("No post-hoc method was fitted: name a split for it with --fit-from.")
    if note:
        output.line(note)


def _with_band(found: CalibrationEstimate) -> str:
    return f"{number(found.plain, 3)} ({number(found.band.low, 3)}–{number(found.band.high, 3)})"
