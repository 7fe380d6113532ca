"""Two synthetic hospitals: manifests without image files, embeddings and logits drawn from a known model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from medvlm_probe.audit.inputs import AuditInputs, make_inputs
from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.types import Scores

LABELS = ("cardiomegaly", "edema")
PREVALENCE = (0.4, 0.3)
STRENGTH = 2.5
DIMENSIONS = 8


def hospital(
    folder: Path, n: int, seed: int, *, prefix: str = "p", start: int = 1000, **columns: object
) -> tuple[Cohort, np.ndarray]:
    """Return a cohort of n patients with an image each, and its vectors: labels move the first two directions."""
    rng = np.random.default_rng(seed)
    labels = {name: (rng.random(n) < share).astype(int) for name, share in zip(LABELS, PREVALENCE, strict=True)}
    table = pd.DataFrame(
        {
            "image": [f"{prefix}{k}.png" for k in range(n)],
            "patient": [f"{prefix}-{start + k}" for k in range(n)],
            "view": rng.choice(["PA", "AP"], n),
            "sex": rng.choice(["F", "M"], n),
            "age": rng.integers(20, 80, n),
            **labels,
            **columns,
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "manifest.csv", index=False)
    cohort = load_cohort(str(folder / "manifest.csv"))
    vectors = rng.normal(size=(n, DIMENSIONS))
    for k, name in enumerate(LABELS):
        vectors[:, k] += STRENGTH * (2 * table[name].fillna(0).to_numpy(dtype=float) - 1) / 2
    vectors[:, -1] += 12.0  # so that directions, not lengths, carry the labels
    return cohort, vectors.astype(np.float32)


def score(vectors: np.ndarray) -> Scores:
    """Return calibrated logits: each label's own direction, at the strength that the labels were drawn with."""
    values = STRENGTH * np.asarray(vectors, dtype=np.float64)[:, : len(LABELS)]
    offsets = np.log(np.array(PREVALENCE) / (1 - np.array(PREVALENCE)))
    return Scores(values + offsets, "logit", LABELS, tuple(map(str, range(len(values)))))


def inputs_of(
    reference: tuple[Cohort, np.ndarray], site: tuple[Cohort, np.ndarray], *, labels: tuple[str, ...] = LABELS
) -> AuditInputs:
    """Return the audit's inputs with content keys of their own."""
    parts = [
        (cohort, vectors, score(vectors), [f"{side}{row}" for row in range(len(cohort))])
        for side, (cohort, vectors) in (("r", reference), ("s", site))
    ]
    return make_inputs(parts[0], parts[1], labels)
