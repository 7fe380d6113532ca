"""What `label-agreement` prints and writes: agreement by label, conclusions by source, corrections, files, a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm_probe.cli.output import Output, interval, number

if TYPE_CHECKING:
    from medvlm_probe.types import Estimate
    from medvlm_probe.zero_shot.label_agreement import AgreementAnalysis, Correction
    from medvlm_probe.zero_shot.label_conclusions import Conclusion

METRICS = {"auroc": "AUROC", "recall": "Recall", "ratio": "Distance ratio"}
FEW = 10
MARGIN = 0.005


def print_agreement(
    output: Output, analysis: AgreementAnalysis, words: Mapping[str, str], *, title: str, note: str
) -> None:
    """Print the tables and the sentences that belong to them."""
    _print_pairs(output, analysis, words)
    if analysis.conclusions:
        _print_conclusions(output, analysis, words, title)
    if analysis.corrections:
        _print_corrections(output, analysis, words)
    for sentence in agreement_sentences(analysis, words):
        output.line(sentence)
    if note:
        output.line(note)


def agreement_sentences(analysis: AgreementAnalysis, words: Mapping[str, str]) -> list[str]:
    """Return what a reader must know about the tables, a sentence each."""
    said = []
    if analysis.conclusions and analysis.thresholds is None:
        said.append("Thresholds are not chosen, so there is no recall: name a split for them with --threshold-from.")
    if not analysis.truth:
        said.append("No source is named as the truth (--truth), so no source's errors are measured or taken off.")
    elif not analysis.errors_from:
        said.append(
            f"Errors against '{analysis.truth}' would be measured on the images shown: nothing is corrected. Name "
            "another split with --errors-from."
        )
    refused = [entry for entry in analysis.errors if entry.refused]
    if refused:
        listed = ", ".join(f"{words[entry.label]} ({entry.source})" for entry in refused)
        said.append(
            f"Not corrected, since '{analysis.errors_from}' cannot tell their errors or they are chance: {listed}."
        )
    if any(entry.metric == "recall" for entry in analysis.corrections):
        said.append(
            "Corrected recall and specificity assume that model and source err independently given the truth; the "
            "range behind 'if dependent' is what any dependence could make of the same counts."
        )
    together = [
        f"{words[entry.label]} ({entry.source})" for entry in analysis.corrections if entry.independence_refuted
    ]
    if together:
        said.append(
            "The counts refute independent errors, so corrected recall and specificity are not to be used: "
            f"{', '.join(dict.fromkeys(together))}."
        )
    impossible = [
        f"{words[entry.label]} ({entry.source})"
        for entry in analysis.corrections
        if entry.corrected.value < entry.low_if_dependent - MARGIN
        or entry.corrected.value > entry.high_if_dependent + MARGIN
    ]
    if impossible:
        said.append(
            "Corrected values that lie outside what any dependence allows do not fit independent errors; read their "
            f"range instead: {', '.join(dict.fromkeys(impossible))}."
        )
    moved = _largest_shift(analysis.conclusions, "auroc")
    if moved is not None and moved.shift is not None:
        said.append(
            f"The AUROC that moves furthest: {words[moved.label]}, {moved.shift.value:+.3f} with labels of "
            f"'{moved.source}' instead of '{analysis.sources[0]}'."
        )
    return said


def write_agreement(
    folder: Path, analysis: AgreementAnalysis, result: Mapping[str, Any], words: Mapping[str, str], note: str
) -> list[Path]:
    """Write the tables, the JSON and the figure; returns the files written."""
    from medvlm_probe.cli.distance_files import write_figure
    from medvlm_probe.plots.label_agreement import sources_figure
    from medvlm_probe.runs import write_csv, write_json
    from medvlm_probe.zero_shot.label_agreement_tables import (
        conclusion_table,
        correction_table,
        pair_table,
        plot_table,
    )

    tables = {"pairs": pair_table(analysis)}
    if analysis.conclusions:
        tables["conclusions"] = conclusion_table(analysis)
    if analysis.errors:
        tables["corrections"] = correction_table(analysis)
    written = []
    for name, table in tables.items():
        write_csv(folder / f"{name}.csv", table)
        written.append(folder / f"{name}.csv")
    write_json(folder / "label-agreement.json", dict(result))
    written.append(folder / "label-agreement.json")
    figure = sources_figure(plot_table(analysis), reference=analysis.sources[0], labels_words=words, note=note or None)
    return written + write_figure(folder / "label_agreement", figure)


def _print_pairs(output: Output, analysis: AgreementAnalysis, words: Mapping[str, str]) -> None:
    reference = analysis.sources[0]
    rows = []
    for pair in (pair for pair in analysis.pairs if pair.a == reference):
        found = pair.found
        rows.append(
            (
                words[pair.label] if pair.b == analysis.sources[1] else "",
                pair.b,
                f"{found.n_both:,} / {found.n_only_a:,} / {found.n_only_b:,} / {found.n_neither:,}",
                interval(found.agreement, 3),
                interval(found.kappa, 2),
                interval(found.positive_agreement, 2),
                interval(found.b_of_a, 2),
                interval(found.a_of_b, 2),
            )
        )
    others = len(analysis.sources) > 2
    output.table(
        f"Agreement with '{reference}' on {analysis.n_images:,} images of {analysis.n_groups:,} patients or studies",
        ("Label", "Source", "Both / missed / added / neither", "Agreement", "Kappa", "F1", "Finds", "Confirmed"),
        rows,
        caption=f"Finds: share of the positives of '{reference}' that the source calls positive too; Confirmed: share "
        "of its own positives that the reference calls positive; value [95 % interval]; ? the interval is unreliable "
        f"at this size.{' The other pairs are in pairs.csv.' if others else ''}",
    )


def _print_conclusions(output: Output, analysis: AgreementAnalysis, words: Mapping[str, str], title: str) -> None:
    present = [metric for metric in METRICS if any(entry.metric == metric for entry in analysis.conclusions)]
    by_place: dict[tuple[str, str], dict[str, Conclusion]] = {}
    for entry in analysis.conclusions:
        by_place.setdefault((entry.label, entry.source), {})[entry.metric] = entry
    rows = []
    for (label, source), entries in by_place.items():
        if not label:
            continue
        n_positive = next(iter(entries.values())).n_positive
        few = " (too few)" if n_positive < FEW else ""
        head = words[label] if source == analysis.sources[0] else ""
        rows.append(
            (
                head,
                source + few,
                f"{n_positive:,}",
                *(cell for metric in present for cell in _value_and_shift(entries.get(metric))),
            )
        )
    output.table(
        f"{title}: the same images, by source of labels",
        ("Label", "Source", "Pos.", *(cell for metric in present for cell in (METRICS[metric], "moves by"))),
        rows,
        caption=f"moves by: less the value by '{analysis.sources[0]}', on images that all sources know.",
    )
    ranked = [entry for entry in analysis.conclusions if not entry.label]
    if ranked:
        listed = "; ".join(
            f"{entry.source} {interval(entry.estimate, 3)}"
            + (f", moves by {_shift(entry.shift, 3)}" if entry.shift else "")
            for entry in ranked
        )
        output.line(f"LRAP over all labels: {listed}.")


def _value_and_shift(entry: Conclusion | None) -> tuple[str, str]:
    if entry is None:
        return "–", ""
    return interval(entry.estimate, 2), _shift(entry.shift, 2) if entry.shift else ""


def _shift(shift: Estimate, digits: int) -> str:
    if not math.isfinite(shift.value):
        return "–"
    text = f"{shift.value:+.{digits}f}"
    if not (math.isfinite(shift.low) and math.isfinite(shift.high)):
        return text
    return f"{text} [{shift.low:+.{digits}f}, {shift.high:+.{digits}f}]" + ("" if shift.reliable else "?")


def _print_corrections(output: Output, analysis: AgreementAnalysis, words: Mapping[str, str]) -> None:
    errors = {(entry.label, entry.source): entry for entry in analysis.errors}
    decided = any(entry.metric == "recall" for entry in analysis.corrections)
    rows, last = [], ""
    for entry in analysis.corrections:
        measured = errors[entry.label, entry.source]
        first = entry.metric == "prevalence"
        both = measured.sensitivity, measured.specificity
        rows.append(
            (
                words[entry.label] if entry.label != last else "",
                entry.source if first else "",
                *(interval(part, 2) if first and part else "" for part in both),
                *((entry.metric.capitalize(),) if decided else ()),
                interval(entry.apparent, 3),
                interval(entry.corrected, 3),
                *((_dependent(entry),) if decided else ()),
                interval(entry.against_truth, 3),
            )
        )
        last = entry.label
    of = (*(("Of",) if decided else ()), "Labelled", "Corrected", *(("If dependent",) if decided else ()))
    what = "Prevalence, recall and specificity" if decided else "Prevalence"
    output.table(
        f"{what} with each source's errors taken off, measured against '{analysis.truth}' on '{analysis.errors_from}'",
        ("Label", "Source", "Sens.", "Spec.", *of, f"By {analysis.truth}"),
        rows,
    )


def _dependent(entry: Correction) -> str:
    if not (math.isfinite(entry.low_if_dependent) and math.isfinite(entry.high_if_dependent)):
        return ""
    return f"{number(entry.low_if_dependent, 2)} to {number(entry.high_if_dependent, 2)}"


def _largest_shift(conclusions: tuple[Conclusion, ...], metric: str) -> Conclusion | None:
    moved = [
        entry
        for entry in conclusions
        if entry.metric == metric
        and entry.shift is not None
        and entry.shift.reliable
        and math.isfinite(entry.shift.value)
    ]
    return max(moved, key=lambda entry: abs(entry.shift.value) if entry.shift else 0.0, default=None)
