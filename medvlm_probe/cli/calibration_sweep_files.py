"""The files and tables of a calibration sweep: estimates, paired differences, draws, cosines, figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from medvlm_probe.cli.distance_files import write_figure
from medvlm_probe.cli.output import Output, interval, number, p_value
from medvlm_probe.runs import write_csv, write_json

if TYPE_CHECKING:
    from medvlm_probe.tuning.calibration_sweep_measures import Measured, SweepResult

WORDS = {
    "accuracy": "Accuracy ↑",
    "auroc": "Mean AUROC ↑",
    "ece": "ECE ↓",
    "ace": "Adaptive ECE ↓",
    "mce": "MCE ↓",
    "ece_kde": "KDE-ECE ↓",
    "brier": "Brier ↓",
    "nll": "NLL ↓",
    "overconfidence": "Overconfidence",
    "calibration_in_the_large": "In the large",
}
DIFFERENCES = ("ece", "brier", "nll")


def result_json(results: Sequence[SweepResult]) -> dict[str, Any]:
    """Return the JSON of `calibration`: `methods` on all images, and the same by site."""
    from medvlm_probe.tuning.calibration_sweep_tables import sweep_json

    whole, *sites = [sweep_json(result) for result in results]
    return {**whole, "sites": sites}


def ablation_json(what: str, results: Mapping[int, SweepResult]) -> dict[str, Any]:
    """Return the JSON of an ablation: `methods` for each value."""
    from medvlm_probe.tuning.calibration_sweep_tables import sweep_json

    return {"ablation": what, "values": [{what: value, **sweep_json(result)} for value, result in results.items()]}


def write_sweep(folder: Path, results: Sequence[SweepResult], result: Mapping[str, Any], note: str) -> list[Path]:
    """Write the tables as CSV, everything as JSON, and the figure; returns the files written."""
    from medvlm_probe.plots.calibration_sweep import methods_figure
    from medvlm_probe.tuning import calibration_sweep_tables as tables

    draws, estimates = tables.draw_table(results), tables.estimate_table(results)
    written = _write_tables(
        folder,
        {
            "calibration": estimates,
            "differences": tables.comparison_table(results),
            "draws": draws,
            "text_cosine": tables.cosine_table(results[0]),
        },
    )
    write_json(folder / "calibration.json", dict(result))
    written.append(folder / "calibration.json")
    for one in results:
        of_site = estimates[estimates["site"] == one.site], draws[draws["site"] == one.site]
        figure = methods_figure(*of_site, main=one.main, note=note or None, title=one.site or None)
        written += write_figure(folder / ("methods" + (f"_{one.site}" if one.site else "")), figure)
    return written


def write_ablation(
    folder: Path, what: str, results: Mapping[int, SweepResult], result: Mapping[str, Any], note: str
) -> list[Path]:
    """Write an ablation's tables as CSV, everything as JSON, and the figure; returns the files written."""
    from medvlm_probe.plots.calibration_sweep import ablation_figure
    from medvlm_probe.tuning import calibration_sweep_tables as tables

    def stacked(table: Callable[[Sequence[SweepResult]], pd.DataFrame]) -> pd.DataFrame:
        parts = [table([one]).assign(**{what: value}) for value, one in results.items()]
        return pd.concat(parts, ignore_index=True)

    estimates = stacked(tables.estimate_table)
    written = _write_tables(
        folder,
        {"ablation": estimates, "differences": stacked(tables.comparison_table), "draws": stacked(tables.draw_table)},
    )
    write_json(folder / "calibration.json", dict(result))
    written.append(folder / "calibration.json")
    main = next(iter(results.values())).main
    figure = ablation_figure(estimates, what=what, main=main, note=note or None)
    return written + write_figure(folder / f"ablation_{what}", figure)


def _write_tables(folder: Path, tables: Mapping[str, pd.DataFrame]) -> list[Path]:
    for name, table in tables.items():
        write_csv(folder / f"{name}.csv", table)
    return [folder / f"{name}.csv" for name in tables]


def print_sweep(output: Output, results: Sequence[SweepResult], note: str) -> None:
    """Print the tables, all images' first, then each site's."""
    for result in results:
        _print_estimates(output, result)
        _print_differences(output, result)
    _print_costs(output, results[0])
    if note:
        output.line(note)


def _print_estimates(output: Output, result: SweepResult) -> None:
    where = f" of {result.site}" if result.site else ""
    what = "the top label" if result.single else "all labels' entries together"
    scope, metric = result.main
    shown = ["brier", "nll", "overconfidence"] + ([] if result.single else ["calibration_in_the_large"])
    output.table(
        f"Calibration of {what}, {result.n_images:,} images{where}, {result.n_draws} draws",
        ("Method", WORDS[metric], WORDS["ece"], "ECE if calibrated", *(WORDS[name] for name in shown)),
        [
            (
                method.name,
                _spread(method, scope, metric),
                _spread(method, "pooled", "ece"),
                f"{number(method.band.low)} to {number(method.band.high)}",
                *(_spread(method, "pooled", name) for name in shown),
            )
            for method in result.methods
        ],
        caption="Mean ± SD over draws. Overconfidence: mean confidence less accuracy, below 0 is under-confident"
        + ("." if result.single else "; in the large: mean probability less prevalence."),
    )
    others = ("ace", "mce", "ece_kde")
    output.table(
        f"Other calibration errors{where}",
        ("Method", *(WORDS[name] for name in others)),
        [(method.name, *(_spread(method, "pooled", name) for name in others)) for method in result.methods],
    )
    if not result.single:
        by_label = [label for label in result.methods[0].scopes if label not in ("pooled", "macro")]
        output.table(
            f"ECE by label{where}",
            ("Method", "Mean over labels", *by_label),
            [
                (method.name, *(_spread(method, part, "ece") for part in ("macro", *by_label)))
                for method in result.methods
            ],
            caption="Mean ± SD over draws.",
        )


def _spread(method: Measured, scope: str, metric: str) -> str:
    sample = method.scopes[scope].get(metric)
    if sample is None:
        return "–"
    if len(sample.values) == 1:
        return number(sample.mean)
    return f"{number(sample.mean)} ± {number(sample.deviation)}"


def _print_differences(output: Output, result: SweepResult) -> None:
    from medvlm_probe.tuning.calibration_sweep_tables import comparisons

    scope, metric = result.main
    wanted = [(scope, metric), *(("pooled", name) for name in DIFFERENCES)]
    found = {
        (entry.against, entry.method, entry.scope, entry.metric): entry
        for entry in comparisons(result, scopes=("pooled",) if result.single else ("pooled", "macro"))
    }
    references = dict.fromkeys(key[0] for key in found)
    if "temperature@split" in references:
        references.pop("temperature@shots", None)
    for against in references:
        rows = []
        for method in [method.name for method in result.methods if method.name != against]:
            entries = [found[against, method, *part] for part in wanted if (against, method, *part) in found]
            cells = [
                interval(entry.difference.estimate) + ("*" if entry.p_adjusted < 0.05 else "") for entry in entries
            ]
            ece = found[against, method, "pooled", "ece"]
            rows.append((method, *cells, p_value(ece.p_adjusted), number(ece.difference.smallest_detectable)))
        output.table(
            f"Paired differences to {against}" + (f", {result.site}" if result.site else ""),
            ("Method", *(WORDS[part[1]] for part in wanted if found_any(found, against, part)), "ECE: p (Holm)",
             "ECE: detectable"),
            rows,
            caption="Difference [95 % interval by a two-way bootstrap over draws and patients]; * p < .05 after Holm's "
            "correction over methods. Detectable: the ECE difference found with a probability of .8 at Holm's "
            "strictest step.",
        )  # fmt: skip


def found_any(found: Mapping[tuple[str, str, str, str], Any], against: str, part: tuple[str, str]) -> bool:
    """Return whether any method was compared with `against` in this scope and metric."""
    return any(key[0] == against and key[2:] == part for key in found)


def _print_costs(output: Output, result: SweepResult) -> None:
    from medvlm_probe.tuning.calibration_sweep_tables import alike, cosine_correlations, not_worse_than_cross_entropy

    verdicts = not_worse_than_cross_entropy(result)
    output.table(
        "What each draw used, and what it cost",
        ("Method", "Labels used", "Parameters", "Steps", "Seconds, all draws", "Peak memory", "Not worse than ce",
         "Text cosine"),
        [
            (
                method.name,
                f"{method.outcome.labels_used:,}",
                f"{method.outcome.n_parameters:,}",
                f"{method.outcome.n_steps:,}",
                "read" if method.outcome.seconds != method.outcome.seconds else f"{method.outcome.seconds:.1f}",
                f"{method.outcome.peak_bytes / 2**30:.2f} GiB",
                verdicts.get(method.name, "–"),
                number(float(method.cosines.mean())),
            )
            for method in result.methods
        ],
        caption="Not worse: accuracy (several labels: mean AUROC) is less than a point below cross entropy's, by a "
        "one-sided 95 % bound. Peak memory: of the whole process up to then.",
    )  # fmt: skip
    together = cosine_correlations(result)
    if together["over_methods"] is not None:
        within = together["within_methods"]
        output.line(
            f"Text cosine and ECE, rank correlation: {together['over_methods']:.2f} over {together['n_methods']} "
            f"methods' means" + (f", {within:.2f} over draws within a method." if within is not None else ".")
        )
    for one, other in alike(result):
        output.line(f"{one} and {other} gave the same prompts in every draw.")
    for method in result.methods:
        for text in method.outcome.notes:
            output.say(f"{method.name}: {text}")


def print_ablation(output: Output, what: str, results: Mapping[int, SweepResult], note: str) -> None:
    """Print ECE and accuracy (AUROC) for each value."""
    first = next(iter(results.values()))
    names = [method.name for method in first.methods]
    for scope, metric in (("pooled", "ece"), first.main):
        output.table(
            f"{WORDS[metric]} by {what}",
            ("Method", *(f"{value}" for value in results)),
            [
                (
                    name,
                    *(
                        _spread(method, scope, metric)
                        for result in results.values()
                        if (method := result.named(name)) is not None
                    ),
                )
                for name in names
            ],
            caption=f"Mean ± SD over {first.n_draws} draws; {first.n_images:,} images.",
        )
    if note:
        output.line(note)
