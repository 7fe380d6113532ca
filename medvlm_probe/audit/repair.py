"""What repairs it: remedies fitted on part of the site's patients, measured on the others, by labels spent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.audit.calibration import known_columns
from medvlm_probe.audit.inputs import AuditInputs, Deployed, Side, halves, people
from medvlm_probe.errors import InputError
from medvlm_probe.metrics.calibration_scores import brier_terms
from medvlm_probe.metrics.intervals import paired_mean
from medvlm_probe.metrics.macro import macro_rank_estimates, macro_threshold_estimates
from medvlm_probe.shift.label_shift import estimate_label_shift
from medvlm_probe.tuning.linear_probe import fit_linear_probe
from medvlm_probe.tuning.post_hoc import fit_post_hoc
from medvlm_probe.types import Estimate, FloatArray, Scores
from medvlm_probe.zero_shot.thresholds import choose_thresholds

SIZES = (16, 32, 64, 128)
DRAWS = 5
RIDGE = 0.1
FEWEST = 20
"""People in either half of the site."""

NOT_ASKED = "Not computed: it fits many remedies. Ask for it with --repair."
WORDS: Mapping[str, str] = {
    "none": "as it is",
    "label shift": "probabilities for the estimated frequencies",
    "alignment": "embeddings aligned in mean and covariance",
    "temperature": "one temperature",
    "platt": "a logistic curve for each label",
    "thresholds": "thresholds chosen anew",
    "linear probe": "a linear probe on the reference and the site",
}
Score = Callable[[FloatArray], Scores]


@dataclass(frozen=True)
class Outcome:
    """What a remedy is worth on the site's held-out patients; `value`s are means over draws of the labelled images.

    Attributes:
        remedy: of `WORDS`.
        n_images: images labelled at the site; 0 needs none.
        labels_used: known labels among them.
        n_draws: different sets of them.
        metrics: `auroc`, `balanced_accuracy` and `brier`, means over labels; the interval is over held-out patients of
            the first draw.
        brier_gain: by how much the Brier score falls against `none`, paired; above 0 is better.
        lowest, highest: of the Brier gain over the draws.
    """

    remedy: str
    n_images: int
    labels_used: int
    n_draws: int
    metrics: Mapping[str, Estimate]
    brier_gain: Estimate
    lowest: float
    highest: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            **vars(self),
            "words": WORDS[self.remedy],
            "metrics": {name: estimate.to_json() for name, estimate in self.metrics.items()},
            "brier_gain": self.brier_gain.to_json(),
        }


@dataclass(frozen=True)
class Repair:
    """Every remedy by labels spent.

    Attributes:
        outcomes: `none` first.
        labels: those that are measured.
        n_pool, n_held_out: people that labels are drawn from, and that results are of.
        seconds: it took.
    """

    outcomes: tuple[Outcome, ...]
    labels: tuple[str, ...]
    n_pool: int
    n_held_out: int
    seconds: float

    @property
    def sentence(self) -> str:
        """The remedy that gains most, and what it costs."""
        gains = [outcome for outcome in self.outcomes if outcome.remedy != "none" and outcome.brier_gain.low > 0]
        if not gains:
            return "No remedy tried is shown to help on patients that it was not fitted on."
        best = max(gains, key=lambda outcome: outcome.brier_gain.value)
        cheap = min(gains, key=lambda outcome: (outcome.n_images, -outcome.brier_gain.value))
        before = self.outcomes[0].metrics["brier"].value
        text = f"{_capital(WORDS[best.remedy])}{_cost(best)} lowers the Brier score by {best.brier_gain.value:.3f}"
        text += f" from {before:.3f}"
        if cheap is not best:
            text += f"; {WORDS[cheap.remedy]}{_cost(cheap)} by {cheap.brier_gain.value:.3f}"
        order = self.outcomes[0].metrics["auroc"].value
        ranked = max(self.outcomes, key=lambda outcome: outcome.metrics["auroc"].value)
        better = ranked.metrics["auroc"].value
        if better - order > 0.02:
            text += (
                f". Mean AUROC rises from {order:.2f} to at best {better:.2f} ({WORDS[ranked.remedy]}{_cost(ranked)})"
            )
        return text + "."

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "sentence": self.sentence,
            "labels": list(self.labels),
            "n_pool": self.n_pool,
            "n_held_out": self.n_held_out,
            "outcomes": [outcome.to_json() for outcome in self.outcomes],
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True, eq=False)
class _Bench:
    """What remedies are fitted and measured on: columns of the labels measured, the pool and the held-out patients."""

    inputs: AuditInputs
    deployed: Deployed
    score: Score
    columns: list[int]
    pool: Side
    held_out: Side

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.inputs.labels[k] for k in self.columns)


Answer = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""Probabilities and calls of the held-out images, (n, L) each."""


def examine_repair(inputs: AuditInputs, score: Score, *, sizes: tuple[int, ...] = SIZES) -> Repair:
    """Return what remedies are worth.

    Args:
        inputs: of the audit.
        score: from vectors before normalisation to the model's scores of the audited labels.
        sizes: images labelled at the site; those above the pool are left out.

    Raises:
        InputError: no labels at the site or the reference, no probabilities, or too few people.
    """
    import time

    started = time.perf_counter()
    if inputs.deployed is None or inputs.deployed.calibrator is None or inputs.site.scores is None:
        raise InputError("The model as it is needs labels at the reference, and prompts that give probabilities.")
    rng = inputs.rng("repair")
    pool_rows = halves(inputs.site.groups, inputs.site.targets, rng)
    pool, held_out = inputs.site.rows(pool_rows), inputs.site.rows(~pool_rows)
    columns = [k for k in known_columns(held_out) if np.isfinite(inputs.deployed.cuts[k])]
    if not columns or min(people(pool.groups), people(held_out.groups)) < FEWEST:
        raise InputError("The site has too few people, or no label known of ten with and ten without it in each half.")
    bench = _Bench(inputs, inputs.deployed, score, columns, pool, held_out)
    base = _as_it_is(bench)
    outcomes = [_outcome(bench, "none", 0, [base], base, [0])]
    for remedy, free in (("label shift", _label_shift), ("alignment", _alignment)):
        outcomes.append(_outcome(bench, remedy, 0, [free(bench)], base, [0]))
    known = np.flatnonzero(~np.isnan(pool.targets[:, columns]).all(axis=1))
    for n in [size for size in sizes if size < len(known)] + [len(known)]:
        drawn = [np.sort(rng.choice(known, n, replace=False)) for _ in range(DRAWS if n < len(known) else 1)]
        used = [int((~np.isnan(pool.targets[rows][:, columns])).sum()) for rows in drawn]
        for remedy, fit in _FITTED.items():
            answers = [fit(bench, rows) for rows in drawn]
            outcomes.append(_outcome(bench, remedy, n, answers, base, used))
    seconds = time.perf_counter() - started
    return Repair(tuple(outcomes), bench.labels, people(pool.groups), people(held_out.groups), seconds)


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


def _unit(vectors: FloatArray) -> NDArray[np.float64]:
    rows = np.asarray(vectors, dtype=np.float64)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _covariance(rows: FloatArray) -> NDArray[np.float64]:
    found = np.atleast_2d(np.cov(rows, rowvar=False))
    return np.asarray(found + RIDGE * np.trace(found) / len(found) * np.eye(len(found)))


def _power(matrix: FloatArray, power: float) -> NDArray[np.float64]:
    values, axes = np.linalg.eigh(matrix)
    return np.asarray((axes * np.maximum(values, 1e-12) ** power) @ axes.T)


def _as_it_is(bench: _Bench) -> Answer:
    return _deployed(bench, bench.held_out.scores)


def _deployed(bench: _Bench, scores: Scores | None) -> Answer:
    if scores is None or bench.deployed.calibrator is None:
        raise InputError("Nothing was scored.")
    p = bench.deployed.calibrator.apply(scores).values[:, bench.columns].astype(np.float64)
    return p, bench.deployed.called(scores)[:, bench.columns]


def _label_shift(bench: _Bench) -> Answer:
    """Move each label's probabilities to the prevalence that the unlabelled pool shows (odds ratio of prevalences)."""
    p, called = _as_it_is(bench)
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
        if not np.isfinite(found.em.value):
            continue
        before, now = (min(max(share, 1e-3), 1 - 1e-3) for share in (found.reference.value, found.em.value))
        odds = p[:, place] / np.maximum(1 - p[:, place], 1e-12) * (now / (1 - now)) / (before / (1 - before))
        moved[:, place] = odds / (1 + odds)
    return moved, called


def _alignment(bench: _Bench) -> Answer:
    vectors = aligned(bench.held_out.vectors, bench.pool.vectors, bench.inputs.whole_reference.vectors)
    return _deployed(bench, bench.score(vectors))


def _calibrated(method: str) -> Callable[[_Bench, NDArray[np.int64]], Answer]:
    def fit(bench: _Bench, rows: NDArray[np.int64]) -> Answer:
        p, called = _as_it_is(bench)
        pool, _ = _deployed(bench, bench.pool.scores)
        names = bench.labels
        before = Scores(pool[rows], "probability", names, tuple(map(str, rows)))
        after = Scores(p, "probability", names, tuple(map(str, range(len(p)))))
        fitted = fit_post_hoc(method, before, bench.pool.targets[rows][:, bench.columns], task="multi_label", source="")
        return fitted.apply(after).values.astype(np.float64), called

    return fit


def _thresholds(bench: _Bench, rows: NDArray[np.int64]) -> Answer:
    p, called = _as_it_is(bench)
    if bench.pool.scores is None or bench.held_out.scores is None:
        return p, called
    mine = bench.pool.scores.rows(rows)
    chosen = choose_thresholds(mine, bench.pool.targets[rows], rule="youden", source="the site")
    limits = [chosen.values.get(label, bench.deployed.thresholds.values.get(label, np.inf)) for label in bench.labels]
    return p, np.asarray(bench.held_out.scores.values[:, bench.columns] >= np.array(limits))


def _linear_probe(bench: _Bench, rows: NDArray[np.int64]) -> Answer:
    reference, pool = bench.inputs.whole_reference, bench.pool
    vectors = np.concatenate([reference.vectors, pool.vectors[rows]])
    targets = np.concatenate([reference.targets, pool.targets[rows]])[:, bench.columns]
    groups = np.concatenate([reference.groups, pool.groups[rows]])
    probe = fit_linear_probe(vectors, targets, groups, bench.labels, strengths=(1e-4, 1e-3, 1e-2, 1e-1), n_folds=3)
    logits = probe.head.logits(bench.held_out.vectors)
    inner = Scores(probe.out_of_fold, "logit", bench.labels, tuple(map(str, range(len(targets)))))
    limits = choose_thresholds(inner, targets, rule="youden", source="out of fold").values
    p = 1 / (1 + np.exp(-np.clip(logits, -50, 50)))
    return p, logits >= np.array([limits.get(label, np.inf) for label in bench.labels])


_FITTED: dict[str, Callable[[_Bench, NDArray[np.int64]], Answer]] = {
    "temperature": _calibrated("temperature"),
    "platt": _calibrated("platt"),
    "thresholds": _thresholds,
    "linear probe": _linear_probe,
}


def _outcome(bench: _Bench, remedy: str, n: int, answers: list[Answer], base: Answer, used: list[int]) -> Outcome:
    y, groups = bench.held_out.targets[:, bench.columns], bench.held_out.groups
    before = _brier(base[0], y)
    gains = [before - _brier(p, y) for p, _ in answers]
    each = [float(np.nanmean(gain)) for gain in gains]
    p, called = answers[0]
    ranks = [macro_rank_estimates(y, p, groups)["auroc"].value for p, _ in answers]
    decided = [_balanced(y, c, groups) for _, c in answers]
    auroc = macro_rank_estimates(y, p, groups)["auroc"]
    first = _balanced(y, called, groups)
    return Outcome(
        remedy,
        n,
        int(np.mean(used)),
        len(answers),
        {
            "auroc": _moved(auroc, float(np.mean(ranks))),
            "balanced_accuracy": _moved(first, float(np.mean([d.value for d in decided]))),
            "brier": paired_mean(np.mean([_brier(q, y) for q, _ in answers], axis=0), groups),
        },
        paired_mean(np.mean(gains, axis=0), groups),
        min(each),
        max(each),
    )


def _brier(p: FloatArray, y: FloatArray) -> NDArray[np.float64]:
    """Return each image's squared error, averaged over its known labels, (n,); NaN without any."""
    known = ~np.isnan(y)
    terms = np.zeros(y.shape)
    terms[known] = brier_terms(p[known], y[known])
    counts = known.sum(axis=1)
    return np.asarray(np.where(counts > 0, terms.sum(axis=1) / np.maximum(counts, 1), np.nan))


def _balanced(y: FloatArray, called: NDArray[np.bool_], groups: NDArray[np.int64]) -> Estimate:
    found = macro_threshold_estimates(y, called, groups)
    recall, specificity = found["recall"], found["specificity"]
    low, high = ((getattr(recall, end) + getattr(specificity, end)) / 2 for end in ("low", "high"))
    value = (recall.value + specificity.value) / 2
    method = "mean of recall and specificity, bounds averaged (wide)"
    return Estimate(value, low, high, recall.n, recall.n_groups, method, recall.reliable and specificity.reliable)


def _moved(estimate: Estimate, value: float) -> Estimate:
    """Return the interval of one draw put around the mean over draws."""
    by = value - estimate.value
    low, high = max(0.0, estimate.low + by), min(1.0, estimate.high + by)
    return Estimate(value, low, high, estimate.n, estimate.n_groups, estimate.method, estimate.reliable)


def _cost(outcome: Outcome) -> str:
    return f" ({outcome.n_images} labelled images)" if outcome.n_images else " (no labels)"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
