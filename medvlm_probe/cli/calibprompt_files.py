"""The files and tables of `figures calibprompt`: tidy tables as CSV, everything as JSON, figures as SVG and PNG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm_probe.cli.distance_files import write_figure
from medvlm_probe.cli.output import Output, interval, number, p_value
from medvlm_probe.runs import write_csv, write_json

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from medvlm_probe.report.calibprompt_study import CalibPromptStudy, Cell


def write_study(folder: Path, study: CalibPromptStudy, result: Mapping[str, Any], note: str) -> list[Path]:
    """Write the study's tables, JSON and figures; returns the files written.

    Args:
        folder: the run's folder.
        study: what was found.
        result: what the JSON file holds.
        note: small print of every figure.
    """
    from medvlm_probe.report import calibprompt_study as tables

    written = {
        "study": tables.study_table(study),
        "claims": tables.claim_table(study),
        "draws": tables.draws_of(study),
        "text_cosine": tables.cosines_of(study),
        **{f"ablation_{entry.what}": entry.table() for entry in study.ablations},
    }
    paths = []
    for name, table in written.items():
        write_csv(folder / f"{name}.csv", table)
        paths.append(folder / f"{name}.csv")
    write_json(folder / "calibprompt.json", dict(result))
    paths.append(folder / "calibprompt.json")
    for name, figure in _figures(study, written, note).items():
        paths += write_figure(folder / name, figure)
    return paths


def _figures(study: CalibPromptStudy, tables: Mapping[str, pd.DataFrame], note: str) -> dict[str, Figure]:
    from medvlm_probe.plots.calibprompt import claims_figure, cosine_figure
    from medvlm_probe.plots.calibration_sweep import ablation_figure, methods_figure

    shared = {(cell.model, cell.cohort) for cell in study.cells}
    title = " on ".join(next(iter(shared))) if len(shared) == 1 else None

    def named(table: pd.DataFrame) -> pd.DataFrame:
        where = "" if title else table["model"] + " on " + table["cohort"] + ": "
        return table.assign(cell=where + table["problem"])

    figures = {}
    for cell in study.cells:
        mine = [_of_cell(tables[name], cell) for name in ("study", "draws")]
        small_print = " ".join(filter(None, [_published_words(cell), note]))
        figures[f"methods_{cell.slug}"] = methods_figure(
            *mine, main=cell.result.main, title=cell.words, note=small_print or None
        )
    claims = named(tables["claims"])
    on_ece = claims[claims["claim"].str.contains("lowers ECE against")]
    on_ece = on_ece.assign(claim=on_ece["claim"].str.replace("lowers ECE against", "below"))
    if len(on_ece):
        figures["claims"] = claims_figure(on_ece, title=title, note=note or None)
    cosines = named(tables["text_cosine"])
    cosines = cosines[cosines["method"] != "zero-shot"]
    if len(cosines):
        figures["text_cosine"] = cosine_figure(cosines, title=title, note=note or None)
    for entry in study.ablations:
        main = next(iter(entry.results.values())).main
        figures[f"ablation_{entry.what}"] = ablation_figure(
            tables[f"ablation_{entry.what}"],
            what=entry.what,
            main=main,
            published=entry.published(),
            title=f"{entry.model} on {entry.cohort}: {entry.problem}",
            note=note or None,
        )
    return figures


def _of_cell(table: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    facts = {"model": cell.model, "cohort": cell.cohort, "problem": cell.problem}
    return table[(table[list(facts)] == list(facts.values())).all(axis=1)]


def _published_words(cell: Cell) -> str:
    from medvlm_probe.report.calibprompt_published import published_source

    eces = [f"{method} {value:.3f}" for (method, metric), value in cell.published.items() if metric == "ece"]
    return f"Published ECE, one seed: {', '.join(eces)} ({published_source()})." if eces else ""


def print_study(output: Output, study: CalibPromptStudy, note: str) -> None:
    """Print the paper's table, the published values, the statements, and the ablations."""
    from medvlm_probe.cli.calibration_sweep_files import print_ablation
    from medvlm_probe.report.calibprompt_study import spread_words
    from medvlm_probe.tuning.calibration_sweep_tables import alike

    letters = [chr(ord("A") + number) for number in range(len(study.cells))]
    methods = list(dict.fromkeys(method.name for cell in study.cells for method in cell.result.methods))
    for metric in ("ece", "main"):
        rows = [(name, *(spread_words(cell.result, name, metric) for cell in study.cells)) for name in methods]
        if metric == "ece":
            rows.append(("if calibrated", *(_band_words(cell) for cell in study.cells)))
        output.table(
            "ECE ↓" if metric == "ece" else "Accuracy ↑ (of several labels: mean AUROC)",
            ("Method", *letters),
            rows,
            caption=f"Mean ± SD over {study.cells[0].result.n_draws} few-shot draws; intervals are in study.csv.",
        )
    for letter, cell in zip(letters, study.cells, strict=True):
        output.line(f"{letter}: {cell.words} ({cell.result.n_images:,} images of {cell.result.n_groups:,} groups)")
    _print_published(output, study)
    for cell, claims in zip(study.cells, study.claims, strict=True):
        if claims:
            output.table(
                f"Which statements survive: {cell.words}",
                ("Statement", "Said by", "Lower by, or correlation", "p (Holm)", "Verdict"),
                [
                    (claim.text, claim.said_by, interval(claim.difference), p_value(claim.p_adjusted), claim.verdict)
                    for claim in claims
                ],
                caption="Value [95 % interval by a two-way bootstrap over draws and patients]; ? the interval is "
                "unreliable at this size. Verdicts on ECE: p below .05 after Holm's correction over them; on accuracy, "
                "which may lose a point: a one-sided 95 % bound; on correlations: the interval.",
            )
        for one, other in alike(cell.result):
            output.line(f"{one} and {other} gave the same prompts in every draw.")
        for text in cell.notes:
            output.line(text)
    for entry in study.ablations:
        output.line(f"Ablation over {entry.what}: {entry.model} on {entry.cohort}, {entry.problem}")
        print_ablation(output, entry.what, entry.results, "")
    if note:
        output.line(note)


def _band_words(cell: Cell) -> str:
    bands = [method.band for method in cell.result.methods]
    return f"{number(min(band.low for band in bands))} to {number(max(band.high for band in bands))}"


def _print_published(output: Output, study: CalibPromptStudy) -> None:
    from medvlm_probe.report.calibprompt_published import published_source
    from medvlm_probe.report.calibprompt_study import spread_words

    rows = [
        (cell.words, method, metric, spread_words(cell.result, method, metric), number(value, 4))
        for cell in study.cells
        for (method, metric), value in cell.published.items()
    ]
    if rows:
        output.table(
            "Beside the published values",
            ("Model and data set", "Method", "Metric", "Here", "Published, one seed"),
            rows,
            caption=f"{published_source()}; on the released splits.",
        )
