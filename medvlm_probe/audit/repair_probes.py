"""Repairs by a linear probe: on the reference's labels, the site's, both, and with other acquisitions of the images."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.audit.repair_bench import Answer, Bench, Draws, logistic
from medvlm_probe.errors import InputError
from medvlm_probe.tuning.heads import LinearHead
from medvlm_probe.tuning.linear_probe import LinearProbe, fit_linear_probe
from medvlm_probe.types import FloatArray, IntArray, Scores
from medvlm_probe.zero_shot.thresholds import choose_thresholds

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
N_FOLDS = 3
COPIES = 4
"""Transformed copies of each image of the reference that was transformed, each of another transform."""

Taught = tuple[FloatArray, FloatArray, IntArray]
"""Vectors (n, D), labels (n, L), groups (n,)."""


def reference_alone(bench: Bench, draws: Draws) -> list[Answer]:
    """Fit on the reference's labels."""
    return [_answer(bench, [_reference(bench)])]


def site_alone(bench: Bench, draws: Draws) -> list[Answer]:
    """Fit on the site's labels."""
    return [_answer(bench, [_site(bench, rows)]) for rows in draws]


def reference_and_site(bench: Bench, draws: Draws) -> list[Answer]:
    """Fit on both, each image counting once."""
    return [_answer(bench, [_reference(bench), _site(bench, rows)]) for rows in draws]


def augmented_reference(bench: Bench, draws: Draws) -> list[Answer]:
    """Fit on the reference and transformed copies of its images."""
    return [_answer(bench, [_reference(bench), _copies(bench)])]


def augmented_both(bench: Bench, draws: Draws) -> list[Answer]:
    """Fit on both and transformed copies of the reference's images: no label more."""
    return [_answer(bench, [_reference(bench), _copies(bench), _site(bench, rows)]) for rows in draws]


def probe_on(bench: Bench, rows: NDArray[np.int64]) -> tuple[LinearProbe, FloatArray, FloatArray]:
    """Return the probe on the reference and these rows of the pool, and the vectors and labels that it learned from."""
    parts = [_reference(bench), _site(bench, rows)]
    vectors, targets, groups = (np.concatenate(part) for part in zip(*parts, strict=True))
    return _fit(vectors, targets, groups, bench.labels), vectors, targets


def fitted_answer(
    taught: Taught, labels: tuple[str, ...], shown: FloatArray, *, n_folds: int = N_FOLDS
) -> tuple[LinearHead, Answer]:
    """Return a probe and what it says of other vectors; thresholds come from its out-of-fold logits (Youden).

    Args:
        taught: what it learns from.
        labels: L names.
        shown: vectors before normalisation, (m, D).
        n_folds: of the choice of its strength.
    """
    probe = _fit(*taught, labels, n_folds)
    logits = probe.head.logits(shown)
    inner = Scores(probe.out_of_fold, "logit", labels, tuple(map(str, range(len(taught[0])))))
    limits = choose_thresholds(inner, taught[1], rule="youden", source="out of fold").values
    called = logits >= np.array([limits.get(label, np.inf) for label in labels])
    return probe.head, Answer(logistic(logits), np.asarray(called))


def seconds_of_a_probe(bench: Bench) -> float:
    """Return what one fit on the reference takes here."""
    started = time.perf_counter()
    _fit(*_reference(bench), bench.labels)
    return time.perf_counter() - started


def _answer(bench: Bench, parts: list[Taught]) -> Answer:
    vectors, targets, groups = (np.concatenate(part) for part in zip(*parts, strict=True))
    return fitted_answer((vectors, targets, groups), bench.labels, bench.held_out.vectors)[1]


def _fit(
    vectors: FloatArray, targets: FloatArray, groups: IntArray, labels: tuple[str, ...], n_folds: int = N_FOLDS
) -> LinearProbe:
    return fit_linear_probe(vectors, targets, groups, labels, strengths=STRENGTHS, n_folds=n_folds)


def _reference(bench: Bench) -> Taught:
    reference = bench.inputs.whole_reference
    return reference.vectors, reference.targets[:, bench.columns], reference.groups


def _site(bench: Bench, rows: NDArray[np.int64]) -> Taught:
    kept = np.sort(rows)
    return bench.pool.vectors[kept], bench.taught[kept], bench.pool.groups[kept]


def _copies(bench: Bench) -> Taught:
    """Return copies of the reference's images under transforms drawn for each, with its labels and patient."""
    if bench.tools.augmented is None:
        raise InputError("Transformed images of the reference are needed.")
    if "copies" not in bench.shared:
        found = bench.tools.augmented()
        reference = bench.inputs.whole_reference
        place = {name: row for row, name in enumerate(reference.cohort.table["image"].astype(str))}
        of = np.array([place[name] for name in found.cohort.table["image"].astype(str)])
        stacked = np.stack(list(found.transformed.values()))
        rng = bench.inputs.rng("repair copies")
        n = min(COPIES, len(stacked))
        chosen = np.stack([rng.choice(len(stacked), n, replace=False) for _ in of], axis=1)
        vectors = stacked[chosen, np.arange(len(of))].reshape(n * len(of), -1)
        rows = np.tile(of, n)
        bench.shared["copies"] = vectors, reference.targets[rows][:, bench.columns], reference.groups[rows]
    copies: Taught = bench.shared["copies"]
    return copies
