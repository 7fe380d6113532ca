"""The command fine-tune on a few phantoms, through the real entry point."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Run

COHORT = ("--cohort", "phantom:n=24,sites=reference,prevalence=balanced", "--quiet")
QUICK = ("--train-from", "calib", "--split", "test", "--epochs", "1", "--last-blocks", "1", "--rate", "1e-3")


@pytest.mark.slow
def test_a_tuned_model_is_a_model(run: Run) -> None:
    done = run("fine-tune", *COHORT, *QUICK, "--json", "--out", "out")
    assert done.code == 0, done.err
    assert len(done.json["labels"]) == 14
    training = done.json["training"]
    assert [log["epoch"] for log in training["epochs"]] == [0, 1]
    assert training["roles"]["n_validation"] > 0
    assert training["settings"]["last_blocks"] == 1
    assert done.json["seen_in_training"]["n_seen"] == 0
    assert not Path("out/checkpoint").exists()
    embedded = run("embed", *COHORT, "--model", "local:out/model", "--json")
    assert embedded.code == 0, embedded.err
    assert embedded.json["seen_in_training"]["status"] == "seen in training"
    probe = run(
        "linear-probe", *COHORT, "--model", "local:out/model", "--train-from", "calib", "--split", "test", "--json"
    )
    assert probe.code == 0, probe.err
    again = run("fine-tune", *COHORT, *QUICK, "--json", "--out", "out")
    assert again.json["labels"] == done.json["labels"]
    other = run("fine-tune", *COHORT, *QUICK, "--seed", "3", "--out", "out")
    assert other.code == 2
    assert "another folder to --out" in other.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "--train-from; nothing is chosen for you"),
        (("--train-from", "calib", "--threshold-from", "calib"), "cannot come from the training images"),
        (("--train-from", "calib", "--rate", "-1"), "rates above 0"),
        (("--train-from", "calib", "--validation-from", "calib"), "cannot train and decide"),
    ],
)
def test_wrong_use_is_told(options: tuple[str, ...], words: str, run: Run) -> None:
    done = run("fine-tune", *COHORT, *options)
    assert done.code == 2
    assert words in done.err
