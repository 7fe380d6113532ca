"""Every calibration metric on many drawn outcomes at once: sums over images are matrix products."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.metrics.calibration_bins import SURE, bin_edges, bins_of
from medvlm_probe.metrics.calibration_cells import CELLS_ABOVE, cells_of, risk_coverage_of_cells
from medvlm_probe.metrics.calibration_forms import FORMS
from medvlm_probe.metrics.calibration_null import OutcomeStatistic, drawn_classes
from medvlm_probe.metrics.calibration_problem import Problem
from medvlm_probe.metrics.calibration_scores import log_loss
from medvlm_probe.types import BoolArray, FloatArray

Columns = dict[str, NDArray[np.float64]]


def outcome_statistic(problem: Problem) -> OutcomeStatistic:
    """Return the metrics of `problem.metrics` as a function of the uniforms (b, n) that decide outcomes: (b, M).

    Kernel densities are taken at few points and smECE in its first cosine terms, so that they differ a little from the
    plain values; metrics that are undefined are NaN. Above `CELLS_ABOVE` images each replicate is counted by cells of
    confidence, which no bin's edge parts.
    """
    from_outcomes = _of_outcomes(problem)
    by_class = {"brier", "nll", "classwise_ece"} & set(problem.metrics)
    from_classes = None if problem.binary or not by_class else _of_classes(problem)

    def statistic(uniforms: NDArray[np.float64]) -> NDArray[np.float64]:
        values = from_outcomes(uniforms < problem.outcomes.confidence)
        if from_classes is not None:
            values |= from_classes(drawn_classes(problem.probabilities, uniforms))
        return np.stack([values[name] for name in problem.metrics], axis=1)

    return statistic


def _of_outcomes(problem: Problem) -> Callable[[BoolArray], Columns]:
    """Return the metrics that outcomes (b, n) decide."""
    c, present, confidence = problem.outcomes.confidence, problem.present, problem.answer_confidence
    n = len(c)
    cells = cells_of(c, _edges(problem)) if n > CELLS_ABOVE else None
    rows = np.arange(n) if cells is None else cells.representative
    wanted = [name for name in problem.metrics if name in FORMS]
    forms = {name: FORMS[name].form(c, problem.n_bins) for name in wanted} if n > 1 else {}
    matrices = {name: form.matrix(rows) for name, form in forms.items()}
    sure = confidence > SURE

    def by_row(coefficients: FloatArray) -> NDArray[np.float64]:
        """Return what an outcome adds, (n,), or by cell the mean over its expected outcomes, (K,)."""
        if cells is None:
            return np.asarray(coefficients, dtype=np.float64)
        expected = np.maximum(c, np.finfo(np.float64).tiny)
        return cells.sums(expected * coefficients) / cells.sums(expected)

    # An answer is wrong where "present" does not come true, or "absent" does: present + sign x outcome.
    sign = np.where(present, -1.0, 1.0)
    linear = {
        **matrices,
        "true": np.ones((len(rows), 1)),
        "wrong": sign[rows, None],
        "sure": (sign * sure)[rows, None],
        "brier": by_row(1 - 2 * c)[:, None],
        "nll": by_row(log_loss(c) - log_loss(1 - c))[:, None],
    }
    expectation = c if cells is None else cells.sums(c)
    constants = {
        **{name: form.offset - expectation @ matrices[name] for name, form in forms.items()},
        "true": np.zeros(1),
        "wrong": np.array([present.sum()]),
        "sure": np.array([(present & sure).sum()]),
        "brier": np.array([c @ c]),
        "nll": np.array([log_loss(1 - c).sum()]),
    }
    precision: type[np.floating] = np.float32 if cells is None else np.float64
    stacked: NDArray[np.floating] = np.concatenate(list(linear.values()), axis=1).astype(precision)
    constant = np.concatenate(list(constants.values()))
    columns = np.cumsum([0, *(part.shape[1] for part in linear.values())])
    order = np.argsort(-confidence, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(confidence[order]) != 0, True])
    counts = np.diff(np.r_[-1, ends])

    def values(outcomes: BoolArray) -> Columns:
        hits: NDArray[np.floating] = (
            outcomes.astype(np.float32) if cells is None else np.stack([cells.sums(row) for row in outcomes])
        )
        sums = hits @ stacked + constant
        part = {name: sums[:, columns[k] : columns[k + 1]] for k, name in enumerate(linear)}
        single = {name: part[name][:, 0] for name in linear if name not in forms}
        undefined = np.full(len(outcomes), np.nan)
        errors = np.round(single["wrong"])
        found = {
            **{name: form.size(part[name]) for name, form in forms.items()},
            **{name: undefined for name in wanted if name not in forms},
            "brier": single["brier"] / n,
            "nll": single["nll"] / n,
            "calibration_in_the_large": c.mean() - single["true"] / n,
            "overconfidence": confidence.mean() - 1 + errors / n,
            "sure_errors": np.where(errors > 0, np.round(single["sure"]) / np.maximum(errors, 1), np.nan),
        }
        if "risk_coverage" in problem.metrics and cells is not None:
            wrong = np.where(present[rows], cells.counts - hits, hits)
            found["risk_coverage"] = risk_coverage_of_cells(cells, confidence[rows], wrong)
        elif "risk_coverage" in problem.metrics:
            wrong = np.cumsum((outcomes != present)[:, order], axis=1, dtype=np.int32)[:, ends]
            found["risk_coverage"] = wrong / (ends + 1) @ counts / n
        return found

    return values


def _edges(problem: Problem) -> NDArray[np.float64]:
    """Return where bins begin, and where answers change their kind or become sure."""
    c = problem.outcomes.confidence
    bins = [bin_edges(c, problem.n_bins, "width"), bin_edges(c, problem.n_bins, "mass")]
    return np.concatenate([*bins, [0.5, 1 - SURE, np.nextafter(SURE, 1)]])


def _of_classes(problem: Problem) -> Callable[[NDArray[np.int64]], Columns]:
    """Return the metrics that drawn classes (b, n) decide."""
    p = problem.probabilities
    n, n_classes = p.shape
    rows = np.arange(n)
    brier, loss = 1 + (p**2).sum(axis=1, keepdims=True) - 2 * p, log_loss(p)
    edges = bin_edges(p[:, 0], problem.n_bins, "width")
    hot = [np.eye(problem.n_bins, dtype=np.float32)[bins_of(column, edges)] for column in p.T]
    expected = [column @ matrix for column, matrix in zip(p.T, hot, strict=True)]

    def values(classes: NDArray[np.int64]) -> Columns:
        scores = {"brier": brier, "nll": loss}
        found = {name: table[rows, classes].mean(axis=1) for name, table in scores.items() if name in problem.metrics}
        if "classwise_ece" not in problem.metrics:
            return found
        gaps = [
            np.abs((classes == k).astype(np.float32) @ hot[k] - expected[k]).sum(axis=1) / n for k in range(n_classes)
        ]
        return found | {"classwise_ece": np.asarray(sum(gaps[1:], gaps[0]) / n_classes)}

    return values
