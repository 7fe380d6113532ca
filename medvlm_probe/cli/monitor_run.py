"""The steps of `monitor`: a reference settles scores, a batch gets them, and what is printed and written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.audit.cohort_sketch import patient_names, score_cohort
from medvlm_probe.audit.monitor import TESTS, Arrivals, Monitor, new_header, one_image_each, pseudonyms, residuals
from medvlm_probe.cli.distance_files import write_figure
from medvlm_probe.cli.output import Output, number
from medvlm_probe.cli.steps import Compute, EmbeddedCohort, embed_cohort
from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.pseudonyms import read_key
from medvlm_probe.errors import InputError
from medvlm_probe.runs import write_csv, write_json
from medvlm_probe.shift.sequential import simulate_delays
from medvlm_probe.shift.sketch_plan import folds_of

if TYPE_CHECKING:
    from medvlm_probe.audit.monitor_triggers import SeenTrigger
    from medvlm_probe.cohort.manifest import UncertaintyPolicy
    from medvlm_probe.shift.sketch import Sketch

SKETCH_SUFFIX = ".sketch"
CHANGES_AT = (0, 250, 1_000)
AFTER_CHANGE = 1_000
WORDS = {"outliers": "Images unlike the reference", "calibration": "Probability less label"}

Score = Callable[[NDArray[np.float32]], NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Reference:
    """What batches are held against: the header of a new state, how outlying an image is, and the labels scored."""

    header: dict[str, Any]
    score: Score
    labels: tuple[str, ...]

    def refuse_other(self, settings: Mapping[str, Any]) -> None:
        """Raise InputError unless a state was made with the same settings."""
        for name, value in self.header["settings"].items():
            if settings.get(name) != value:
                raise InputError(
                    f"The state was made with another {name.replace('_', ' ')}. Give the same options as then, or "
                    "start a new one with another --state."
                )


@dataclass(frozen=True)
class Watch:
    """The options of a call that decide scores and pseudonyms."""

    output: Output
    model: str
    compute: Compute
    prompts: str
    outlier_score: str
    uncertainty: UncertaintyPolicy | None
    pseudonym_key: Path | None

    def reference(self, given: str, split: str | None, *, alpha: float, seed: int) -> Reference:
        """Return what batches are held against: half of the cohort's patients fit the outlier score, and new images
        are ranked among the other half's; or a sketch, which has no scores to be ranked among."""
        settings: dict[str, Any] = {"alpha": alpha, "seed": seed}
        if given.endswith(SKETCH_SUFFIX):
            return self._sketched(Path(given), settings)
        from medvlm_probe.shift.outlier_scores import OutlierInputs, fit_outlier_score

        done = self._embedded(given, split)
        vectors, names = done.embedded.vectors, patient_names(done.cohort, done.embedded.keys)
        fits = folds_of([f"fit {name}" for name in names], 2) == 0
        if not fits.any() or fits.all():
            raise InputError("The reference has too few patients: half of them fit the score, half are ranked among.")
        fitted = fit_outlier_score(self.outlier_score, OutlierInputs(vectors[fits]))

        def score(x: NDArray[np.float32]) -> NDArray[np.float64]:
            return fitted.scores(OutlierInputs(x))

        found = self._arrivals(done, names, score, None)
        settings |= {
            "model": done.model.fingerprint,
            "reference": done.cohort.fingerprint,
            "outlier_score": self.outlier_score,
            "prompts": found.prompts,
            "labels": list(found.labels),
        }
        header = new_header(found.arrivals.take(~fits), settings)
        header["patients"] = sorted(set(found.arrivals.patients))
        return Reference(header, score, found.labels)

    def _sketched(self, path: Path, settings: dict[str, Any]) -> Reference:
        from medvlm_probe.audit.sketch_files import read_sketch
        from medvlm_probe.runs import sha256_file
        from medvlm_probe.shift.sketch_distance import sketch_outlier_scores

        sketch: Sketch = read_sketch(path)
        self.output.warn(
            "A sketch has no scores to rank new images among: changes within the stream are seen, a site that differs "
            "from the start is not. Use 'sketch compare' for that."
        )
        settings |= {
            "model": sketch.plan.fingerprint,
            "reference": sha256_file(path),
            "outlier_score": "mahalanobis of the sketch",
            "prompts": sketch.plan.prompts,
            "labels": list(sketch.plan.labels),
        }
        return Reference(new_header(None, settings), lambda x: sketch_outlier_scores(sketch, x), sketch.plan.labels)

    def arrivals(self, reference: Reference, given: str, split: str | None) -> tuple[Arrivals, dict[str, Any], str]:
        """Return a batch's images with their scores, the facts of `run.json`, and the small print of figures."""
        done = self._embedded(given, split)
        settings = reference.header["settings"]
        names = patient_names(done.cohort, done.embedded.keys)
        found = self._arrivals(done, names, reference.score, reference.labels)
        if (done.model.fingerprint, found.prompts) != (settings["model"], settings["prompts"]):
            raise InputError("The reference was seen with another model or other prompts. Give the same ones.")
        return found.arrivals, done.provenance(), found.note

    def _embedded(self, given: str, split: str | None) -> EmbeddedCohort:
        loaded = load_cohort(given, split=split, uncertainty=self.uncertainty)
        return embed_cohort(self.output, loaded, self.model, self.compute)

    def _arrivals(self, done: EmbeddedCohort, names: list[str], score: Score, labels: tuple[str, ...] | None) -> _Found:
        vectors = done.embedded.vectors
        scored = score_cohort(done.cohort, vectors, done.model, self.prompts, labels)
        key = read_key(self.pseudonym_key)
        arrivals = Arrivals(
            tuple(done.embedded.keys),
            pseudonyms(names, key),
            {"outliers": score(vectors), "calibration": residuals(scored.probabilities, scored.targets)},
            scored.targets,
        )
        return _Found(arrivals, scored.labels, scored.prompts, done.note)


@dataclass(frozen=True, eq=False)
class _Found:
    arrivals: Arrivals
    labels: tuple[str, ...]
    prompts: str
    note: str


def tell_repeats(output: Output, record: Mapping[str, Any]) -> None:
    """Say how many patients of a batch did not count, being the reference's or counted before."""
    repeated = int(record["patients"]) - len(record["tests"]["outliers"]["patients"])
    if repeated:
        output.warn(
            f"{repeated:,} of {record['patients']:,} patients of this batch are the reference's or were counted "
            "before: they do not count again."
        )


def print_state(output: Output, monitored: Monitor) -> None:
    """Print where the tests stand."""
    rows = []
    for test in TESTS:
        after, capital = monitored.alarm_after(test), monitored.capital(test)
        rows.append(
            (
                WORDS[test],
                f"{len(monitored.paths[test]):,}",
                number(capital.log_total / math.log(10), 2),
                number(capital.log_peak / math.log(10), 2),
                "no" if after is None else f"after {after:,}",
            )
        )
    alpha = float(monitored.settings["alpha"])
    output.table(
        f"Batches: {len(monitored.batches):,}. Reference: {len(monitored.records[0]['patients']):,} patients",
        ("Test", "Patients", "log10 capital", "Highest", "Alarm"),
        rows,
        caption=f"An alarm is given at {monitored.line / math.log(10):.2f}; without a change, one is ever given with a "
        f"chance of at most {alpha:g}. A patient counts once.",
    )


def print_triggers(output: Output, triggers: Sequence[SeenTrigger]) -> None:
    """Print the triggers that a monitor can see, and how many need an audit."""
    known = [trigger for trigger in triggers if trigger.met is not None]
    if known:
        output.table(
            "Triggers of the policy",
            ("When", "Then", "Met", "Share now"),
            [
                (
                    trigger.when,
                    trigger.action,
                    "no" if trigger.met_after is None else f"after {trigger.met_after:,} patients",
                    "–" if trigger.value is None else number(trigger.value),
                )
                for trigger in known
            ],
            caption="They may be looked at after every batch: the chance that one is ever met wrongly is at most its "
            "own error rate.",
        )
    if len(known) < len(triggers):
        output.line(f"{len(triggers) - len(known)} more triggers need a new audit: a monitor does not measure them.")


def print_simulation(output: Output, monitored: Monitor, arrivals: Arrivals, seed: int, *, as_json: bool) -> None:
    """Say how soon a change from the reference to these images would be noticed."""
    found = []
    for test in TESTS:
        reference = np.array(monitored.records[0]["reference"][test], dtype=np.float64)
        changed = arrivals.scores[test][one_image_each(arrivals, test, set(), seed)]
        if len(reference) < 4 or not len(changed):
            output.warn(f"{WORDS[test]}: no scores of the reference or of the batch to simulate with.")
            continue
        for change_at in CHANGES_AT:
            delays = simulate_delays(
                reference,
                changed,
                change_at=change_at,
                length=change_at + AFTER_CHANGE,
                alpha=float(monitored.settings["alpha"]),
                rng=np.random.default_rng(seed),
                n_tests=len(TESTS),
            )
            found.append((test, change_at, delays))
    if as_json:
        output.json({"simulation": [{"test": t, "change_at": at, **delays.to_json()} for t, at, delays in found]})
        return

    def patients(value: float) -> str:
        return f"{value:,.0f}" if math.isfinite(value) else f"over {AFTER_CHANGE:,}"

    output.table(
        "Patients until a change to these images is noticed, simulated",
        ("Test", "Change after", "Median", "90 %", "Noticed", "False alarms"),
        [
            (
                WORDS[test],
                f"{at:,}",
                patients(delays.median),
                patients(delays.upper),
                f"{delays.detected:.0%}",
                f"{delays.false_alarms:.1%}",
            )
            for test, at, delays in found
        ],
        caption=f"200 streams drawn from the reference's patients up to the change, then {AFTER_CHANGE:,} from these. "
        "Nothing was counted.",
    )


def write_monitor(folder: Path, monitored: Monitor, result: Mapping[str, Any]) -> list[Path]:
    """Write the path of each test as table and figure, and where it stands as JSON; returns the files written."""
    import pandas as pd

    from medvlm_probe.plots.monitor import monitor_paths

    rows = [
        (test, patient, batch, value / math.log(10))
        for test in TESTS
        for patient, (batch, value) in enumerate(
            (
                (position, value)
                for position, record in enumerate(monitored.batches, start=1)
                for value in record["tests"][test]["log_capital"]
            ),
            start=1,
        )
    ]
    table = pd.DataFrame(rows, columns=["test", "patient", "batch", "log10_capital"])
    write_csv(folder / "monitor.csv", table)
    write_json(folder / "monitor.json", dict(result))
    written = [folder / "monitor.csv", folder / "monitor.json"]
    if not len(table):
        return written
    return written + write_figure(
        folder / "monitor", monitor_paths(table, log10_alarm=monitored.line / math.log(10), note=monitored.note or None)
    )
