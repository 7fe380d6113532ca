"""`medvlm-probe label-agreement`: how far label sources agree, and how far conclusions about a model hang on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
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
    import numpy as np
    from numpy.typing import NDArray

    from medvlm_probe.cli.steps import Compute
    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.types import Scores
    from medvlm_probe.zero_shot.label_sources import LabelSources
    from medvlm_probe.zero_shot.thresholds import Thresholds

MANIFEST, REPORTS = "manifest", "reports"


def label_agreement(
    context: typer.Context,
    labels: Annotated[
        list[str],
        typer.Option(
            "--labels",
            metavar="NAME=FILE",
            help="A source of labels: a CSV by image or study (CheXbert's as it comes), or NAME=reports to read the "
            "cohort's reports. Repeatable. The cohort's own labels are the source 'manifest'.",
            rich_help_panel=DATA,
        ),
    ],
    cohort: CohortOption = "phantom",
    label: LabelOption = None,
    split: SplitOption = None,
    splits: SplitsOption = None,
    model: Annotated[
        str | None, typer.Option("--model", help="A model whose conclusions are compared.", rich_help_panel=DATA)
    ] = None,
    prompts: Annotated[
        str, typer.Option("--prompts", help="Prompt set for --model; see 'prompts'.", rich_help_panel=DATA)
    ] = "radiology",
    scores: Annotated[
        Path | None,
        typer.Option("--scores", help="A CSV of any model's scores, instead of --model.", rich_help_panel=DATA),
    ] = None,
    label_map: Annotated[
        Path | None, typer.Option("--label-map", help="TOML: other names in --scores.", rich_help_panel=DATA)
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(
            "--truth", help="The source that counts as right; the others are compared with it.", rich_help_panel=DATA
        ),
    ] = None,
    errors_from: Annotated[
        str | None,
        typer.Option(
            "--errors-from",
            help="Split to measure the sources' errors against --truth on; no result uses it otherwise.",
            rich_help_panel=DATA,
        ),
    ] = None,
    threshold_from: ThresholdFromOption = None,
    threshold_rule: ThresholdRuleOption = "youden",
    uncertainty: UncertaintyOption = None,
    blank: Annotated[
        Literal["absent", "unknown"],
        typer.Option(
            "--blank",
            help="What a blank in a --labels file means in an image that has some label there.",
            rich_help_panel=DATA,
        ),
    ] = "absent",
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
) -> None:
    """Compare sources of labels on the same images, and show how far conclusions move with them.

    Example: medvlm-probe label-agreement --labels rules=reports --truth manifest
    """
    from medvlm_probe.cli.label_agreement_files import print_agreement, write_agreement
    from medvlm_probe.cli.steps import Compute, resolved_config
    from medvlm_probe.cohort.catalog import load_cohort
    from medvlm_probe.runs import open_run
    from medvlm_probe.zero_shot.label_agreement import analyse_label_agreement
    from medvlm_probe.zero_shot.thresholds import parse_rule

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    parse_rule(threshold_rule)
    if model is not None and scores is not None:
        raise InputError("--model and --scores are two ways to say whose conclusions are compared; give one.")
    if threshold_from is not None and model is None and scores is None:
        raise InputError("--threshold-from needs scores to choose thresholds for: give --model or --scores.")
    if errors_from is not None and truth is None:
        raise InputError("--errors-from needs --truth NAME: errors are measured against a source.")
    compute = Compute.parse(device, precision, batch_size, workers, max_failures)
    loaded = load_cohort(cohort, splits=splits)
    rows = _rows(loaded, split, threshold_from, errors_from)
    sources = _sources(output, loaded, labels, label, truth, blank, uncertainty or loaded.uncertainty)
    run = open_run("label-agreement", _hashed(resolved_config(context), labels), out)
    scored = _scored(output, loaded, rows, sources, model, scores, label_map, prompts, compute)
    thresholds = _thresholds(scored, sources, rows, threshold_from, threshold_rule)
    analysis = analyse_label_agreement(
        sources,
        rows.shown,
        scores=scored.scores if scored else None,
        scored=scored.rows if scored else None,
        thresholds=thresholds,
        embeddings=scored.embeddings if scored else None,
        truth=truth or "",
        errors_rows=rows.errors if errors_from is not None else None,
        errors_from=errors_from or "",
    )
    words = {name: loaded.card.words(name) for name in sources.labels}
    title = scored.title if scored else ""
    note = scored.note if scored else ""
    result = analysis.to_json() | ({"seen_in_training": scored.seen} if scored and scored.seen else {})
    paths = write_agreement(run.path, analysis, result, words, note)
    facts = scored.facts if scored else {"cohort": {"name": loaded.name, "fingerprint": loaded.fingerprint}}
    run.write_provenance(facts | {"blank": blank, "uncertainty": uncertainty or loaded.uncertainty})
    if as_json:
        output.json(result)
    else:
        print_agreement(output, analysis, words, title=title, note=note)
    output.wrote([*paths, run.path / "run.json"])


@dataclass(frozen=True, eq=False)
class _Rows:
    """Which images results are about, thresholds are chosen on, and the sources' errors are measured on, (n,) each."""

    shown: NDArray[np.bool_]
    chosen_on: NDArray[np.bool_]
    errors: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Scored:
    """Scores of some images: which rows of the cohort they are, and what is to be said of them."""

    scores: Scores
    rows: NDArray[np.int64]
    embeddings: NDArray[np.floating] | None
    title: str
    note: str
    seen: dict[str, Any] | None
    facts: dict[str, Any]


def _rows(cohort: Cohort, split: str | None, threshold_from: str | None, errors_from: str | None) -> _Rows:
    from medvlm_probe.cli.steps import evaluated_rows

    of_thresholds = evaluated_rows(cohort, split, threshold_from)
    of_errors = evaluated_rows(cohort, split, errors_from)
    return _Rows(of_thresholds.shown & of_errors.shown, of_thresholds.chosen_on, of_errors.chosen_on)


def _sources(
    output: Output,
    cohort: Cohort,
    given: list[str],
    wanted: list[str] | None,
    truth: str | None,
    blank: str,
    uncertainty: str,
) -> LabelSources:
    """Return the cohort's own labels and those of every --labels, the truth first."""
    import numpy as np
    import pandas as pd

    from medvlm_probe.cohort.label_files import read_label_file
    from medvlm_probe.cohort.manifest_columns import snake_case
    from medvlm_probe.cohort.report_labeler.cohort_reports import label_cohort
    from medvlm_probe.cohort.report_labeler.engine import ReportLabeler
    from medvlm_probe.cohort.report_labeler.rules import shipped_rules
    from medvlm_probe.errors import unknown_name
    from medvlm_probe.zero_shot.label_sources import LabelSources, resolve_blanks, shared_labels

    tables: dict[str, pd.DataFrame] = {}
    if cohort.labels:
        tables[MANIFEST] = cohort.table[list(cohort.labels)]
    for text in given:
        name, _, file = text.partition("=")
        if not name or not file or name in tables:
            raise InputError(
                f"--labels {text}: expected NAME=FILE with a name of its own, such as chexbert=labeled_reports.csv"
                + (f"; '{MANIFEST}' are the cohort's own labels." if name == MANIFEST else ".")
            )
        if file == REPORTS:
            tables[name] = label_cohort(cohort, ReportLabeler(shipped_rules()))
            output.say(f"{name}: read from the cohort's reports.")
            continue
        read = read_label_file(Path(file), cohort)
        tables[name] = read.table
        output.say(f"{name}: {read.note}")
    if truth is not None:
        if truth not in tables:
            raise unknown_name("source of labels", truth, tables)
        tables = {truth: tables[truth], **tables}
    names = shared_labels(
        {name: [str(column) for column in table.columns] for name, table in tables.items()},
        [snake_case(name) for name in wanted] if wanted else None,
    )
    values = {
        name: resolve_blanks(
            table[list(names)].to_numpy(dtype=np.float32),
            blank="unknown" if name == MANIFEST else blank,
            uncertainty=uncertainty,
        )
        for name, table in tables.items()
    }
    means = {"ignore": "unknown", "zeros": "absent", "ones": "present"}[uncertainty]
    output.say(f"Uncertain labels (-1) count as {means}; a blank in a labelled image counts as {blank}.")
    return LabelSources(names, values, cohort.groups())


def _scored(
    output: Output,
    cohort: Cohort,
    rows: _Rows,
    sources: LabelSources,
    model: str | None,
    scores: Path | None,
    label_map: Path | None,
    prompts: str,
    compute: Compute,
) -> _Scored | None:
    """Return the scores of the file or of the model on the images that need them; None without either."""
    import numpy as np
    import pandas as pd

    place = pd.Series(np.arange(len(cohort)), index=cohort.table["image"])
    if scores is not None:
        from medvlm_probe.zero_shot.score_files import matched, read_label_map, read_score_file

        file = read_score_file(scores, read_label_map(label_map) if label_map is not None else None)
        part, found = matched(file, cohort)
        output.say(f"{len(part):,} images have scores, of {len(file.scores.ids):,} rows in {scores.name}.")
        at = place[part.table["image"]].to_numpy(dtype=np.int64)
        facts = {"scores": scores.name, "cohort": {"name": cohort.name, "fingerprint": cohort.fingerprint}}
        return _Scored(found, at, None, f"Scores of {scores.name}", "", None, facts)
    if model is None:
        return None
    from medvlm_probe.cli.steps import embed_cohort
    from medvlm_probe.zero_shot.predict import resolve_task, zero_shot_scores

    known = [label for label in sources.labels if label in cohort.labels]
    task = resolve_task(cohort, prompts, known or None, None)
    done = embed_cohort(output, cohort.select(rows.shown | rows.chosen_on), model, compute)
    at = place[done.cohort.table["image"]].to_numpy(dtype=np.int64)
    found = zero_shot_scores(done.embedded.vectors, done.cohort, done.model, task)
    title = f"{done.model.name}, prompts '{task.prompts.name}', {task.kind} scores"
    return _Scored(found, at, done.embedded.vectors, title, done.note, done.seen.to_json(), done.provenance())


def _thresholds(
    scored: _Scored | None, sources: LabelSources, rows: _Rows, threshold_from: str | None, rule: str
) -> Thresholds | None:
    """Return thresholds chosen by the reference's labels on the named split; the same for every source."""
    from medvlm_probe.zero_shot.thresholds import choose_thresholds

    if scored is None or threshold_from is None:
        return None
    chosen_on = rows.chosen_on[scored.rows]
    if not chosen_on.any():
        raise InputError(f"No image of split '{threshold_from}' has scores, so no threshold can be chosen on it.")
    shared = [label for label in sources.labels if label in scored.scores.labels]
    kept = scored.scores.rows(chosen_on)
    columns = [kept.labels.index(label) for label in shared]
    reference = sources.values[sources.reference][scored.rows[chosen_on]]
    return choose_thresholds(
        type(kept)(kept.values[:, columns], kept.kind, tuple(shared), kept.ids),
        reference[:, [sources.labels.index(label) for label in shared]],
        rule=rule,
        source=threshold_from,
    )


def _hashed(config: dict[str, Any], labels: list[str]) -> dict[str, Any]:
    """Return the configuration with each source named by its file's bytes, not by its path."""
    from medvlm_probe.runs import sha256_file

    parts = {name: file for name, _, file in (text.partition("=") for text in labels)}
    hashed = {name: file if file == REPORTS else sha256_file(Path(file)) for name, file in parts.items()}
    return config | {"labels": hashed}
