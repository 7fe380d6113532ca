"""The steps of `figures calibprompt`: every model on every problem through one sweep, and the first one's ablations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from medvlm_probe.errors import InputError

if TYPE_CHECKING:
    from medvlm_probe.cli.output import Output
    from medvlm_probe.cli.steps import Compute, EmbeddedCohort
    from medvlm_probe.cli.tune_steps import Asked, Prepared
    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.report.calibprompt_cells import Problem
    from medvlm_probe.report.calibprompt_study import Ablation, Cell
    from medvlm_probe.runs import RunFolder
    from medvlm_probe.tuning.calibration_sweep import Outcome, SweepMethod
    from medvlm_probe.tuning.calibration_sweep_measures import SweepResult
    from medvlm_probe.tuning.prompt_tuning import EmbeddedViews
    from medvlm_probe.zero_shot.predict import Task

DEFAULT_COHORT = "phantom:prevalence=balanced,n=340"
DEFAULT_CLASSES = ("lung_opacity,no_finding", "pleural_effusion,pneumothorax,no_finding")
DEFAULT_LABELS = ("cardiomegaly", "pleural_effusion")


@dataclass(frozen=True)
class StudyOptions:
    """What the options of the study ask for; `sweeps` are values by what is varied."""

    labels: tuple[str, ...]
    classes: tuple[tuple[str, ...], ...]
    methods: tuple[str, ...]
    draws: int
    ablation_draws: int
    sweeps: dict[str, tuple[int, ...]]
    shots: int
    context: int
    views: int
    epochs: int
    prompts: str | None
    logit_scale: float | None
    recipes: bool
    train_from: str | None
    fit_from: str | None
    split: str | None
    seed: int


@dataclass(frozen=True, eq=False)
class StudyDone:
    """A study's cells, its ablations, and what `run.json` says of each cell."""

    cells: tuple[Cell, ...]
    ablations: tuple[Ablation, ...]
    facts: list[dict[str, Any]]
    note: str


def problems_of(cohorts: Sequence[Cohort], options: StudyOptions) -> Iterator[Problem]:
    """Yield what is studied: each cohort as it is, and one with several labels once for each `--classes` instead,
    beside `--label`.

    Raises:
        InputError: see `one_right_label` and `problem_of`.
    """
    from medvlm_probe.report.calibprompt_cells import one_right_label, problem_of

    for cohort in cohorts:
        single = cohort.card.task == "single_label"
        parts: list[tuple[Cohort, tuple[str, ...]]] = []
        if not single:
            parts += [(one_right_label(cohort, classes), ()) for classes in options.classes]
        if single or options.labels or not options.classes:
            parts.append((cohort, () if single else options.labels))
        for part, labels in parts:
            yield problem_of(
                part,
                labels=labels,
                train_from=options.train_from,
                fit_from=options.fit_from,
                split=options.split,
                seed=options.seed,
            )


def run_study(
    output: Output,
    problems: Sequence[Problem],
    models: Sequence[str],
    compute: Compute,
    run: RunFolder,
    options: StudyOptions,
) -> StudyDone:
    """Tune and measure every cell, and the ablations of the first. Raises ProbeError."""
    _refuse_repeats([(model, problem.cohort.name, problem.words) for model in models for problem in problems])
    cells: list[Cell] = []
    ablations: list[Ablation] = []
    facts, notes = [], []
    for model in models:
        for problem in problems:
            sweep = _prepared(output, problem, model, compute, run, options, ablated=not cells)
            cells.append(sweep.cell())
            ablations += sweep.ablations()
            facts.append(sweep.facts())
            notes.append(sweep.done.note)
    return StudyDone(tuple(cells), tuple(ablations), facts, " ".join(dict.fromkeys(filter(None, notes))))


def _refuse_repeats(cells: Sequence[tuple[str, str, str]]) -> None:
    for model, cohort, words in cells:
        if cells.count((model, cohort, words)) > 1:
            raise InputError(
                f"'{model} on {cohort}: {words}' is asked for twice. Leave one out, or give the cohorts other names."
            )


def _prepared(
    output: Output,
    problem: Problem,
    model: str,
    compute: Compute,
    run: RunFolder,
    options: StudyOptions,
    *,
    ablated: bool,
) -> _Sweep:
    from medvlm_probe.cli.steps import write_quarantine
    from medvlm_probe.cli.tune_steps import Asked, embedded_views, prepare
    from medvlm_probe.tuning.prompt_learner import ContextSettings
    from medvlm_probe.tuning.prompt_tuning import Schedule
    from medvlm_probe.tuning.views import Views
    from medvlm_probe.zero_shot.predict import NAMES, resolve_task

    cohort = problem.cohort
    single = cohort.card.task == "single_label"
    task = resolve_task(cohort, options.prompts or (NAMES if single else "chexzero"), problem.labels, None)
    asked = Asked(
        shots=options.shots,
        validation_shots=0,
        seeds=tuple(range(options.draws)),
        context=ContextSettings(options.context),
        views=Views(options.views, "light" if options.views > 1 else "clean"),
        schedule=Schedule(epochs=options.epochs),
        logit_scale=options.logit_scale,
    )
    if problem.note:
        output.warn(problem.note)
    sweeps = options.sweeps if ablated else {}
    prepared = prepare(
        output,
        cohort,
        task,
        model,
        compute,
        asked,
        problem.train_from,
        problem.split,
        fit_from=problem.fit_from,
        shots=tuple(dict.fromkeys((options.shots, *sweeps.get("shots", ())))),
    )
    write_quarantine(run, prepared.done.embedded)
    views = embedded_views(output, prepared, compute, asked)
    return _Sweep(output, problem, prepared, task, views, asked, run, options, sweeps)


@dataclass(frozen=True, eq=False)
class _Sweep:
    """One cell's images and prompts."""

    output: Output
    problem: Problem
    prepared: Prepared
    task: Task
    views: EmbeddedViews
    asked: Asked
    run: RunFolder
    options: StudyOptions
    sweeps: dict[str, tuple[int, ...]]

    @property
    def done(self) -> EmbeddedCohort:
        """The embedded images."""
        return self.prepared.done

    @property
    def data_set(self) -> str:
        """Which published data set this is."""
        from medvlm_probe.report.calibprompt_published import data_set_of

        return data_set_of(self.problem.cohort.card)

    def cell(self) -> Cell:
        """Tune and measure the methods of the table."""
        from medvlm_probe.report.calibprompt_published import published_setting
        from medvlm_probe.report.calibprompt_study import METHODS, Cell

        methods, notes = self._methods(self.options.methods or METHODS)
        cell = Cell(
            self.done.model.name,
            self.done.given.name,
            self.data_set,
            self.problem.words,
            self._measured(methods, self.asked),
            (self.options.shots, self.options.context) == published_setting(),
            tuple(filter(None, (self.problem.note, *notes))),
        )
        for note in notes:
            self.output.warn(note)
        return cell

    def ablations(self) -> list[Ablation]:
        """Tune and measure the ablated methods at every value."""
        from medvlm_probe.report.calibprompt_study import ABLATED, Ablation
        from medvlm_probe.tuning.prompt_learner import ContextSettings

        methods, _ = self._methods(ABLATED)
        few = replace(self.asked, seeds=self.asked.seeds[: self.options.ablation_draws])
        found = []
        for what, values in self.sweeps.items():
            results = {}
            for value in values:
                self.output.say(f"{what} {value}:")
                asked = replace(few, shots=value) if what == "shots" else replace(few, context=ContextSettings(value))
                results[value] = self._measured(methods, asked)
            cohort = self.done.given.name
            found.append(Ablation(self.done.model.name, cohort, self.data_set, self.problem.words, what, results))
        return found

    def facts(self) -> dict[str, Any]:
        """Return what `run.json` says of the cell."""
        scale = self.options.logit_scale or self.done.model.logit_scale
        return self.done.provenance() | {
            "problem": self.problem.words,
            "roles": self.prepared.roles.to_json(),
            "logit_scale": scale,
            "views": self.asked.views.words,
        }

    def _methods(self, names: Sequence[str]) -> tuple[tuple[SweepMethod, ...], list[str]]:
        from medvlm_probe.report.calibprompt_cells import with_recipe
        from medvlm_probe.tuning.calibration_sweep import parse_methods

        task = self.problem.cohort.card.task
        methods, notes = parse_methods(names, task, len(self.task.labels), has_split=True)
        if not self.options.recipes:
            return methods, list(notes)
        methods, note = with_recipe(methods, self.done.model.name, self.data_set)
        return methods, [*notes, note] if note else list(notes)

    def _measured(self, methods: Sequence[SweepMethod], asked: Asked) -> SweepResult:
        import numpy as np

        from medvlm_probe.tuning.calibration_sweep_measures import measure_sweep

        shown = np.flatnonzero(self.prepared.roles.shown)
        return measure_sweep(
            self._outcomes(methods, asked),
            self.done.embedded.vectors[shown],
            self.done.cohort.select(shown),
            n_draws=len(asked.seeds),
            seed=self.options.seed,
        )

    def _outcomes(self, methods: Sequence[SweepMethod], asked: Asked) -> list[Outcome]:
        from medvlm_probe.cli.tune_steps import tuning_material
        from medvlm_probe.report.calibprompt_cells import slug
        from medvlm_probe.tuning.calibration_sweep import SweepMaterial, run_sweep

        material = SweepMaterial(
            tuning=tuning_material(self.prepared, self.task, self.views, asked),
            few_shot=tuple(
                drawn for drawn in self.prepared.few_shot if drawn.shots == asked.shots and drawn.seed in asked.seeds
            ),
            cohort=self.done.cohort,
            vectors=self.done.embedded.vectors,
            prompts=self.task.prompts,
            fitted_on=self.prepared.roles.thresholds,
        )
        name = slug(self.done.model.name, self.done.given.name, self.problem.words)
        # Draws are tuned side by side, and other neighbours round otherwise: each number of draws has its own prompts.
        part = f"shots-{asked.shots}-context-{asked.context.n_context}-draws-{len(asked.seeds)}"
        folder = self.run.path / "checkpoints" / name / part
        return list(run_sweep(material, methods, folder, source=self.problem.fit_from, say=self.output.say))
