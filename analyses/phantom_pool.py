"""Pools of phantoms seen through phantom-clip, from which simulations draw patients: each image is embedded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from medvlm_probe.cohort.acquisition import acquire, parse_steps
from medvlm_probe.cohort.acquisition_source import acquired
from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.phantom import draw, sample_patient
from medvlm_probe.embeddings.extract import embed
from medvlm_probe.models.zoo import load_model
from medvlm_probe.types import Scores
from medvlm_probe.zero_shot.predict import resolve_task, zero_shot_scores

BATCH = 25

SEED = 7000
N_REFERENCE, N_ELSEWHERE = 1_400, 600
SCANNERS = ("portable", "low_dose", "community")
ALTERED = ("gamma/v1@1.2", "gamma/v1@1.4", "gamma/v1@2")


@dataclass(frozen=True, eq=False)
class PhantomPool:
    """Images of one site with balanced prevalences.

    Attributes:
        cohort: whose images they are.
        vectors: before normalisation, (n, 128).
        groups: patients, (n,).
        scores: zero-shot logits of all labels.
        targets: 1 or 0, (n, 14).
    """

    cohort: Cohort
    vectors: np.ndarray
    groups: np.ndarray
    scores: Scores
    targets: np.ndarray


def seen_phantoms(
    site: str, seed: int, n_patients: int, findings: Sequence[str], transforms: Sequence[str] = ()
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return one image a patient through phantom-clip: findings, bool (n, F), and embeddings (n, d) by transform.

    Under "" stand those of the plain images; prevalences are balanced.
    """
    model = load_model("phantom-clip")

    @torch.inference_mode()
    def embedded(images: list[Image.Image]) -> np.ndarray:
        return model.encode_images(torch.stack([model.preprocess(image) for image in images])).numpy()

    labels: list[list[bool]] = []
    found: dict[str, list[np.ndarray]] = {steps: [] for steps in ("", *transforms)}
    for start in range(0, n_patients, BATCH):
        rows = range(start, min(start + BATCH, n_patients))
        cases = [sample_patient(site, seed, row, "balanced")[0] for row in rows]
        labels += [[name in {finding.kind for finding in case.findings} for name in findings] for case in cases]
        images = [Image.fromarray(draw(case).pixels) for case in cases]
        found[""].append(embedded(images))
        for steps in transforms:
            moved = [acquire(image, parse_steps(steps), str(row)) for row, image in zip(rows, images, strict=True)]
            found[steps].append(embedded(moved))
    return np.array(labels), {steps: np.concatenate(parts) for steps, parts in found.items()}


def phantom_pool(what: str) -> PhantomPool:
    """Return a site's images (`portable`), or other patients of the reference under a transform (`gamma/v1@1.4`).

    Embeddings are kept in the package's cache, so a second call computes nothing.
    """
    altered = what in ALTERED
    site, seed = ("reference", SEED + 1) if altered else (what, SEED)
    n = N_REFERENCE if what == "reference" else N_ELSEWHERE
    cohort = load_cohort(f"phantom:sites={site},n={n},prevalence=balanced,seed={seed}")
    model = load_model("phantom-clip", device="cpu")
    embedded = embed(acquired(cohort, what) if altered else cohort, model, precision="float32", workers=1)
    used = cohort.select(embedded.rows)
    scores = zero_shot_scores(embedded.vectors, used, model, resolve_task(used, "radiology", None, None))
    return PhantomPool(used, embedded.vectors, used.groups(), scores, used.targets(list(scores.labels)))
