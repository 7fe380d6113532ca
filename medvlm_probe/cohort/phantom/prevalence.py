"""Which labels occur together: a joint distribution over label sets with exactly the prevalences asked for."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.cohort.phantom.sites import site_named
from medvlm_probe.errors import unknown_name

FINDING_LABELS: tuple[str, ...] = CHEXPERT_LABELS[1:]

OPACITY_CHILDREN: tuple[str, ...] = ("lung_lesion", "edema", "consolidation", "pneumonia", "atelectasis")
"""Labels below `lung_opacity` in CheXpert's hierarchy: each of them implies it."""

PREVALENCES: dict[str, dict[str, float]] = {
    # IU-Xray: counts of positives over 3,818 frontal images.
    "iu_xray": {
        "no_finding": 2400 / 3818,
        "enlarged_cardiomediastinum": 70 / 3818,
        "cardiomegaly": 415 / 3818,
        "lung_opacity": 516 / 3818,
        "lung_lesion": 165 / 3818,
        "edema": 49 / 3818,
        "consolidation": 31 / 3818,
        "pneumonia": 68 / 3818,
        "atelectasis": 216 / 3818,
        "pneumothorax": 20 / 3818,
        "pleural_effusion": 129 / 3818,
        "pleural_other": 56 / 3818,
        "fracture": 127 / 3818,
        "support_devices": 163 / 3818,
    },
    "balanced": {
        "no_finding": 0.18,
        "enlarged_cardiomediastinum": 0.17,
        "cardiomegaly": 0.22,
        "lung_opacity": 0.45,
        "lung_lesion": 0.15,
        "edema": 0.15,
        "consolidation": 0.16,
        "pneumonia": 0.17,
        "atelectasis": 0.17,
        "pneumothorax": 0.15,
        "pleural_effusion": 0.21,
        "pleural_other": 0.15,
        "fracture": 0.16,
        "support_devices": 0.25,
    },
}

# Log odds ratios between pairs of findings: what the wards see together.
_AFFINITIES: dict[tuple[str, str], float] = {
    ("cardiomegaly", "edema"): 1.6,
    ("cardiomegaly", "pleural_effusion"): 1.0,
    ("edema", "pleural_effusion"): 1.5,
    ("pneumonia", "consolidation"): 2.2,
    ("atelectasis", "pleural_effusion"): 1.3,
    ("support_devices", "edema"): 1.0,
    ("support_devices", "pleural_effusion"): 0.9,
    ("support_devices", "pneumothorax"): 1.1,
    ("support_devices", "atelectasis"): 0.8,
    ("support_devices", "cardiomegaly"): 0.8,
    ("fracture", "pneumothorax"): 1.2,
    ("enlarged_cardiomediastinum", "cardiomegaly"): 0.8,
    ("pneumonia", "pleural_effusion"): 0.8,
    ("pleural_other", "pleural_effusion"): 0.4,
    ("fracture", "pleural_other"): 0.4,
    ("atelectasis", "pneumothorax"): 0.5,
}

# Factor of the affinities, and cost in log odds of (labels beside the parent opacity, beyond two) squared. Where most
# images are normal, few hold several findings: pairs then need a stronger bond, and crowds must be held off.
_BOND_AND_CROWDING = {"iu_xray": (3.5, 4.0), "balanced": (1.0, 0.0)}

_MOST_LABELS = 6  # beyond this nothing on the film can be told apart


def _label_sets() -> NDArray[np.int8]:
    """Return the allowed sets of the 13 findings, (n, 13): at most six, every child with its parent opacity."""
    codes = np.arange(2 ** len(FINDING_LABELS))[:, None]
    sets: NDArray[np.int8] = ((codes >> np.arange(len(FINDING_LABELS))) & 1).astype(np.int8)
    children = sets[:, [FINDING_LABELS.index(name) for name in OPACITY_CHILDREN]].any(axis=1)
    parent = sets[:, FINDING_LABELS.index("lung_opacity")] == 1
    allowed: NDArray[np.int8] = sets[(parent | ~children) & (sets.sum(axis=1) <= _MOST_LABELS)]
    return allowed


@lru_cache(maxsize=16)
def label_distribution(site: str, prevalence: str) -> tuple[tuple[tuple[int, ...], ...], NDArray[np.float64]]:
    """Return the label sets (14 columns in CheXpert's order) and their cumulative probabilities.

    The pairwise table of affinities is tilted exponentially, the least change (in relative entropy) that meets every
    prevalence at the reference site; other sites multiply the odds of single labels. Balanced cohorts have the same
    prevalences at every site.

    Raises:
        UnknownNameError: an unknown site or prevalence.
    """
    if prevalence not in PREVALENCES:
        raise unknown_name("prevalence", prevalence, PREVALENCES)
    odds = site_named(site).odds
    sets = _label_sets()
    features = np.column_stack([sets.sum(axis=1) == 0, sets]).astype(float)
    target = np.array([PREVALENCES[prevalence][name] for name in CHEXPERT_LABELS])
    bond, crowding = _BOND_AND_CROWDING[prevalence]
    beside_parent = sets.sum(axis=1) - sets[:, FINDING_LABELS.index("lung_opacity")]
    log_weight = -crowding * np.maximum(0.0, beside_parent - 2.0) ** 2
    for (first, second), strength in _AFFINITIES.items():
        log_weight += bond * strength * sets[:, FINDING_LABELS.index(first)] * sets[:, FINDING_LABELS.index(second)]
    tilt = np.zeros(len(target))
    for _ in range(200):  # Newton's method on the convex dual, damped: the steps are in log odds
        weight = np.exp(log_weight + features @ tilt)
        weight /= weight.sum()
        mean = weight @ features
        if np.abs(mean - target).max() < 1e-10:
            break
        hessian = (features * weight[:, None]).T @ features - np.outer(mean, mean)
        tilt += np.clip(np.linalg.solve(hessian + 1e-9 * np.eye(len(target)), target - mean), -1.0, 1.0)
    if prevalence == "iu_xray":
        weight = weight * np.exp(features @ np.log([odds.get(name, 1.0) for name in CHEXPERT_LABELS]))
        weight /= weight.sum()
    return tuple(map(tuple, features.astype(int).tolist())), np.cumsum(weight)
