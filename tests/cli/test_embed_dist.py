"""The main job from the command line, on phantoms."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from medvlm_probe.cohort.catalog import load_cohort

from .conftest import Run

COHORT = "phantom:prevalence=balanced,sites=reference+portable,n=30"
ESTIMATE = {"value", "low", "high", "n", "n_groups", "method"}
TEST = {"statistic", "p_value", "p_adjusted"}
LABEL_KEYS = {
    "label",
    "n_positive",
    "n_negative",
    "n_unknown",
    "n_groups",
    "intra_positive",
    "intra_negative",
    "inter",
    "ratio",
    "energy_distance",
}


def quick(*more: object) -> list[object]:
    return ["embed-dist", "--cohort", COHORT, "--permutations", 199, *more]


def results(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every result; `run.json` has times."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "run.json"}


def test_table_files_and_sentence(run: Run, tmp_path: Path) -> None:
    done = run(*quick("--label", "cardiomegaly", "--out", "out"))
    assert done.code == 0, done.err
    assert "Cardiomegaly" in done.out
    assert "at portable" in done.out
    assert "not medicine" in done.out
    names = set(results(tmp_path / "out"))
    assert {"distances.csv", "histograms.csv", "crowding.csv", "embed-dist.json", "distances.svg"} <= names
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["images"]["given"] == record["images"]["used"] == 60
    assert record["model"]["name"] == "phantom-clip"
    assert record["config"]["cohort"] == COHORT


def test_json_is_alone_on_stdout_and_follows_the_contract(run: Run) -> None:
    done = run(*quick("--label", "cardiomegaly", "--label", "Pleural Effusion", "--json"))
    assert done.code == 0, done.err
    found = done.json
    assert [entry["label"] for entry in found["labels"]] == ["cardiomegaly", "pleural_effusion"]
    assert [entry["site"] for entry in found["sites"]] == ["portable", "reference"]
    for entry in found["labels"] + [entry for site in found["sites"] for entry in site["labels"]]:
        assert set(entry) >= LABEL_KEYS
        assert set(entry["inter"]) == ESTIMATE
        assert set(entry["energy_distance"]) == TEST
        assert entry["n_positive"] + entry["n_negative"] + entry["n_unknown"] in (30, 60)
    assert "NaN" not in done.out


def test_numbers_equal_a_brute_force_loop(run: Run) -> None:
    done = run(*quick("--label", "support_devices", "--json"))
    exported = run("export", "--cohort", COHORT, "--format", "npy", "--out", "vectors.npy")
    assert exported.code == 0, exported.err
    vectors = np.load("vectors.npy").astype(float)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cohort = load_cohort(COHORT)
    label, groups = cohort.targets(["support_devices"])[:, 0], cohort.groups()
    sums: dict[tuple[float, float], list[float]] = {}
    for i in range(len(vectors)):
        for j in range(i):
            if groups[i] != groups[j]:
                pair = (max(label[i], label[j]), min(label[i], label[j]))
                sums.setdefault(pair, []).append(float(np.linalg.norm(vectors[i] - vectors[j])))
    entry = done.json["labels"][0]
    assert entry["intra_positive"]["value"] == pytest.approx(np.mean(sums[1, 1]), abs=1e-5)
    assert entry["intra_negative"]["value"] == pytest.approx(np.mean(sums[0, 0]), abs=1e-5)
    assert entry["inter"]["value"] == pytest.approx(np.mean(sums[1, 0]), abs=1e-5)


def test_a_rerun_gives_the_same_bytes_from_the_cache(run: Run, tmp_path: Path) -> None:
    first = run(*quick("--label", "edema", "--by", "site", "--out", "a"))
    second = run(*quick("--label", "edema", "--by", "site", "--out", "b"))
    assert first.code == second.code == 0
    assert results(tmp_path / "a") == results(tmp_path / "b")
    assert json.loads((tmp_path / "b" / "run.json").read_text())["images"]["computed_now"] == 0


def test_by_site_compares_with_the_reference(run: Run, tmp_path: Path) -> None:
    done = run(*quick("--label", "cardiomegaly", "--by", "site", "--reference", "portable", "--out", "out", "--json"))
    assert done.code == 0, done.err
    assert done.json["reference"] == "portable"
    site = next(entry for entry in done.json["sites"] if entry["site"] == "reference")
    compared = site["cross_site"][0]
    difference = compared["to_positives"]["value"] - compared["to_negatives"]["value"]
    assert compared["difference"]["value"] == pytest.approx(difference)
    assert (tmp_path / "out" / "cross_site.png").stat().st_size > 10_000
    assert (tmp_path / "out" / "ratio_by_site.svg").exists()


def test_legacy_adds_the_published_definition(run: Run) -> None:
    done = run(*quick("--label", "cardiomegaly", "--legacy", "--json"))
    legacy: dict[str, Any] = done.json["legacy"]
    assert legacy["ratio"] == pytest.approx(legacy["inter"] / legacy["intra"])
    assert run(*quick("--label", "cardiomegaly", "--json")).json["legacy"] is None


def test_raw_space_is_on_another_scale(run: Run) -> None:
    raw = run(*quick("--label", "cardiomegaly", "--space", "raw", "--json")).json
    unit = run(*quick("--label", "cardiomegaly", "--json")).json
    assert raw["space"] == "raw"
    assert unit["labels"][0]["inter"]["value"] <= 2 < math.inf
    assert raw["labels"][0]["inter"]["value"] != unit["labels"][0]["inter"]["value"]


def test_tables_are_tidy(run: Run, tmp_path: Path) -> None:
    run(*quick("--label", "cardiomegaly", "--out", "out"))
    table = pd.read_csv(tmp_path / "out" / "distances.csv", keep_default_na=False)
    assert not table.duplicated(["site", "label", "quantity"]).any()
    assert set(table["site"]) == {"", "reference", "portable"}
    histogram = pd.read_csv(tmp_path / "out" / "histograms.csv")
    width = histogram["right"] - histogram["left"]
    area = (histogram["density"] * width).groupby(histogram["kind"]).sum()
    assert area.to_numpy() == pytest.approx(1, abs=1e-6)
    crowding = pd.read_csv(tmp_path / "out" / "crowding.csv")
    assert len(crowding) == 14 * 14


@pytest.mark.parametrize("values", [[1], [1, 1], [0, 1], ["", ""], [1, 0, 1]], ids=str)
def test_tiny_cohorts_end_well(run: Run, tmp_path: Path, values: list[object]) -> None:
    n = len(values)
    assert run("cohort", "export", f"phantom:sites=reference,n={n}", "--out", "files").code == 0
    table = pd.read_csv("files/manifest.csv", dtype=str)[["image"]].assign(edema=values)
    table.to_csv("files/tiny.csv", index=False)
    done = run("embed-dist", "--cohort", "files/tiny.csv", "--permutations", 99, "--label", "edema", "--json")
    assert done.code == 0, done.err
    entry = done.json["labels"][0]
    assert entry["n_positive"] == values.count(1)
    assert entry["n_unknown"] == values.count("")
    assert entry["intra_positive"]["value"] is None or values.count(1) > 1


def test_a_cohort_without_labels_is_refused(run: Run, tmp_path: Path) -> None:
    assert run("cohort", "export", "phantom:sites=reference,n=2", "--out", "files").code == 0
    pd.read_csv("files/manifest.csv", dtype=str)[["image"]].to_csv("files/bare.csv", index=False)
    done = run("embed-dist", "--cohort", "files/bare.csv")
    assert done.code == 2
    assert "no labels" in done.err


def test_quiet_prints_results_only(run: Run) -> None:
    done = run(*quick("--label", "cardiomegaly", "--quiet"))
    assert done.err == ""
    assert "Cardiomegaly" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--label", "cardiomegally"], "Did you mean cardiomegaly"),
        (["--model", "biomedclop"], "Did you mean biomedclip"),
        (["--cohort", "nothing.csv"], "nothing.csv"),
        (["--cohort", "fantom"], "Did you mean phantom"),
        (["--split", "tset"], "Did you mean test"),
        (["--reference", "portabel", "--by", "site"], "Did you mean portable"),
        (["--cohort", "phantom:sites=reference,n=9", "--reference", "reference"], "at least two sites"),
        (["--batch-size", "0"], "at least 1"),
        (["--max-failures", "120%"], "share"),
        (["--device", "gpu"], "cuda"),
        (["--precision", "half"], "bfloat16"),
        (["--permutations", "5"], "99"),
    ],
)
def test_errors_say_what_to_do(run: Run, arguments: list[str], message: str) -> None:
    done = run("embed-dist", *(["--cohort", COHORT] if "--cohort" not in arguments else []), *arguments)
    assert done.code == 2
    assert message in " ".join(done.err.split())
    assert done.out == ""
    assert "Traceback" not in done.err
