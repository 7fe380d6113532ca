"""The sweep of `calibration`: many methods, tuned for many few-shot draws, on the same images; and its ablations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from medvlm_probe.errors import InputError, unknown_name

if TYPE_CHECKING:
    from pathlib import Path

    from medvlm_probe.cli.output import Output
    from medvlm_probe.cli.steps import Compute
    from medvlm_probe.cli.tune_steps import Asked, Prepared
    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.runs import RunFolder
    from medvlm_probe.tuning.calibration_sweep import Outcome, SweepMethod
    from medvlm_probe.tuning.calibration_sweep_measures import SweepResult
    from medvlm_probe.tuning.prompt_tuning import EmbeddedViews
    from medvlm_probe.zero_shot.predict import Task

DRAWS = 20
ABLATED = ("shots", "context")


@dataclass(frozen=True)
class SweepOptions:
    """What the options of a sweep ask for; `ablation` is `shots=4,8,16` or `context=4,16`."""

    methods: tuple[str, ...]
    draws: int
    ablation: str | None
    shots: int
    context: int | None
    views: int
    epochs: int
    prompts: str | None
    labels: tuple[str, ...] | None
    logit_scale: float | None
    train_from: str | None
    train_site: str | None
    split: str | None
    fit_from: str | None
    by_site: bool
    seed: int


@dataclass(frozen=True)
class SweepDone:
    """A sweep's JSON, what prints its tables, and the files written."""

    result: dict[str, Any]
    show: Callable[[], None]
    paths: Sequence[Path]


def run_calibration_sweep(
    output: Output, loaded: Cohort, model: str, compute: Compute, run: RunFolder, options: SweepOptions
) -> SweepDone:
    """Tune, measure and write. Raises ProbeError."""
    from medvlm_probe.cli import calibration_sweep_files as files
    from medvlm_probe.cli.steps import write_quarantine
    from medvlm_probe.cli.tune_steps import embedded_views, prepare
    from medvlm_probe.tuning.calibration_sweep import ABLATED_METHODS, DEFAULT_METHODS, parse_methods
    from medvlm_probe.zero_shot.predict import NAMES, resolve_task

    single = loaded.card.task == "single_label"
    task = resolve_task(loaded, options.prompts or (NAMES if single else "chexzero"), options.labels, None)
    what, values = parse_ablation(options.ablation)
    named = options.methods or (ABLATED_METHODS if what else DEFAULT_METHODS)
    methods, notes = parse_methods(named, loaded.card.task, len(task.labels), has_split=options.fit_from is not None)
    for note in notes:
        output.warn(note)
    asked = _asked(options)
    prepared = prepare(
        output,
        loaded,
        task,
        model,
        compute,
        asked,
        options.train_from,
        options.split,
        fit_from=options.fit_from,
        train_site=options.train_site,
        shots=values if what == "shots" else (options.shots,),
    )
    _say_what_is_tuned(output, prepared, methods, options, max(1, len(values)))
    views = embedded_views(output, prepared, compute, asked)
    sweep = _Sweep(output, prepared, task, methods, views, run, options)
    done = prepared.done
    paths = write_quarantine(run, done.embedded)
    if what:
        tried = {value: sweep.outcomes(_with(asked, what, value), f"{what}-{value}") for value in values}
        results = {value: sweep.measure(found)[0] for value, found in tried.items()}
        costs = [outcome for found in tried.values() for outcome in found]
        result = files.ablation_json(what, results)
        paths += files.write_ablation(run.path, what, results, result, done.note)

        def show() -> None:
            files.print_ablation(output, what, results, done.note)
    else:
        costs = sweep.outcomes(asked, "")
        measured = sweep.measure(costs)
        result = files.result_json(measured)
        paths += files.write_sweep(run.path, measured, result, done.note)

        def show() -> None:
            files.print_sweep(output, measured, done.note)

    # Written before this: the run's own facts are the same for every reader of the JSON.
    result |= {"fit_from": options.fit_from, "seen_in_training": done.seen.to_json()}
    run.write_provenance(
        done.provenance()
        | {
            "roles": prepared.roles.to_json(),
            "logit_scale": options.logit_scale or done.model.logit_scale,
            "seeds": {"draws": list(range(options.draws)), "resampling": options.seed},
            "costs": [
                {"method": o.method.name, "seconds": _rounded(o.seconds), "peak_mib": o.peak_bytes >> 20} for o in costs
            ],
        }
    )
    return SweepDone(result, show, [*paths, run.path / "run.json"])


def parse_ablation(text: str | None) -> tuple[Literal["", "shots", "context"], tuple[int, ...]]:
    """Return what is varied and its values, ascending; "" and none without an ablation.

    Raises:
        InputError: another form, fewer than two values, or one below 1.
        UnknownNameError: something else is to be varied.
    """
    if text is None:
        return "", ()
    what, _, listed = text.partition("=")
    if what not in ABLATED:
        raise unknown_name("ablation", what, ABLATED)
    parts = [part.strip() for part in listed.split(",")]
    if len(parts) < 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"--sweep {text}: expected two or more whole numbers, as in --sweep {what}=4,8,16,32.")
    return ("shots" if what == "shots" else "context"), tuple(sorted({int(part) for part in parts}))


def _asked(options: SweepOptions) -> Asked:
    from medvlm_probe.cli.tune_steps import Asked
    from medvlm_probe.tuning.prompt_learner import ContextSettings
    from medvlm_probe.tuning.prompt_tuning import Schedule
    from medvlm_probe.tuning.views import Views

    return Asked(
        shots=options.shots,
        validation_shots=0,
        seeds=tuple(range(options.draws)),
        context=ContextSettings(options.context),
        views=Views(options.views, "light" if options.views > 1 else "clean"),
        schedule=Schedule(epochs=options.epochs),
        logit_scale=options.logit_scale,
    )


def _with(asked: Asked, what: str, value: int) -> Asked:
    from medvlm_probe.tuning.prompt_learner import ContextSettings

    return replace(asked, shots=value) if what == "shots" else replace(asked, context=ContextSettings(value))


def _say_what_is_tuned(
    output: Output, prepared: Prepared, methods: Sequence[SweepMethod], options: SweepOptions, n_values: int
) -> None:
    n_tuned = sum(method.loss is not None for method in methods)
    output.say(
        f"{len(methods)} methods, {n_tuned} of them tuned for {options.draws} draws: "
        f"{n_tuned * options.draws * n_values:,} trainings that share one pass of the images."
    )
    sizes = {few_shot.shots: few_shot.short for few_shot in reversed(prepared.few_shot)}
    for shots, short in sizes.items():
        for name, count in short.items():
            output.warn(f"{name}: {count} images of different patients in '{options.train_from}', {shots} asked for.")


@dataclass(frozen=True, eq=False)
class _Sweep:
    """What all values of an ablation share."""

    output: Output
    prepared: Prepared
    task: Task
    methods: Sequence[SweepMethod]
    views: EmbeddedViews
    run: RunFolder
    options: SweepOptions

    def outcomes(self, asked: Asked, part: str) -> list[Outcome]:
        """Return what every method gives, tuned for the asked shots and context."""
        from medvlm_probe.cli.tune_steps import tuning_material
        from medvlm_probe.tuning.calibration_sweep import SweepMaterial, run_sweep

        prepared = self.prepared
        material = SweepMaterial(
            tuning=tuning_material(prepared, self.task, self.views, asked),
            few_shot=tuple(drawn for drawn in prepared.few_shot if drawn.shots == asked.shots),
            cohort=prepared.done.cohort,
            vectors=prepared.done.embedded.vectors,
            prompts=self.task.prompts,
            fitted_on=prepared.roles.thresholds,
        )
        if part:
            self.output.say(f"{part.replace('-', ' ')}:")
        folder = self.run.path / "tuned" / part if part else self.run.path / "tuned"
        return list(run_sweep(material, self.methods, folder, source=self.options.fit_from or "", say=self.output.say))

    def measure(self, outcomes: Sequence[Outcome]) -> list[SweepResult]:
        """Return the results on all images shown, and where sites are asked for on each site's."""
        import numpy as np

        from medvlm_probe.tuning.calibration_sweep_measures import measure_sweep

        done, shown = self.prepared.done, np.flatnonzero(self.prepared.roles.shown)
        cohort = done.cohort.select(shown)
        sites = sorted(set(cohort.sites().tolist()) - {""})
        results = []
        for site in ["", *(sites if self.options.by_site and len(sites) > 1 else [])]:
            inside = np.ones(len(shown), dtype=bool) if not site else cohort.sites() == site
            if np.isnan(cohort.targets(self.task.labels)[inside]).all():
                self.output.warn(f"{site}: none of its images has a known label, so it is left out.")
                continue
            results.append(
                measure_sweep(
                    outcomes,
                    done.embedded.vectors[shown][inside],
                    cohort.select(np.flatnonzero(inside)),
                    n_draws=self.options.draws,
                    site=site,
                    seed=self.options.seed,
                )
            )
        if len(sites) > 1 and not self.options.by_site:
            self.output.say("The images shown are of several sites: --by site shows each apart.")
        return results


def _rounded(seconds: float) -> float | None:
    return None if seconds != seconds else round(seconds, 2)
