"""`monitor` from the command line: batches counted once, a changed site noticed, and nobody named."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from medvlm_probe.cohort.catalog import load_cohort

from .conftest import Run

REFERENCE = "phantom:sites=reference,n=50,seed=7,size=64"
CHANGED = "phantom:sites=low_dose,n=30,seed=7,size=64"


@pytest.fixture
def options(tmp_path: Path) -> tuple[object, ...]:
    return ("--state", "site.jsonl", "--reference", REFERENCE, "--alpha", 0.4, "--pseudonym-key", tmp_path / "key")


def test_batches_in_alarm_out(run: Run, options: tuple[object, ...], tmp_path: Path) -> None:
    assert "--batch" in run("monitor", *options).err
    simulated = run("monitor", *options, "--batch", CHANGED, "--simulate", "--json")
    assert simulated.code == 0, simulated.err
    assert {row["test"] for row in simulated.json["simulation"]} == {"outliers", "calibration"}
    assert not (tmp_path / "site.jsonl").exists()
    again = run("monitor", *options, "--batch", REFERENCE, "--json")
    assert again.code == 0, again.err
    assert again.json["tests"][0]["patients"] == 0
    assert "count again" in again.err
    changed = run("monitor", *options, "--batch", CHANGED, "--json", "--out", "run")
    assert changed.json["counted"]
    assert changed.json["tests"][0]["patients"] > 12
    assert changed.json["alarm"], changed.json
    triggers = {trigger["when"]: trigger for trigger in changed.json["triggers"]}
    assert triggers["alarm by outliers"]["met"] == (changed.json["tests"][0]["alarm_after"] is not None)
    assert triggers["overconfidence above this audit's"]["met"] is None
    state = (tmp_path / "site.jsonl").read_bytes()
    twice = run("monitor", *options, "--batch", CHANGED, "--json")
    assert not twice.json["counted"]
    assert (tmp_path / "site.jsonl").read_bytes() == state
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "monitor.csv",
        "monitor.json",
        "monitor.svg",
        "monitor.png",
        "run.json",
    }
    table = pd.read_csv(tmp_path / "run" / "monitor.csv")
    assert table.groupby("test")["log10_capital"].max().max() == pytest.approx(
        max(test["log10_peak"] for test in changed.json["tests"])
    )
    printed = run("monitor", "--state", "site.jsonl")
    assert "Alarm" in printed.out
    assert "need a new audit" in printed.out
    names = {name for cohort in (REFERENCE, CHANGED) for name in load_cohort(cohort).table["patient"]}
    for content in (state, *(path.read_bytes() for path in (tmp_path / "run").iterdir())):
        assert not [name for name in names if name.encode() in content]
        assert str(tmp_path).encode() not in content
    other = run("monitor", *options, "--alpha", 0.01, "--batch", CHANGED)
    assert other.code == 2
    assert "alpha" in other.err


def test_a_sketch_as_reference(run: Run, tmp_path: Path) -> None:
    assert run("sketch", "--cohort", REFERENCE, "--features", 64, "--out", "ref.sketch").code == 0
    done = run(
        "monitor", "--reference", "ref.sketch", "--batch", CHANGED, "--pseudonym-key", tmp_path / "key", "--json"
    )
    assert done.code == 0, done.err
    assert done.json["reference_patients"] == 0
    assert done.json["tests"][0]["patients"] > 0
