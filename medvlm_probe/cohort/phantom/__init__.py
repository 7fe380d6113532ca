"""Synthetic chest radiographs with known anatomy, findings, masks, reports. Not medicine: a truth to test against."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np

from medvlm_probe.cohort.phantom.case import SEVERITIES, Case, Finding, Phantom, case_digest
from medvlm_probe.cohort.phantom.prevalence import PREVALENCES
from medvlm_probe.cohort.phantom.render import draw
from medvlm_probe.cohort.phantom.reports import vocabulary
from medvlm_probe.cohort.phantom.sampling import sample_cases, sample_patient
from medvlm_probe.cohort.phantom.sites import SITES, Site

__all__ = [
    "GENERATOR_VERSION",
    "PREVALENCES",
    "SEVERITIES",
    "SITES",
    "Case",
    "Finding",
    "Phantom",
    "Site",
    "case_key",
    "draw",
    "generator_digest",
    "sample_cases",
    "sample_patient",
    "vocabulary",
]

GENERATOR_VERSION = "phantom/v1"
"""The generator's name in recipes; `generator_digest` tells any two states of its sources apart."""


@lru_cache(maxsize=1)
def generator_digest() -> str:
    """Return the sha256 of this package's sources and numpy's major.minor version: what the drawing depends on."""
    digest = hashlib.sha256(".".join(np.__version__.split(".")[:2]).encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def case_key(case: Case, size: int = 224) -> str:
    """Return the sha256 that stands for an image's content without drawing it: generator, case and size."""
    return case_digest(case, size, generator_digest())
