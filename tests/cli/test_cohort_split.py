"""`cohort split`, `--splits`, and what is said of training data, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from .conftest import Run

COHORT = "phantom:sites=reference+portable,n=20,size=64"


def test_a_split_file_is_made_and_used(run: Run, tmp_path: Path) -> None:
    made = run(
        "cohort", "split", COHORT, "--parts", "fit=.5,val=.25,audit=.25", "--seed", 3, "--out", "s.json", "--json"
    )
    assert made.code == 0, made.err
    content = json.loads((tmp_path / "s.json").read_text())
    assert made.json["assignments_sha256"] == content["assignments_sha256"]
    assert {part: len(keys) for part, keys in content["assignments"].items()} == {
        row["part"]: row["n_images"] for row in made.json["counts"] if row["trait"] == "images"
    }
    checked = run("cohort", "check", COHORT, "--splits", "s.json", "--table-only", "--json")
    assert checked.code == 0, checked.err
    assert {row["split"] for row in checked.json["sites"]} == {"fit", "val", "audit"}
    assert checked.json["groups_in_splits"] == []
    done = run("embed", "--cohort", COHORT, "--splits", "s.json", "--split", "audit", "--json", "--out", "run")
    assert done.code == 0, done.err
    assert done.json["images"] == len(content["assignments"]["audit"])
    config = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    assert len(config["splits"]) == 64


def test_the_table_shows_each_label_in_each_part(run: Run) -> None:
    done = run("cohort", "split", COHORT)
    assert done.code == 0, done.err
    assert "train (70.0%)" in done.out
    assert "site: portable" in done.out
    assert "cardiomegaly at" not in done.out
    assert "splits.json" in done.err


def test_one_split_alone(run: Run, tmp_path: Path) -> None:
    done = run("cohort", "split", COHORT, "--split", "test", "--parts", "val=.5,audit=.5", "--out", "s.json")
    assert done.code == 0, done.err
    assert set(json.loads((tmp_path / "s.json").read_text())["assignments"]) == {"val", "audit", "calib"}


def test_wrong_parts_and_files(run: Run, tmp_path: Path) -> None:
    for arguments, words in (
        (("cohort", "split", COHORT, "--parts", "train=.7"), "shares add up to 1"),
        (("cohort", "check", COHORT, "--splits", "gone.json"), "There is no split file"),
        (("embed-dist", "--cohort", COHORT, "--splits", "other.json"), "40 of 40 images are not in the split file"),
    ):
        run("cohort", "split", "phantom:sites=reference,n=20,seed=9,size=64", "--out", "other.json")
        done = run(*arguments)
        assert done.code == 2
        assert words in done.err


def test_every_result_says_what_was_seen_in_training(run: Run, tmp_path: Path) -> None:
    embedded = run("embed", "--cohort", COHORT, "--json", "--out", "a")
    seen = embedded.json["seen_in_training"]
    assert (seen["status"], seen["n_images"], seen["n_same_source"]) == ("same source", 40, 20)
    assert json.loads((tmp_path / "a" / "run.json").read_text())["seen_in_training"] == seen
    assert seen["reason"] in run("embed", "--cohort", COHORT, "--out", "a").out
    trained = "phantom:sites=reference,n=20,seed=1000,prevalence=balanced,size=64"
    quick = ("embed-dist", "--cohort", trained, "--label", "cardiomegaly", "--permutations", 99, "--out", "b")
    done = run(*quick)
    assert done.code == 0, done.err
    assert "Seen in training: phantom-clip was trained on 20 of 20 images" in done.out
    found = run(*quick, "--json").json["seen_in_training"]
    for name in ("run.json", "embed-dist.json"):
        assert json.loads((tmp_path / "b" / name).read_text())["seen_in_training"] == found
    assert "20 of 20 images were seen in training" in (tmp_path / "b" / "distances.svg").read_text()


def test_a_folder_without_a_declaration(run: Run, shared_dir: Path, tmp_path: Path) -> None:
    source = shared_dir / "real_cxr" / "multisite"
    table = pd.read_csv(source / "manifest.csv", dtype=str)
    table[table["site"] == "guangzhou"].head(4).to_csv(tmp_path / "m.csv", index=False)
    (tmp_path / "images").mkdir()
    for name in pd.read_csv(tmp_path / "m.csv")["image"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((source / name).read_bytes())
    done = run("embed", "--cohort", "m.csv", "--model", f"local:{shared_dir / 'models' / 'dino-minilm'}", "--json")
    assert done.code == 0, done.err
    assert done.json["seen_in_training"]["status"] == "training data not declared"
