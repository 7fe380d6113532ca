"""A monitor's state: killed at any byte it goes on to the same file, and a batch and a patient count once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medvlm_probe.audit.monitor import Arrivals, Monitor, batch_record, new_header, residuals
from medvlm_probe.audit.monitor_files import StateFile, append_record, read_state, start_state
from medvlm_probe.errors import InputError, StoreError

SETTINGS = {"alpha": 0.05, "seed": 0, "model": "f"}


def arrivals(name: str, n: int, *, shift: float = 0.0, labelled: bool = True, images: int = 1) -> Arrivals:
    rng = np.random.default_rng([len(name), *name.encode()])
    scores = rng.standard_normal(n * images) + shift
    p, y = rng.random((n * images, 2)), rng.integers(0, 2, (n * images, 2)).astype(float)
    y[:] = y if labelled else np.nan
    return Arrivals(
        tuple(f"{name} image {k}" for k in range(n * images)),
        tuple(f"{name} patient {k // images}" for k in range(n * images)),
        {"outliers": scores, "calibration": residuals(p, y)},
        y,
    )


def counted(state: StateFile, batch: Arrivals, **options: Any) -> StateFile:
    return append_record(state, batch_record(Monitor(state.records), batch, **options))


@pytest.fixture
def state(tmp_path: Path) -> StateFile:
    return start_state(tmp_path / "state.jsonl", new_header(arrivals("reference", 60), SETTINGS))


def test_killed_at_any_byte_it_goes_on_to_the_same_file(state: StateFile) -> None:
    after_first = counted(state, arrivals("first", 8))
    counted(after_first, arrivals("second", 6))
    whole = state.path.read_bytes()
    for end in range(after_first.n_bytes, len(whole), 97):
        state.path.write_bytes(whole[:end])
        again = read_state(state.path)
        assert again.records == after_first.records
        counted(again, arrivals("second", 6))
        assert state.path.read_bytes() == whole
    assert Monitor(read_state(state.path).records).to_json()["batches"] == 2


def test_a_damaged_file_is_refused(state: StateFile) -> None:
    held = counted(counted(state, arrivals("first", 8)), arrivals("second", 6))
    data = bytearray(state.path.read_bytes())
    data[state.n_bytes + 200] ^= 1
    state.path.write_bytes(bytes(data))
    with pytest.raises(InputError, match="Line 2"):
        read_state(state.path)
    state.path.write_bytes(b"no state\n")
    with pytest.raises(InputError, match="no state"):
        read_state(state.path)
    with pytest.raises(StoreError, match="--state"):
        read_state(state.path.with_name("nowhere"))
    assert len(held.records) == 3


def test_two_processes_do_not_count_at_once(state: StateFile) -> None:
    counted(state, arrivals("first", 8))
    with pytest.raises(StoreError, match="Another process"):
        counted(state, arrivals("second", 8))
    assert len(read_state(state.path).records) == 2


def test_batches_and_patients_count_once(state: StateFile) -> None:
    first = arrivals("first", 8, images=3)
    held = counted(state, first)
    monitored = Monitor(held.records)
    assert len(monitored.paths["outliers"]) == 8
    order = np.random.default_rng(0).permutation(24)
    shuffled = Arrivals(
        tuple(first.keys[i] for i in order),
        tuple(first.patients[i] for i in order),
        {test: scores[order] for test, scores in first.scores.items()},
        first.targets[order],
    )
    assert monitored.counted(shuffled.digest)
    with pytest.raises(InputError, match="counted before"):
        batch_record(monitored, shuffled)
    # The order of a batch's rows makes no difference, unless it is said to be that of arrival.
    header = Monitor(state.records)
    assert batch_record(header, shuffled) == batch_record(header, first)
    in_order = batch_record(header, first, in_order=True)["tests"]["outliers"]["patients"]
    assert in_order == list(dict.fromkeys(first.patients))
    some = first.take(np.arange(24) < 12)
    assert batch_record(monitored, some)["tests"]["outliers"]["scores"] == []
    reference = arrivals("reference", 60)
    assert batch_record(monitored, reference)["tests"]["outliers"]["patients"] == []


def test_labels_that_arrive_later_count_for_calibration_alone(state: StateFile) -> None:
    held = counted(state, arrivals("first", 8, labelled=False))
    record = batch_record(Monitor(held.records), arrivals("first", 8))
    assert record["tests"]["outliers"]["scores"] == []
    assert len(record["tests"]["calibration"]["scores"]) == 8


def test_one_batch_or_many_end_alike_in_order(state: StateFile) -> None:
    whole = arrivals("stream", 30, shift=1.0)
    once = Monitor((*state.records, batch_record(Monitor(state.records), whole, in_order=True)))
    records = state.records
    for part in range(3):
        rows = np.arange(30) // 10 == part
        records = (*records, batch_record(Monitor(records), whole.take(rows), in_order=True))
    many = Monitor(records)
    for test in ("outliers", "calibration"):
        assert many.paths[test].tolist() == once.paths[test].tolist()
        assert many.capital(test).log_peak == once.capital(test).log_peak


def test_an_alarm_is_given_and_stays(state: StateFile) -> None:
    assert not Monitor(state.records).alarm
    held = counted(state, arrivals("changed", 60, shift=3.0))
    found = Monitor(held.records)
    assert found.alarm
    after = found.alarm_after("outliers")
    assert after is not None
    assert after < 30
    assert found.to_json()["tests"][0]["alarm_after"] == after
    assert Monitor(counted(held, arrivals("quiet", 40)).records).alarm


def test_residuals_are_means_over_known_labels() -> None:
    p = np.array([[0.9, 0.2], [0.5, 0.5], [0.3, 0.1]])
    y = np.array([[1, 0], [np.nan, np.nan], [np.nan, 1]])
    np.testing.assert_allclose(residuals(p, y), [0.05, np.nan, -0.9])
