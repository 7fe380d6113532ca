"""`medvlm-probe zero-shot`: what a model's text prompts, or any model's scores, are worth on a cohort."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
    SplitOption,
    SplitsOption,
    ThresholdFromOption,
    ThresholdRuleOption,
    UncertaintyOption,
    VerboseOption,
    WorkersOption,
)
from medvlm_probe.cli.output import Output, make_output
from medvlm_probe.errors import InputError

if TYPE_CHECKING:
    from medvlm_probe.cli.steps import EmbeddedCohort
    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.types import FloatArray, Scores
    from medvlm_probe.zero_shot.performance import PerformanceAnalysis
    from medvlm_probe.zero_shot.predict import Task
    from medvlm_probe.zero_shot.similarity import SimilarityAnalysis
    from medvlm_probe.zero_shot.tuned_prompts import TunedPrompts

ScoreName = Literal["cosine", "logit", "probability", "softmax"]


def zero_shot(
    context: typer.Context,
    label: LabelOption = None,
    cohort: CohortOption = "phantom",
    model: ModelOption = "phantom-clip",
    split: SplitOption = None,
    splits: SplitsOption = None,
    uncertainty: UncertaintyOption = None,
    prompts: Annotated[
        str,
        typer.Option(
            "--prompts", help="bare, chexzero, radiology, names, a TOML file or tuned:FOLDER; see 'prompts', 'tune'.",
            rich_help_panel=DATA,
        ),
    ] = "radiology",
    score: Annotated[
        ScoreName | None,
        typer.Option(
            "--score",
            help="Default: logit, or cosine without negative prompts, or softmax for one label an image.",
            rich_help_panel=COMPUTE,
        ),
    ] = None,
    threshold_from: ThresholdFromOption = None,
    threshold_rule: ThresholdRuleOption = "youden",
    by: Annotated[
        Literal["site"] | None,
        typer.Option("--by", help="Show each site apart; pooled numbers stay beside them.", rich_help_panel=DATA),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(
            "--scores",
            help="A CSV of any model's scores instead of a model: column image or study, a column a label.",
            rich_help_panel=DATA,
        ),
    ] = None,
    label_map: Annotated[
        Path | None,
        typer.Option("--label-map", help="TOML: other names in --scores, and its own truth.", rich_help_panel=DATA),
    ] = None,
    legacy: Annotated[
        bool,
        typer.Option(
            "--legacy", help="Add the published study's numbers: bare names, raw products, its rules.",
            rich_help_panel=COMPUTE,
        ),
    ] = False,
    similarity: Annotated[
        bool,
        typer.Option(
            "--similarity", help="Add overlaps of cosines, the modality gap, and what clusters of images follow.",
            rich_help_panel=COMPUTE,
        ),
    ] = False,
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
    """Score every label by text prompts and say what the scores are worth: by label, by ranking, beside baselines.

    Example: medvlm-probe zero-shot --threshold-from calib
    """
    from medvlm_probe.cli.performance_files import print_performance, write_performance
    from medvlm_probe.cli.similarity_files import print_similarity, write_similarity
    from medvlm_probe.cli.steps import Compute, embed_cohort, evaluated_rows, resolved_config, write_quarantine
    from medvlm_probe.runs import open_run
    from medvlm_probe.zero_shot.thresholds import parse_rule

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    parse_rule(threshold_rule)
    if label_map is not None and scores is None:
        raise InputError("--label-map belongs to --scores; give both.")
    facts: dict[str, Any]
    paths: list[Path] = []
    if scores is not None:
        if legacy or similarity:
            needs = "--legacy" if legacy else "--similarity"
            raise InputError(f"{needs} needs a model's own embeddings; leave it out with --scores.")
        everything, all_scores = scores_from_file(
            output, context, scores, label_map, cohort, label, uncertainty, splits
        )
        run = open_run("zero-shot", resolved_config(context), out)
        title, note = f"Scores of {scores.name}", ""
        facts = {"scores": scores.name, "cohort": {"name": everything.name}}
        seen: dict[str, Any] | None = None
        done, task = None, None
    else:
        from medvlm_probe.cohort.catalog import load_cohort
        from medvlm_probe.zero_shot.predict import resolve_task, zero_shot_scores

        compute = Compute.parse(device, precision, batch_size, workers, max_failures)
        loaded = load_cohort(cohort, uncertainty=uncertainty, splits=splits)
        task = resolve_task(loaded, prompts, label, score)
        needed = evaluated_rows(loaded, split, threshold_from)
        needed.warn(output, loaded.group_kind)
        run = open_run("zero-shot", resolved_config(context), out)
        if task.left_out:
            output.warn(f"Prompt set '{task.prompts.name}' has no prompts for {', '.join(task.left_out)}: left out.")
        done = embed_cohort(output, loaded.select(needed.shown | needed.chosen_on), model, compute)
        everything = done.cohort
        all_scores = zero_shot_scores(done.embedded.vectors, everything, done.model, task)
        title = f"{done.model.name}, prompts '{task.prompts.name}', {task.kind} scores"
        note, seen, facts = done.note, done.seen.to_json(), done.provenance()
        if task.prompts.tuned is not None:
            facts["prompts"] = _taught_by(output, task.prompts.tuned, done)
        paths = write_quarantine(run, done.embedded)

    analysis, shown, shown_scores = _analysed(output, everything, all_scores, split, threshold_from, threshold_rule)
    if by is None and analysis.by_site:
        output.say("The cohort has several sites: --by site shows each apart. All are in the files.")
    words = {name: shown.card.words(name) for name in shown_scores.labels}
    result = analysis.to_json() | ({"seen_in_training": seen} if seen is not None else {})
    if legacy and done is not None:
        result |= {"legacy": _legacy(done, shown, shown_scores)}
    alike = _similarity(output, done, shown, task) if similarity and done is not None and task is not None else None
    if alike is not None:
        result |= {"similarity": alike.to_json()}
        paths += write_similarity(run.path, alike, words, note=note)
    paths += write_performance(run.path, analysis, result, shown_scores, words, name="zero-shot", note=note)
    run.write_provenance(facts)
    if as_json:
        output.json(result)
    else:
        print_performance(output, analysis, words, title=title, note=note, by_site=by == "site")
        if alike is not None:
            print_similarity(output, alike, words, shown.group_kind, by_site=by == "site")
        if "legacy" in result:
            numbers = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in result["legacy"].items())
            output.line(f"Published definitions (bare names, raw products, row min-max above .5): {numbers}.")
    output.wrote([*paths, run.path / "run.json"])


def _taught_by(output: Output, tuned: TunedPrompts, done: EmbeddedCohort) -> dict[str, Any]:
    """Warn of images that the prompts were tuned on; returns what identifies the prompts, and how many there are."""
    n_taught = sum(key in tuned.training_images for key in done.embedded.keys)
    if n_taught:
        output.warn(f"{n_taught:,} of these images taught the prompts: results on them say nothing of others.")
    return {"tuned": tuned.about.get("config_sha256"), "loss": tuned.about.get("loss"), "images_that_taught": n_taught}


def scores_from_file(
    output: Output,
    context: typer.Context,
    scores: Path,
    label_map: Path | None,
    cohort: str,
    label: list[str] | None,
    uncertainty: Any,
    splits: Path | None,
) -> tuple[Cohort, Scores]:
    """Return the images that a file of scores speaks of, and their scores."""
    from medvlm_probe.cohort.catalog import load_cohort
    from medvlm_probe.cohort.cohort import resolve_labels
    from medvlm_probe.types import Scores as LabelScores
    from medvlm_probe.zero_shot.score_files import matched, own_cohort, read_label_map, read_score_file

    mapping = read_label_map(label_map) if label_map is not None else None
    file = read_score_file(scores, mapping)
    given = context.get_parameter_source("cohort")
    if given is not None and given.name == "DEFAULT":
        found, values = own_cohort(file)
    else:
        found, values = matched(file, load_cohort(cohort, uncertainty=uncertainty, splits=splits))
        output.say(f"{len(found):,} images have scores, of {len(file.scores.ids):,} rows in {scores.name}.")
    if label:
        names = [name for name in resolve_labels(found, label) if name in values.labels]
        columns = [values.labels.index(name) for name in names]
        values = LabelScores(values.values[:, columns], values.kind, tuple(names), values.ids)
    return found, values


def _analysed(
    output: Output, everything: Cohort, scores: Scores, split: str | None, threshold_from: str | None, rule: str
) -> tuple[PerformanceAnalysis, Cohort, Scores]:
    from medvlm_probe.cli.steps import evaluated_rows
    from medvlm_probe.zero_shot.performance import analyse_performance, label_frequencies
    from medvlm_probe.zero_shot.thresholds import choose_thresholds

    rows = evaluated_rows(everything, split, threshold_from)
    rows.warn(output, everything.group_kind)
    shown, shown_scores = everything.select(rows.shown), scores.rows(rows.shown)
    if threshold_from is None:
        return analyse_performance(shown_scores, shown), shown, shown_scores
    other = everything.select(rows.chosen_on)
    thresholds = choose_thresholds(
        scores.rows(rows.chosen_on), other.targets(scores.labels), rule=rule, source=threshold_from
    )
    analysis = analyse_performance(
        shown_scores,
        shown,
        thresholds=thresholds,
        prior=label_frequencies(other, scores.labels),
        prior_from=threshold_from,
    )
    return analysis, shown, shown_scores


def _legacy(done: EmbeddedCohort, shown: Cohort, scores: Scores) -> dict[str, float]:
    """Return the study's numbers on the images shown."""
    from medvlm_probe.metrics.legacy_study import legacy_study
    from medvlm_probe.zero_shot.predict import legacy_products
    from medvlm_probe.zero_shot.prompts import load_prompts

    bare = load_prompts("bare").select(scores.labels)
    vectors = _vectors_of(done, shown)
    words = {label: prompts.positive[0] for label, prompts in bare.labels.items()}
    products = legacy_products(vectors, done.model, words)
    return asdict(legacy_study(shown.targets(scores.labels), products, label_names=scores.labels))


def _similarity(output: Output, done: EmbeddedCohort, shown: Cohort, task: Task) -> SimilarityAnalysis:
    """Return how the images shown and the prompts lie to each other."""
    from medvlm_probe.zero_shot.similarity import analyse_similarity
    from medvlm_probe.zero_shot.text_embeddings import label_directions

    output.say(f"Similarity of {len(shown):,} images: permutation tests take some seconds for each thousand images.")
    return analyse_similarity(_vectors_of(done, shown), shown, label_directions(done.model, task.prompts))


def _vectors_of(done: EmbeddedCohort, shown: Cohort) -> FloatArray:
    row_of = {image: row for row, image in enumerate(done.cohort.table["image"])}
    return done.embedded.vectors[[row_of[image] for image in shown.table["image"]]]
