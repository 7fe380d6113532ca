"""What reading labels again is worth: a probe on labels of which k % were corrected, held against readers' labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.audit.repair_bench import Answer, Bench
from medvlm_probe.audit.repair_outcomes import Outcome, adjusted, outcome_of
from medvlm_probe.audit.repair_probes import fitted_answer
from medvlm_probe.errors import InputError

SHARES = (0.0, 0.1, 0.25, 0.5, 1.0)
MISSED, FALSE = 0.2, 0.05
"""Simulated noise: so many present findings are labelled absent, so many absent ones present."""

MOST = 400
FEWEST = 10
DRAWS = 5

SIMULATED = (
    "Simulated, because no labels read twice were given (--reread): the site's labels are taken as right, "
    f"{100 * MISSED:.0f} % of the present and {100 * FALSE:.0f} % of the absent ones are turned around at random for "
    "training, and k % of the images set right again. Real errors are not random, and may cost more."
)
REAL = (
    "These labels were given twice: the probe learns from the manifest's with k % of the images read again, and is "
    "measured on the second reading."
)


@dataclass(frozen=True)
class Reread:
    """A probe on the site's labels alone, by the share of them that was read again.

    Attributes:
        outcomes: the gain of each share over none, `n_images` counting images read again.
        labels: measured.
        n_taught: images that it learns from.
        wrong: share of known labels of these that differ between the readings.
        simulated: the noise is ours.
    """

    outcomes: tuple[Outcome, ...]
    labels: tuple[str, ...]
    n_taught: int
    wrong: float
    simulated: bool

    @property
    def sentence(self) -> str:
        """What it brings."""
        best = [outcome for outcome in self.outcomes if outcome.helps]
        whole = self.outcomes[-1]
        share = f"{100 * self.wrong:.0f} % of the labels of {self.n_taught:,} images"
        text = f"In a simulation with {share} wrong: " if self.simulated else f"{share} changed when read again: "
        if best:
            first = min(best, key=lambda outcome: outcome.n_images)
            gain = first.brier_gain
            text += (
                f"reading {first.n_images:,} images again lowers a site probe's Brier score by {gain.value:.3f} "
                f"({gain.low:.3f} to {gain.high:.3f}), all of them by {whole.brier_gain.value:.3f}."
            )
        else:
            text += "no share read again is shown to help."
        return text

    @property
    def how(self) -> str:
        """Where the second reading comes from."""
        return SIMULATED if self.simulated else REAL

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "sentence": self.sentence,
            "how": self.how,
            "labels": list(self.labels),
            "n_taught": self.n_taught,
            "changed": self.wrong,
            "simulated": self.simulated,
            "outcomes": [outcome.to_json() for outcome in self.outcomes],
        }


def examine_rereading(bench: Bench, *, shares: Sequence[float] = SHARES) -> Reread:
    """Return what reading labels again is worth.

    Images read again are the first of a random order, others in each draw; larger shares hold the smaller ones.

    Args:
        bench: what is measured on; `tools.reread` where labels were read twice.
        shares: of the training images, ascending from 0.

    Raises:
        InputError: too few labels were read again in either half.
    """
    rng = bench.inputs.rng("reread")
    again = bench.tools.reread
    if again is None:
        columns, truth_all, right_all = bench.columns, bench.held_out.targets, bench.pool.targets
    else:
        truth_all, right_all = again[~bench.in_pool], again[bench.in_pool]
        columns = [k for k in range(len(bench.inputs.labels)) if _enough(truth_all[:, k], right_all[:, k])]
        if not columns:
            raise InputError(f"No label read again has {FEWEST} images with and without it in each half of the site.")
    names = tuple(bench.inputs.labels[k] for k in columns)
    shown = ~np.isnan(truth_all[:, columns]).all(axis=1)
    truth, groups = truth_all[shown][:, columns], bench.held_out.groups[shown]
    vectors = bench.held_out.vectors[shown]
    rows = np.flatnonzero(~np.isnan(right_all[:, columns]).all(axis=1))
    rows = np.sort(rng.permutation(rows)[:MOST])
    right = right_all[rows][:, columns]
    answers: dict[float, list[Answer]] = {share: [] for share in shares}
    wrong = []
    for _ in range(DRAWS):
        first = _noisy(right, rng) if again is None else _first_reading(bench, rows, columns, right)
        wrong.append(float((first != right)[~np.isnan(right) & ~np.isnan(first)].mean()))
        order = rng.permutation(len(rows))
        for share in shares:
            corrected = first.copy()
            kept = order[: round(share * len(rows))]
            corrected[kept] = right[kept]
            taught = bench.pool.vectors[rows], corrected, bench.pool.groups[rows]
            answers[share].append(fitted_answer(taught, names, vectors)[1])
    known = int((~np.isnan(right)).sum())
    outcomes = [
        outcome_of(
            (f"re-read {share:.0%}", f"{share:.0%} of the labels read again", "reread"),
            round(share * len(rows)),
            [known],
            answers[share],
            answers[shares[0]],
            truth,
            groups,
        )
        for share in shares
    ]
    return Reread(adjusted(outcomes), names, len(rows), float(np.mean(wrong)), again is None)


def _enough(*parts: NDArray[np.float64]) -> bool:
    return all(min((part == 1).sum(), (part == 0).sum()) >= FEWEST for part in parts)


def _noisy(right: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    turned = rng.random(right.shape) < np.where(right == 1, MISSED, FALSE)
    return np.asarray(np.where(np.isnan(right), np.nan, np.where(turned, 1 - right, right)))


def _first_reading(
    bench: Bench, rows: NDArray[np.int64], columns: list[int], right: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the manifest's labels where there is a second reading: with the same images known in either."""
    given = bench.pool.targets[rows][:, columns]
    return np.asarray(np.where(np.isnan(right), np.nan, given))
