"""The statements that CalibPrompt makes, and those that its paper leaves out, put to the test on the same images."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from medvlm_probe.metrics.intervals import jackknife_interval
from medvlm_probe.metrics.permutation import holm
from medvlm_probe.metrics.two_way_bootstrap import Difference, two_way_difference
from medvlm_probe.tuning.calibration_sweep_measures import POOLED, Measured, SweepResult
from medvlm_probe.tuning.calibration_sweep_tables import (
    MARGIN,
    alike,
    cosine_table,
    least_groups,
    not_worse_than_cross_entropy,
)
from medvlm_probe.types import Estimate, finite_or_none

Verdict = Literal["holds", "does not hold", "cannot be told"]
SaidBy = Literal["the paper", "not in the paper"]

OURS = "ls+smac+as"
PAPER: SaidBy = "the paper"
ADDED: SaidBy = "not in the paper"

LOWER_ECE: tuple[tuple[str, str, str, SaidBy], ...] = (
    ("LS+SMAC+AS lowers ECE against CE", OURS, "ce", PAPER),
    ("LS+SMAC+AS lowers ECE against LS", OURS, "ls", PAPER),
    ("LS+SMAC+AS lowers ECE against LS+MDCA", OURS, "ls+mdca", PAPER),
    ("LS+SMAC lowers ECE against LS", "ls+smac", "ls", PAPER),
    ("LS+SMAC lowers ECE against LS+MDCA", "ls+smac", "ls+mdca", PAPER),
    ("LS+SMAC+AS lowers ECE against LS+SMAC", OURS, "ls+smac", PAPER),
    ("LS+SMAC+AS lowers ECE against zero-shot", OURS, "zero-shot", ADDED),
    ("LS+SMAC+AS lowers ECE against temperature at the same shots", OURS, "temperature@shots", ADDED),
    ("LS+SMAC+AS lowers ECE against temperature on a whole split", OURS, "temperature@split", ADDED),
    ("LS lowers ECE against CE", "ls", "ce", ADDED),
)
"""Statement, the method that is said to be better, the other, and who says so."""

LEVEL = 0.05

FEWEST_LOSSES = 4
"""The interval of a rank correlation over losses needs one more than three."""

RELIABLE_LOSSES = 10
"""From so many pairs on Bonett and Wright's interval covers as it should."""


@dataclass(frozen=True)
class Claim:
    """A statement, and what the images shown say of it.

    Attributes:
        text: the statement.
        said_by: the paper, or nobody yet.
        difference: what speaks for the statement where it is above `bound`: how much lower ECE is, how much higher
            accuracy is, or a rank correlation.
        bound: 0, or the margin that accuracy may lose.
        p_adjusted: of a difference of ECEs, after Holm's correction over such statements; NaN else.
        verdict: of ECEs `holds` or `does not hold` by the sign where `p_adjusted` is below .05 (and `does not hold` for
            the same prompts); of accuracy by the one-sided 95 % bounds; of a correlation where its interval excludes
            0; else `cannot be told`.
    """

    text: str
    said_by: SaidBy
    difference: Estimate
    bound: float
    p_adjusted: float
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """Return the statement, its numbers and the verdict."""
        return {
            "claim": self.text,
            "said_by": self.said_by,
            "difference": self.difference.to_json(),
            "bound": self.bound,
            "p_adjusted": finite_or_none(self.p_adjusted),
            "verdict": self.verdict,
        }


def study_claims(result: SweepResult) -> tuple[Claim, ...]:
    """Return the statements that the methods of a sweep allow, each tested on its images."""
    return (*_ece_claims(result), *_accuracy_claims(result), *_cosine_claims(result))


def _ece_claims(result: SweepResult) -> list[Claim]:
    found: list[tuple[str, SaidBy, Measured, Measured]] = []
    for text, better, other, said_by in LOWER_ECE:
        one, two = result.named(better), result.named(other)
        if one is not None and two is not None:
            found.append((text, said_by, one, two))
    if not found:
        return []
    same = alike(result)
    differences = [
        _nothing(result)
        if (two.name, one.name) in same or (one.name, two.name) in same
        else _gain(result, one, two, len(found))
        for _, _, one, two in found
    ]
    adjusted = holm(np.array([difference.p_value for difference in differences]))
    return [
        Claim(text, said_by, difference.estimate, 0.0, float(p), _verdict_on_ece(difference, float(p)))
        for (text, said_by, _, _), difference, p in zip(found, differences, adjusted, strict=True)
    ]


def _gain(result: SweepResult, better: Measured, other: Measured, family: int) -> Difference:
    less = other.scopes[POOLED]["ece"].less(better.scopes[POOLED]["ece"])
    return two_way_difference(less, result.n_images, family=family, min_groups=least_groups("ece"))


def _nothing(result: SweepResult) -> Difference:
    """Return the difference of two methods with the same prompts: what is left of it is rounding."""
    return Difference(Estimate(0.0, 0.0, 0.0, result.n_images, result.n_groups, "the same prompts"), 1.0, 0.0)


def _accuracy_claims(result: SweepResult) -> list[Claim]:
    verdict = not_worse_than_cross_entropy(result).get(OURS)
    ours, base = result.named(OURS), result.named("ce")
    if verdict is None or ours is None or base is None:
        return []
    scope, metric = result.main
    more = ours.scopes[scope][metric].less(base.scopes[scope][metric])
    words = "accuracy" if result.single else "mean AUROC"
    verdicts: dict[str, Verdict] = {"pass": "holds", "fail": "does not hold"}
    return [
        Claim(
            f"LS+SMAC+AS keeps CE's {words} to a point",
            PAPER,
            two_way_difference(more, result.n_images, min_groups=least_groups(metric)).estimate,
            -MARGIN,
            math.nan,
            verdicts.get(verdict, "cannot be told"),
        )
    ]


def _cosine_claims(result: SweepResult) -> list[Claim]:
    """Return whether texts that lie closer go with larger ECEs: over losses, and over draws within a loss."""
    table = cosine_table(result)
    table = table[table["method"] != "zero-shot"]
    found = []
    over = _over_losses(table, result.n_images)
    if over is not None:
        n = table["method"].nunique()
        found.append(_correlation_claim(f"Closer texts, larger ECE: over the means of {n} losses", over))
    within = _within_losses(table, result.n_images)
    if within is not None:
        found.append(_correlation_claim("Closer texts, larger ECE: over draws within a loss", within))
    return found


def _correlation_claim(text: str, estimate: Estimate) -> Claim:
    return Claim(text, PAPER, estimate, 0.0, math.nan, _verdict(estimate))


def _over_losses(table: pd.DataFrame, n: int) -> Estimate | None:
    """Return Spearman's correlation over losses with Fisher's interval by Bonett and Wright 2000, Psychometrika 65."""
    means = table.groupby("method", sort=False)[["cosine", "ece"]].mean()
    n_losses = len(means)
    if n_losses < FEWEST_LOSSES:
        return None
    r = _spearman(means["cosine"].to_numpy(), means["ece"].to_numpy())
    reach = 1.959964 * math.sqrt((1 + r**2 / 2) / (n_losses - 3))
    low, high = (math.tanh(_fisher(r) + side * reach) for side in (-1, 1))
    return Estimate(r, low, high, n, n_losses, "Fisher's z over losses", n_losses >= RELIABLE_LOSSES)


def _within_losses(table: pd.DataFrame, n: int) -> Estimate | None:
    """Return the correlation of ranks within each loss, pooled; draws, which losses share, are left out in turn."""
    wide = {name: table.pivot(index="draw", columns="method", values=name).to_numpy() for name in ("cosine", "ece")}
    n_draws = len(wide["ece"])
    if n_draws < FEWEST_LOSSES:
        return None

    def correlation(draws: NDArray[np.intp]) -> float:
        ranks = {name: stats.rankdata(values[draws], axis=0) for name, values in wide.items()}
        middle = {name: (values - values.mean(axis=0)).ravel() for name, values in ranks.items()}
        size = math.sqrt(float((middle["cosine"] ** 2).sum() * (middle["ece"] ** 2).sum()))
        return float(middle["cosine"] @ middle["ece"]) / size if size else math.nan

    everything = np.arange(n_draws)
    without = np.array([correlation(np.delete(everything, draw)) for draw in everything])
    value = correlation(everything)
    found = jackknife_interval(_fisher(value), _fisher(without), n=n, method="jackknife over draws")
    return replace(found, value=value, low=math.tanh(found.low), high=math.tanh(found.high))


def _fisher(r: float | NDArray[np.float64]) -> Any:
    """Return Fisher's z of a correlation, finite at -1 and 1."""
    return np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12))


def _spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1])


def _verdict_on_ece(difference: Difference, p_adjusted: float) -> Verdict:
    value = difference.estimate.value
    if value == 0:
        return "does not hold"
    return "cannot be told" if not p_adjusted < LEVEL else "holds" if value > 0 else "does not hold"


def _verdict(estimate: Estimate) -> Verdict:
    if estimate.low > 0:
        return "holds"
    return "does not hold" if estimate.high < 0 else "cannot be told"
