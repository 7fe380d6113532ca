"""Watching a site: batches of images in, the capital of two sequential tests out, and the state that carries them.

`outliers` bets on how unlike the reference images are; `calibration` on the mean of probability less label, where
labels have arrived. Each gets half of alpha. A patient counts once in each test, with one image, chosen by a hash.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.runs import sha256_json
from medvlm_probe.shift.sequential import Capital, log_alarm, online_p_values, uniforms_of
from medvlm_probe.types import BoolArray, FloatArray

FORMAT = 1
TESTS = ("outliers", "calibration")
HEADER, BATCH = "monitor", "batch"


@dataclass(frozen=True, eq=False)
class Arrivals:
    """Images as a monitor sees them, a row each.

    Attributes:
        keys: their content keys, (n,).
        patients: pseudonyms, (n,).
        scores: of each test, NaN where an image has none, (n,).
        targets: labels, which make a batch another one when they arrive later, (n, L).
    """

    keys: tuple[str, ...]
    patients: tuple[str, ...]
    scores: Mapping[str, NDArray[np.float64]]
    targets: NDArray[np.float64]

    @property
    def digest(self) -> str:
        """The sha256 of the images' keys and labels, in any order."""
        rows = zip(self.keys, np.nan_to_num(self.targets, nan=-1).tolist(), strict=True)
        return sha256_json(sorted([key, *labels] for key, labels in rows))

    def take(self, rows: BoolArray) -> Arrivals:
        """Return some of the images, by mask (n,)."""
        kept = np.flatnonzero(rows).tolist()
        return Arrivals(
            tuple(self.keys[i] for i in kept),
            tuple(self.patients[i] for i in kept),
            {test: values[rows] for test, values in self.scores.items()},
            self.targets[rows],
        )


@dataclass(frozen=True, eq=False)
class Monitor:
    """What the records of a state come to: settings in the header, then a record a batch."""

    records: tuple[Mapping[str, Any], ...]

    def __post_init__(self) -> None:
        header: object = self.records[0]
        if not isinstance(header, Mapping) or header.get("kind") != HEADER or header.get("format") != FORMAT:
            raise InputError("The state is of another kind or version. Start a new one with another --state.")
        try:
            self._check()
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
            raise InputError("The state holds values that no monitor wrote. Restore the file from a copy.") from error

    def _check(self) -> None:
        """Read every value that a batch and a result use, so that a damaged one is found here."""
        int(self.settings["seed"]), len(self.note), self.to_json()
        texts = [*self.records[0]["patients"], *(batch["batch"] for batch in self.batches)]
        for test in TESTS:
            if not np.isfinite(np.asarray(self.seen(test), dtype=np.float64).reshape(-1)).all():
                raise ValueError("a score is no number")
            texts += self.patients(test)
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("a name is no text")

    @property
    def settings(self) -> Mapping[str, Any]:
        """What was settled when the state was made."""
        settings: Mapping[str, Any] = self.records[0]["settings"]
        return settings

    @property
    def batches(self) -> tuple[Mapping[str, Any], ...]:
        """The records of batches, in order."""
        return self.records[1:]

    @property
    def line(self) -> float:
        """The logarithm of the capital at which a test gives the alarm."""
        return log_alarm(float(self.settings["alpha"]), len(TESTS))

    def counted(self, digest: str) -> bool:
        """Return whether a batch of this content was counted before."""
        return any(batch["batch"] == digest for batch in self.batches)

    def seen(self, test: str) -> list[float]:
        """Return all scores of a test so far, the reference's first."""
        found = [float(score) for score in self.records[0]["reference"][test]]
        for batch in self.batches:
            found += batch["tests"][test]["scores"]
        return found

    def patients(self, test: str) -> set[str]:
        """Return the pseudonyms that a test takes no more: the reference's, and those that counted."""
        found = set(self.records[0]["patients"])
        for batch in self.batches:
            found |= set(batch["tests"][test]["patients"])
        return found

    def capital(self, test: str) -> Capital:
        """Return a test's capital after the last batch."""
        if not self.batches:
            return Capital.start()
        return Capital.from_json(self.batches[-1]["tests"][test]["capital"])

    @cached_property
    def paths(self) -> dict[str, NDArray[np.float64]]:
        """The logarithm of each test's capital after each patient."""
        return {
            test: np.array([x for batch in self.batches for x in batch["tests"][test]["log_capital"]], dtype=np.float64)
            for test in TESTS
        }

    def alarm_after(self, test: str) -> int | None:
        """Return after how many patients a test gave its alarm, or None."""
        above = np.flatnonzero(self.paths[test] >= self.line)
        return int(above[0]) + 1 if len(above) else None

    @property
    def note(self) -> str:
        """What figures must say of the images that were counted."""
        return " ".join(dict.fromkeys(str(batch["note"]) for batch in self.batches if batch["note"]))

    @property
    def alarm(self) -> bool:
        """Whether any test has ever given the alarm."""
        return any(self.alarm_after(test) is not None for test in TESTS)

    def to_json(self) -> dict[str, Any]:
        """Return where the tests stand, as JSON values; no score and no pseudonym."""
        return {
            "alarm": self.alarm,
            "alpha": self.settings["alpha"],
            "log10_alarm": self.line / math.log(10),
            "reference_patients": len(self.records[0]["patients"]),
            "batches": len(self.batches),
            "tests": [
                {
                    "test": test,
                    "patients": len(self.paths[test]),
                    "log10_capital": self.capital(test).log_total / math.log(10),
                    "log10_peak": self.capital(test).log_peak / math.log(10),
                    "alarm_after": self.alarm_after(test),
                }
                for test in TESTS
            ],
        }


def new_header(reference: Arrivals | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first record: settings, and the scores that the first patients are ranked among.

    Args:
        reference: images of the reference that fitted no score; None where there are none (a sketch).
        settings: `alpha`, `seed` and what else has to be the same at each batch, JSON values without names or paths.
    """
    log_alarm(float(settings["alpha"]), len(TESTS))
    scores: dict[str, list[float]] = {test: [] for test in TESTS}
    if reference is not None:
        for test in TESTS:
            rows = one_image_each(reference, test, set(), int(settings["seed"]))
            scores[test] = reference.scores[test][rows].tolist()
    return {
        "kind": HEADER,
        "format": FORMAT,
        "settings": dict(settings),
        "reference": scores,
        "patients": sorted(set(reference.patients)) if reference is not None else [],
    }


def batch_record(monitor: Monitor, batch: Arrivals, *, in_order: bool = False, note: str = "") -> dict[str, Any]:
    """Return the record of a batch that the state has not counted yet.

    Args:
        monitor: the state.
        batch: its images.
        in_order: the rows are in the order of arrival. If not, they are taken in an order of their hashes: a list
            sorted by anything (findings, devices) is not exchangeable, and would raise the alarm for that alone.
        note: what figures must say of these images.

    Raises:
        InputError: the batch was counted before.
    """
    digest = batch.digest
    if monitor.counted(digest):
        raise InputError("This batch was counted before.")
    seed = int(monitor.settings["seed"])
    tests = {}
    for test in TESTS:
        rows = one_image_each(batch, test, monitor.patients(test), seed)
        keys = [batch.keys[row] for row in rows]
        if not in_order:
            shuffled = np.argsort(uniforms_of([f"order {key}" for key in keys], seed), kind="stable")
            rows, keys = rows[shuffled], [keys[i] for i in shuffled]
        scores = batch.scores[test][rows]
        p = online_p_values(scores, monitor.seen(test), uniforms_of([f"{test} {key}" for key in keys], seed))
        capital, path = monitor.capital(test).after(p)
        tests[test] = {
            "patients": [batch.patients[row] for row in rows],
            "scores": scores.tolist(),
            "log_capital": path.tolist(),
            "capital": capital.to_json(),
        }
    return {
        "kind": BATCH,
        "batch": digest,
        "images": len(batch.keys),
        "patients": len(set(batch.patients)),
        "note": note,
        "tests": tests,
    }


def one_image_each(arrivals: Arrivals, test: str, left_out: set[str], seed: int) -> NDArray[np.int64]:
    """Return the row of one image of each patient that has a score in a test, in the rows' order.

    Args:
        arrivals: images.
        test: of `TESTS`.
        left_out: pseudonyms that are not taken.
        seed: of the hash that chooses among a patient's images.
    """
    ranks = uniforms_of([f"image {key}" for key in arrivals.keys], seed)
    chosen: dict[str, int] = {}
    for row in np.argsort(ranks, kind="stable").tolist():
        patient = arrivals.patients[row]
        if patient not in left_out and patient not in chosen and math.isfinite(arrivals.scores[test][row]):
            chosen[patient] = row
    return np.array(sorted(chosen.values()), dtype=np.int64)


def residuals(probabilities: FloatArray, targets: FloatArray) -> NDArray[np.float64]:
    """Return each image's mean of probability less label over its known labels, in [-1, 1], NaN without any, (n,).

    Above 0 the model says more than came true.
    """
    known = ~np.isnan(targets)
    counts = known.sum(axis=1)
    sums = np.where(known, probabilities - np.nan_to_num(targets), 0.0).sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def pseudonyms(names: Sequence[str], key: Any) -> tuple[str, ...]:
    """Return each patient's pseudonym under a `PseudonymKey`."""
    return tuple(key.pseudonym("monitor", name) for name in names)
