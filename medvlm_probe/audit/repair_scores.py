"""Repairs of the model's scores: other frequencies, aligned embeddings, temperature, curves, thresholds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.audit.repair_bench import Answer, Bench, Draws
from medvlm_probe.shift.label_shift import estimate_label_shift
from medvlm_probe.tuning.post_hoc import fit_post_hoc
from medvlm_probe.types import FloatArray, Scores
from medvlm_probe.zero_shot.thresholds import choose_thresholds

RIDGE = 0.1


def label_shift(bench: Bench, draws: Draws) -> list[Answer]:
    """Move each label's probabilities to the prevalence that the unlabelled pool shows (odds ratio of prevalences)."""
    p, called = bench.as_it_is()
    reference, pool = bench.inputs.reference, bench.pool
    moved = p.copy()
    for place, k in enumerate(bench.columns):
        if reference.scores is None or pool.scores is None:
            continue
        found = estimate_label_shift(
            reference.targets[:, k],
            reference.scores.values[:, k],
            pool.scores.values[:, k],
            reference.groups,
            pool.groups,
            rng=bench.inputs.rng(f"repair {k}"),
        )
        if np.isfinite(found.em.value):
            moved[:, place] = with_prevalence(p[:, place], found.reference.value, found.em.value)
    return [Answer(moved, called)]


def with_prevalence(p: FloatArray, before: float, now: float) -> NDArray[np.float64]:
    """Return probabilities learned at one prevalence as they are at another: odds times the ratio of prior odds."""
    first, second = (min(max(share, 1e-3), 1 - 1e-3) for share in (before, now))
    odds = p / np.maximum(1 - p, 1e-12) * (second / (1 - second)) / (first / (1 - first))
    return np.asarray(odds / (1 + odds))


def alignment(bench: Bench, draws: Draws) -> list[Answer]:
    """Move the site's embeddings to the reference's mean and covariance."""
    vectors = aligned(bench.held_out.vectors, bench.pool.vectors, bench.inputs.whole_reference.vectors)
    return [bench.deploy(bench.tools.score(vectors))]


def aligned(vectors: FloatArray, site: FloatArray, reference: FloatArray) -> NDArray[np.float64]:
    """Return vectors moved so that the site's mean and covariance become the reference's, along common directions.

    Vectors are normalised first. Covariances get a ridge of a tenth of their mean variance, so that directions which
    few images span are not blown up.

    Args:
        vectors: to move, (n, d).
        site: that they are of, (m, d).
        reference: (r, d).

    Source: Sun, Feng and Saenko 2016 (CORAL).
    """
    own, source, target = (_unit(rows) for rows in (vectors, site, reference))
    whiten = _power(_covariance(source), -0.5)
    colour = _power(_covariance(target), 0.5)
    return np.asarray((own - source.mean(axis=0)) @ whiten @ colour + target.mean(axis=0))


def temperature(bench: Bench, draws: Draws) -> list[Answer]:
    """Fit one temperature on the labelled images."""
    return _calibrated("temperature", bench, draws)


def platt(bench: Bench, draws: Draws) -> list[Answer]:
    """Fit a logistic curve for each label on the labelled images."""
    return _calibrated("platt", bench, draws)


def thresholds(bench: Bench, draws: Draws) -> list[Answer]:
    """Choose thresholds anew on the labelled images (Youden); probabilities stay."""
    p, called = bench.as_it_is()
    if bench.pool.scores is None or bench.held_out.scores is None:
        return [Answer(p, called)]
    found = []
    for rows in draws:
        mine = bench.pool.scores.rows(rows)
        chosen = choose_thresholds(mine, bench.pool.targets[rows], rule="youden", source="the site").values
        kept = bench.deployed.thresholds.values
        limits = [chosen.get(label, kept.get(label, np.inf)) for label in bench.labels]
        found.append(Answer(p, np.asarray(bench.held_out.scores.values[:, bench.columns] >= np.array(limits))))
    return found


def _calibrated(method: str, bench: Bench, draws: Draws) -> list[Answer]:
    p, called = bench.as_it_is()
    pool, _ = bench.deploy(bench.pool.scores)
    names = bench.labels
    after = Scores(p, "probability", names, tuple(map(str, range(len(p)))))
    found = []
    for rows in draws:
        before = Scores(pool[rows], "probability", names, tuple(map(str, rows)))
        fitted = fit_post_hoc(method, before, bench.taught[rows], task="multi_label", source="")
        found.append(Answer(fitted.apply(after).values.astype(np.float64), called))
    return found


def _unit(vectors: FloatArray) -> NDArray[np.float64]:
    rows = np.asarray(vectors, dtype=np.float64)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _covariance(rows: FloatArray) -> NDArray[np.float64]:
    found = np.atleast_2d(np.cov(rows, rowvar=False))
    return np.asarray(found + RIDGE * np.trace(found) / len(found) * np.eye(len(found)))


def _power(matrix: FloatArray, power: float) -> NDArray[np.float64]:
    values, axes = np.linalg.eigh(matrix)
    return np.asarray((axes * np.maximum(values, 1e-12) ** power) @ axes.T)
