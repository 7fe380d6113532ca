"""CalibPrompt's table with what it lacked: intervals over draws and patients, temperatures, claims put to the test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from medvlm_probe.report.calibprompt_cells import slug
from medvlm_probe.report.calibprompt_claims import Claim, study_claims
from medvlm_probe.report.calibprompt_published import published_ablation, published_source, published_values
from medvlm_probe.tuning.calibration_sweep_measures import POOLED, SweepResult
from medvlm_probe.tuning.calibration_sweep_tables import cosine_table, draw_table, estimate, estimate_table, sweep_json

METHODS = (
    "zero-shot",
    "temperature",
    "ce",
    "fl",
    "ls",
    "ce+mdca",
    "ls+mdca",
    "ls+smac",
    "ce+smac+as",
    "ls+smac+as",
)
"""What the study compares unless methods are named; `calibration` has more."""

ABLATED = ("zero-shot", "ce+smac", "ce+smac+as", "ls+smac", "ls+smac+as", "fl+smac", "fl+smac+as")
"""What the paper's ablations compare, beside zero-shot."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One model on one problem: a column of the table.

    Attributes:
        model: its name.
        cohort: its name.
        data_set: which published data set that is, see `calibprompt_published.data_set_of`.
        problem: what is told apart, for people.
        result: every method on the same images.
        as_published: the shots and context vectors are those of the published table.
        notes: sentences about splits and recipes.
    """

    model: str
    cohort: str
    data_set: str
    problem: str
    result: SweepResult
    as_published: bool
    notes: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The cell for people."""
        return f"{self.model} on {self.cohort}: {self.problem}"

    @property
    def slug(self) -> str:
        """The cell in the names of files."""
        return slug(self.model, self.cohort, self.problem)

    @property
    def published(self) -> Mapping[tuple[str, str], float]:
        """(method, metric) to the published value; empty where these are not the published model, data set, shots and
        context."""
        return published_values(self.model, self.data_set) if self.as_published else {}


@dataclass(frozen=True, eq=False)
class Ablation:
    """One cell's methods at several shots or context lengths.

    Attributes:
        model, cohort, data_set, problem: as of `Cell`.
        what: `shots` or `context`.
        results: value to every method's results on the same images.
    """

    model: str
    cohort: str
    data_set: str
    problem: str
    what: str
    results: Mapping[int, SweepResult]

    def table(self) -> pd.DataFrame:
        """Return a row a value, method and metric: mean, spread, interval, the published value where it belongs."""
        parts = [
            _shown(estimate_table([result]), result).assign(**{self.what: value})
            for value, result in self.results.items()
        ]
        ours = pd.concat(parts, ignore_index=True)
        theirs = self.published().rename(columns={"value": "read_off_the_figure"})
        return ours.merge(theirs, how="left", on=["method", "metric", self.what])

    def published(self) -> pd.DataFrame:
        """Return the published curves, read off the figure; no rows where they are not of this model and data set."""
        return published_ablation(self.what, self.model, self.data_set)


@dataclass(frozen=True, eq=False)
class CalibPromptStudy:
    """Everything that the study found.

    Attributes:
        cells: in the order of the table.
        claims: of each cell.
        ablations: of the first cell.
    """

    cells: tuple[Cell, ...]
    claims: tuple[tuple[Claim, ...], ...]
    ablations: tuple[Ablation, ...]

    def to_json(self) -> dict[str, Any]:
        """Return every cell's methods, claims and published values, and the ablations."""
        return {
            "cells": [
                {
                    "model": cell.model,
                    "cohort": cell.cohort,
                    "problem": cell.problem,
                    "notes": list(cell.notes),
                    "published": [
                        {"method": method, "metric": metric, "value": value, "source": published_source()}
                        for (method, metric), value in cell.published.items()
                    ],
                    "claims": [claim.to_json() for claim in claims],
                    **sweep_json(cell.result),
                }
                for cell, claims in zip(self.cells, self.claims, strict=True)
            ],
            "ablations": [
                {
                    "ablation": entry.what,
                    "model": entry.model,
                    "cohort": entry.cohort,
                    "problem": entry.problem,
                    "values": [{entry.what: value, **sweep_json(result)} for value, result in entry.results.items()],
                }
                for entry in self.ablations
            ],
        }


def calibprompt_study(cells: Sequence[Cell], ablations: Sequence[Ablation] = ()) -> CalibPromptStudy:
    """Return the study of some cells: their tables, and the statements that each of them allows."""
    return CalibPromptStudy(tuple(cells), tuple(study_claims(cell.result) for cell in cells), tuple(ablations))


def study_table(study: CalibPromptStudy) -> pd.DataFrame:
    """Return the paper's table, tidy: a row a cell, method and metric.

    Metrics are ECE of the top label (of several labels: all entries together) and accuracy (mean AUROC over labels).
    `calibrated_low`, `calibrated_high`: ECEs that perfectly calibrated models with these probabilities would show.
    """
    parts = []
    for cell in study.cells:
        table = _with_cell(_shown(estimate_table([cell.result]), cell.result), cell)
        bands = {method.name: method.band for method in cell.result.methods}
        of_ece = table["metric"] == "ece"
        for end in ("low", "high"):
            table[f"calibrated_{end}"] = [
                getattr(bands[name], end) if ece else math.nan
                for name, ece in zip(table["method"], of_ece, strict=True)
            ]
        pairs = zip(table["method"], table["metric"], strict=True)
        table["published_value"] = [cell.published.get(pair, math.nan) for pair in pairs]
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def claim_table(study: CalibPromptStudy) -> pd.DataFrame:
    """Return a row a cell and claim: difference, interval, Holm's p, verdict."""
    rows = [
        {
            "model": cell.model,
            "cohort": cell.cohort,
            "problem": cell.problem,
            "claim": claim.text,
            "said_by": claim.said_by,
            "difference": claim.difference.value,
            "low": claim.difference.low,
            "high": claim.difference.high,
            "reliable": claim.difference.reliable,
            "bound": claim.bound,
            "p_adjusted": claim.p_adjusted,
            "verdict": claim.verdict,
        }
        for cell, claims in zip(study.cells, study.claims, strict=True)
        for claim in claims
    ]
    columns = ["model", "cohort", "problem", "claim", "said_by", "difference", "low", "high", "reliable", "bound",
               "p_adjusted", "verdict"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def draws_of(study: CalibPromptStudy) -> pd.DataFrame:
    """Return a row a cell, method, draw and metric of the paper's table; draw -1 for what does not depend on it."""
    parts = [_with_cell(_shown(draw_table([cell.result]), cell.result), cell) for cell in study.cells]
    return pd.concat(parts, ignore_index=True)


def cosines_of(study: CalibPromptStudy) -> pd.DataFrame:
    """Return a row a cell, method and draw: the mean cosine between texts beside ECE."""
    return pd.concat([_with_cell(cosine_table(cell.result), cell) for cell in study.cells], ignore_index=True)


def spread_words(result: SweepResult, method: str, metric: str) -> str:
    """Return `0.031 ± 0.010` of a method's `ece`, else of its accuracy or mean AUROC; an en dash where it has none."""
    found = result.named(method)
    scope, metric = (POOLED, "ece") if metric == "ece" else result.main
    sample = None if found is None else found.scopes[scope].get(metric)
    if found is None or sample is None or math.isnan(sample.mean):
        return "–"
    text = f"{estimate(result, found, scope, metric).value:.3f}"
    return text if len(sample.values) == 1 else f"{text} ± {sample.deviation:.3f}"


def _shown(table: pd.DataFrame, result: SweepResult) -> pd.DataFrame:
    """Return the rows of the table's two metrics, without what belongs to sites."""
    pairs = {(POOLED, "ece"), result.main}
    kept = [pair in pairs for pair in zip(table["scope"], table["metric"], strict=True)]
    return table[kept].drop(columns="site").reset_index(drop=True)


def _with_cell(table: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    facts = {"model": cell.model, "cohort": cell.cohort, "problem": cell.problem}
    return pd.concat([pd.DataFrame(facts, index=table.index), table], axis=1)
