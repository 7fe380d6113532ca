"""The statements that the radiology study makes or suggests, each put to the test on the same held-out images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.metrics.baselines import NO_FINDING, chance_rows, prior_rows
from medvlm_probe.metrics.intervals import jackknife_interval, paired_mean
from medvlm_probe.metrics.macro import macro_f1_without_groups
from medvlm_probe.metrics.ranking import ranking_rows
from medvlm_probe.metrics.separation_scores import ratio_difference
from medvlm_probe.report.radiology_settings import FINE_TUNED, LINEAR_PROBE, ZERO_SHOT, Setting
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray

Verdict = Literal["holds", "does not hold", "cannot be told"]

NAMES = {ZERO_SHOT: "Zero-shot", LINEAR_PROBE: "A linear probe", FINE_TUNED: "Fine-tuning"}


@dataclass(frozen=True)
class Claim:
    """A statement that the study makes or that its table suggests, and what the images shown say of it.

    Attributes:
        text: the statement.
        difference: of the two sides on the same images; above 0 speaks for the statement.
        verdict: `holds` or `does not hold` where the 95 % interval excludes 0, else `cannot be told`.
    """

    text: str
    difference: Estimate
    verdict: Verdict


def study_claims(
    settings: Sequence[Setting], targets: FloatArray, groups: IntArray, prior: Mapping[str, float]
) -> tuple[Claim, ...]:
    """Return the claims that these settings allow.

    Args:
        settings: zero-shot and any others, on the same images and labels.
        targets: 1, 0 or NaN, (n, L).
        groups: (n,).
        prior: label frequencies elsewhere.
    """
    by_name = {setting.name: setting for setting in settings}
    labels = settings[0].scores.labels
    lrap = {name: ranking_rows(targets, s.scores.values).average_precision for name, s in by_name.items()}
    by_prior = prior_rows(targets, np.array([prior.get(label, 0.0) for label in labels])).average_precision
    decided = {name: _decided(setting) for name, setting in by_name.items()}
    everything = np.ones(targets.shape, dtype=bool)
    only_normal = np.broadcast_to(np.array([label == NO_FINDING for label in labels]), targets.shape)

    chance = chance_rows(targets).average_precision
    found = [_claim("Zero-shot ranks labels better than chance (LRAP)", lrap[ZERO_SHOT] - chance, groups)]
    for name in by_name:
        text = f"{NAMES[name]} ranks labels better than their frequencies do (LRAP)"
        found.append(_claim(text, lrap[name] - by_prior, groups))
    for better, other in ((LINEAR_PROBE, ZERO_SHOT), (FINE_TUNED, LINEAR_PROBE)):
        if better in by_name and other in by_name:
            text = f"{NAMES[better]} ranks labels better than {_within(NAMES[other])} (LRAP)"
            found.append(_claim(text, lrap[better] - lrap[other], groups))
    for name in by_name:
        text = f"{NAMES[name]} at chosen thresholds beats predicting every label (macro-F1)"
        found.append(_f1_claim(text, targets, decided[name], everything, groups))
    if only_normal.any():
        for name in by_name:
            text = f'{NAMES[name]} gets more images wholly right than "No finding" always'
            found.append(_claim(text, _exact(targets, decided[name]) - _exact(targets, only_normal), groups))
    if FINE_TUNED in by_name:
        apart = ratio_difference(by_name[FINE_TUNED].vectors, by_name[ZERO_SHOT].vectors, targets, groups)
        found.append(Claim("Fine-tuning moves labels farther apart (ratio of distances)", apart, _verdict(apart)))
    return tuple(found)


def _claim(text: str, differences: NDArray[np.float64], groups: IntArray) -> Claim:
    """Return a claim on the mean of paired differences, one an image, NaN where undefined."""
    estimate = paired_mean(differences, groups)
    return Claim(text, estimate, _verdict(estimate))


def _f1_claim(text: str, targets: FloatArray, ours: BoolArray, theirs: BoolArray, groups: IntArray) -> Claim:
    values, without = zip(*(macro_f1_without_groups(targets, p, groups) for p in (ours, theirs)), strict=True)
    estimate = jackknife_interval(values[0] - values[1], without[0] - without[1], n=len(targets))
    return Claim(text, estimate, _verdict(estimate))


def _verdict(estimate: Estimate) -> Verdict:
    if estimate.low > 0:
        return "holds"
    return "does not hold" if estimate.high < 0 else "cannot be told"


def _within(name: str) -> str:
    """Return a name as it stands within a sentence."""
    return name[0].lower() + name[1:]


def _decided(setting: Setting) -> NDArray[np.bool_]:
    limits = np.array([setting.thresholds.values.get(label, math.inf) for label in setting.scores.labels])
    return np.asarray(setting.scores.values >= limits)


def _exact(targets: FloatArray, decided: BoolArray) -> NDArray[np.float64]:
    known = ~np.isnan(targets).any(axis=1)
    return np.where(known, ((targets == 1) == decided).all(axis=1).astype(np.float64), np.nan)
