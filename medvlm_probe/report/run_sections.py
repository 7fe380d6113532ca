"""Runs of other commands on a page: a plain section each, with its figures and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from medvlm_probe.report.cells import TableStyle
from medvlm_probe.report.inline_svg import PageFigure, page_figure
from medvlm_probe.report.layouts import TableLayout, named_under, under
from medvlm_probe.report.provenance import SUBJECTS, Fact, is_phantom, name_of, provenance_facts
from medvlm_probe.report.tables import Table, make_table, tables_of
from medvlm_probe.report.words import heading


@dataclass(frozen=True)
class RunLayout:
    """How a command's run is shown.

    Attributes:
        title: what was done, for people.
        means: how to read it.
        figures: patterns of the names of figures that show no image and no single patient.
        tables: of its JSON.
    """

    title: str
    means: str
    figures: tuple[str, ...]
    tables: tuple[TableLayout, ...]


@dataclass(frozen=True)
class Run:
    """What a run's folder holds: its record (`run.json`), its JSON, and its figures as name to SVG."""

    command: str
    record: Mapping[str, Any]
    result: Mapping[str, Any]
    figures: Mapping[str, str]


@dataclass(frozen=True)
class RunSection:
    """A run as a page shows it."""

    key: str
    asks: str
    means: str
    sentence: str
    figures: tuple[PageFigure, ...]
    tables: tuple[Table, ...]
    left_out: tuple[str, ...]
    facts: tuple[Fact, ...]


_PERFORMANCE = (
    TableLayout(
        "By label",
        under("labels"),
        ("label", "n_positive", "n_negative", "recall", "specificity", "precision", "auroc"),
    ),
    TableLayout(
        "Ranking of labels, beside baselines that look at no image",
        lambda value: [{"name": "model", **(value.get("ranking") or {})}, *named_under("baselines")(value)],
        ("name", "label_ranking_average_precision", "coverage_error", "ranking_loss", "exact_match"),
    ),
)
_METHODS = ("method", "labels_used", "accuracy", "ece", "brier", "nll", "overconfidence")

RUNS: dict[str, RunLayout] = {
    "zero-shot": RunLayout(
        "Zero-shot performance",
        "Labels named by prompts alone, at the thresholds of the run.",
        ("auroc", "similarity"),
        _PERFORMANCE,
    ),
    "linear-probe": RunLayout(
        "Linear probe", "A linear classifier fitted on the model's embeddings.", ("auroc",), _PERFORMANCE
    ),
    "fine-tune": RunLayout("Fine-tuning", "The model's image tower trained further.", ("auroc",), _PERFORMANCE),
    "calibration": RunLayout(
        "Calibration",
        "How far probabilities can be believed. Calibration errors are debiased; overconfidence is mean confidence "
        "less accuracy.",
        ("reliability", "methods*", "ablation_*"),
        (TableLayout("Methods, all labels' entries together", under("methods"), _METHODS),),
    ),
    "embed-dist": RunLayout(
        "Distances between embeddings",
        "How far images with a label lie from each other and from those without it; a ratio above 1 keeps them apart.",
        ("distances", "ratio_by_site", "cross_site", "crowding"),
        (
            TableLayout(
                "By label",
                under("labels"),
                ("label", "n_positive", "n_negative", "intra_positive", "intra_negative", "inter", "ratio",
                 "energy_distance"),
            ),
        ),
    ),
    "grad-cam": RunLayout(
        "Where the model looks",
        "Heat maps against boxes and masks, beside chance, and whether a wrong label's map would do as well. Images "
        "are not part of this page.",
        ("localization", "faithfulness"),
        (
            TableLayout(
                "Localisation",
                under("labels"),
                ("label", "setting", "n_with_region", "pointing_game", "chance.uniform.pointing_game",
                 "chance.centre.pointing_game", "iou", "relevance_mass", "controls.verdict"),
            ),
        ),
    ),
    "label-agreement": RunLayout(
        "Agreement of label sources", "How far sources of labels agree on the same images.", ("label_agreement",), (
            TableLayout(
                "Pairs of sources",
                under("pairs"),
                ("label", "a", "b", "n_both", "n_only_a", "n_only_b", "n_neither", "agreement", "kappa"),
            ),
        ),
    ),
    "tune": RunLayout("Tuned prompts", "Prompts learned from few labelled images.", (), ()),
}  # fmt: skip
"""Commands whose runs a page can show. A figure that matches no pattern stays in the run's folder."""

MOST_TABLES = 6


def run_section(run: Run, number: int, first_figure: int, *, small_cells: bool | None = None) -> RunSection:
    """Return a run's section.

    Where small cells are suppressed in a table, the run's figures are left out too: they would show them.

    Args:
        run: of a command of `RUNS`.
        number: of the section on its page, from 1.
        first_figure: number of its first figure.
        small_cells: show counts under ten people; None for phantoms only.
    """
    layout = RUNS[run.command]
    small = is_phantom(run.record) if small_cells is None else small_cells
    style = TableStyle(small_cells=small)
    found = [make_table(entry.rows(run.result), entry.caption, style, columns=entry.columns) for entry in layout.tables]
    tables = [table for table in found if table is not None]
    tables = (
        tables or tables_of({k: v for k, v in run.result.items() if k not in _BESIDES}, "Measured", style)[:MOST_TABLES]
    )
    names = [name for name in run.figures if any(fnmatch(name, pattern) for pattern in layout.figures)]
    hidden = bool(names) and any(cell.kind == "few" for table in tables for row in table.rows for cell in row)
    left_out = (
        "its figures, which would show cells of fewer than 10 people (--small-cells shows them)" if hidden else ""
    )
    shown = [] if hidden else names
    return RunSection(
        f"run-{number}",
        f"{layout.title}: {_subject(run.record)}" if _subject(run.record) else layout.title,
        f"{layout.means} {(run.record.get('seen_in_training') or {}).get('reason') or ''}".strip(),
        "",
        tuple(page_figure(first_figure + k, heading(name), run.figures[name]) for k, name in enumerate(shown)),
        tuple(tables),
        (left_out,) if left_out else (),
        tuple(provenance_facts(run.record, {})),
    )


_BESIDES = frozenset({"seen_in_training", "prior_from", "score_kind", "threshold_rule", "group"})


def run_sections(
    runs: Sequence[Run], first_figure: int = 1, *, small_cells: bool | None = None
) -> tuple[RunSection, ...]:
    """Return every run's section, their figures numbered through."""
    found: list[RunSection] = []
    for number, run in enumerate(runs, start=1):
        before = sum(len(section.figures) for section in found)
        found.append(run_section(run, number, first_figure + before, small_cells=small_cells))
    return tuple(found)


def _subject(record: Mapping[str, Any]) -> str:
    names = [name_of(record.get(key)) for key in SUBJECTS]
    return ", ".join(name for name in names if name)
