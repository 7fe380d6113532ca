"""What commands with scores print and write: the table by label, the ranking beside its baselines, files, a figure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm_probe.cli.distance_files import write_figure
from medvlm_probe.cli.output import Output, interval, number
from medvlm_probe.runs import write_csv, write_json

if TYPE_CHECKING:
    from medvlm_probe.metrics.classification import LabelPerformance
    from medvlm_probe.types import Scores
    from medvlm_probe.zero_shot.performance import PerformanceAnalysis

RANKING_WORDS = {
    "label_ranking_average_precision": "LRAP ↑",
    "coverage_error": "Coverage error ↓",
    "ranking_loss": "Ranking loss ↓",
    "exact_match": "Exact match ↑",
}
DECISIONS = ("recall", "precision", "specificity", "f1")
BASELINE_WORDS = {
    "chance": "Chance",
    "prior_only": "Prior only (no image)",
    "predict_all": "Every label always",
    "always_no_finding": 'Always "No finding"',
}


def print_performance(
    output: Output,
    analysis: PerformanceAnalysis,
    words: Mapping[str, str],
    *,
    title: str,
    note: str = "",
    by_site: bool = False,
) -> None:
    """Print the table by label and site, the ranking with its baselines, and how thresholds were chosen.

    Args:
        output: of the command.
        analysis: what was measured.
        words: label to the words that people read.
        title: what was scored, for the table's title.
        note: small print that belongs to the result.
        by_site: a row for each site below each label's.
    """
    named = [(words.get(entry.label, entry.label), entry) for entry in analysis.labels]
    entries: list[tuple[str, LabelPerformance]] = []
    for position, (name, entry) in enumerate(named):
        entries.append((name, entry))
        if by_site:
            entries += [(f"  at {site}", found[position]) for site, found in analysis.by_site.items()]
    domains = [(f"Any {entry.label} label", entry) for entry in analysis.domains]
    macro = analysis.macro
    group_words = {"patient": "patients", "study": "studies", "image": "images"}[analysis.group_kind]
    output.table(
        title,
        ("Label", "Pos. / neg.", "AUROC", "Average precision", "Prevalence"),
        [
            *(_rank_row(name, entry) for name, entry in [*entries, *domains]),
            ("Mean over labels", "", interval(macro["auroc"], 2), interval(macro["average_precision"], 2), ""),
        ],
        caption=f"{analysis.n_images:,} images of {analysis.n_groups:,} {group_words}; value [95 % interval]; ? the "
        "interval is unreliable at this size; too few: under 10 positives. By chance AUROC is 0.50, average precision "
        "the prevalence.",
    )
    if analysis.thresholds is not None:
        output.table(
            f"Decisions at thresholds chosen on split '{analysis.thresholds.source}' ({analysis.thresholds.rule})",
            ("Label", "Threshold", *(metric.capitalize() for metric in DECISIONS)),
            [
                *(_decision_row(name, entry) for name, entry in entries),
                ("Mean over labels", "", *(interval(macro[metric], 2) for metric in DECISIONS if metric in macro)),
            ],
        )
    _print_ranking(output, analysis)
    for sentence in performance_sentences(analysis):
        output.line(sentence)
    if note:
        output.line(note)


def performance_sentences(analysis: PerformanceAnalysis) -> list[str]:
    """Return what a reader must know about the tables, a sentence each."""
    chosen = analysis.thresholds
    if chosen is None:
        said = ["Thresholds are not chosen, so nothing is decided: name a split for them with --threshold-from."]
    else:
        said = []
        missing = [entry.label for entry in analysis.labels if entry.label not in chosen.values]
        if missing:
            said.append(f"No threshold could be chosen there for {', '.join(missing)}: one kind of label only.")
    if not analysis.prior_from:
        said.append("The prior baseline needs label frequencies of another split: --threshold-from names it.")
    ranking = analysis.ranking
    if len(ranking.labels) < 2:
        return said
    if ranking.n_undefined or ranking.n_unknown:
        said.append(
            f"Ranking uses {ranking.n_images:,} images with all labels known ({ranking.n_unknown:,} left out); LRAP "
            f"and coverage error are undefined for {ranking.n_undefined:,} of them without a positive."
        )
    prior = next((b for b in analysis.baselines if b.name == "prior_only"), None)
    if prior is not None and analysis.prior_from:
        ours = ranking.estimates["label_ranking_average_precision"]
        theirs = prior.ranking["label_ranking_average_precision"]
        if ours.high < theirs.low:
            said.append("The LRAP is worse than ranking labels by their frequency without looking at any image.")
        elif ours.low <= theirs.high:
            said.append("The LRAP cannot be told from ranking labels by their frequency without any image.")
    return said


def write_performance(
    folder: Path,
    analysis: PerformanceAnalysis,
    result: Mapping[str, Any],
    scores: Scores,
    words: Mapping[str, str],
    *,
    name: str,
    note: str = "",
) -> list[Path]:
    """Write `labels.csv`, `summary.csv`, `scores.csv`, the JSON and the figure of AUROCs; returns the files written.

    Args:
        folder: the run's folder.
        analysis: what was measured.
        result: what the JSON file holds.
        scores: what was evaluated, a row an image.
        words: label to the words that people read.
        name: of the command, which names the JSON file.
        note: small print of the figure.
    """
    import pandas as pd

    from medvlm_probe.plots.performance import auroc_forest
    from medvlm_probe.zero_shot.performance_tables import label_table, summary_table

    labels = label_table(analysis)
    table = pd.DataFrame(scores.values, columns=list(scores.labels))
    table.insert(0, "image", list(scores.ids))
    written = []
    for file, frame in (("labels", labels), ("summary", summary_table(analysis)), ("scores", table)):
        write_csv(folder / f"{file}.csv", frame)
        written.append(folder / f"{file}.csv")
    write_json(folder / f"{name}.json", dict(result))
    written.append(folder / f"{name}.json")
    defined = labels[(labels["metric"] == "auroc") & labels["value"].notna()]
    if len(defined):
        figure = auroc_forest(defined, labels_words=words, note=note or None)
        written += write_figure(folder / "auroc", figure)
    return written


def _rank_row(name: str, entry: LabelPerformance) -> tuple[str, ...]:
    return (
        name + (" (too few)" if entry.too_few else ""),
        f"{entry.n_positive:,} / {entry.n_negative:,}",
        interval(entry.auroc, 2),
        interval(entry.average_precision, 2),
        number(entry.prevalence, 3),
    )


def _decision_row(name: str, entry: LabelPerformance) -> tuple[str, ...]:
    estimates = (interval(getattr(entry, metric), 2) for metric in DECISIONS)
    return (name + (" (too few)" if entry.too_few else ""), number(entry.threshold, 2), *estimates)


def _print_ranking(output: Output, analysis: PerformanceAnalysis) -> None:
    if len(analysis.ranking.labels) < 2:
        return
    rows = [("Model", *(interval(analysis.ranking.estimates[metric], 2) for metric in RANKING_WORDS))]
    if analysis.findings is not None:
        found = analysis.findings.estimates
        rows.append(('Model, without "No finding"', *(interval(found[metric], 2) for metric in RANKING_WORDS)))
    for baseline in analysis.baselines:
        shown = {**baseline.ranking, "exact_match": baseline.exact_match}
        rows.append((BASELINE_WORDS[baseline.name], *(interval(shown[metric], 2) for metric in RANKING_WORDS)))
    output.table("Ranking of labels within images", ("Rule", *RANKING_WORDS.values()), rows)
