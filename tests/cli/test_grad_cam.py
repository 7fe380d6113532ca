"""`grad-cam` through the real entry point: phantoms with exact masks, a single file, a sheet and its answers."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from tests.cli.conftest import Run

COHORT = "phantom:prevalence=balanced,sites=reference,n=30,size=64"
FEW = ("--panels", 1, "--quiet")


def test_maps_are_held_against_masks_chance_and_controls(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run(
        "grad-cam", "--cohort", COHORT, "--label", "cardiomegaly", "--sample", 3, "--reference", 24, *FEW,
        "--json", "--out", out,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    (entry,) = ran.json["labels"]
    assert entry["label"] == "cardiomegaly"
    assert entry["n_images"] == entry["n_with_region"] == 3
    for measure in ("pointing_game", "iou", "relevance_mass", "average_precision"):
        assert set(entry[measure]) == {"value", "low", "high", "n", "n_groups", "method"}
        assert set(entry["chance"]) == {"uniform", "centre"}
        assert entry["chance"]["uniform"][measure]["n"] == 3
    controls = entry["controls"]
    assert {"wrong_label", "nonsense", "random_weights"} < set(controls)
    assert controls["verdict"] in {"pass", "fail", "not enough evidence"}
    assert controls["wrong_label"]["label"] != "cardiomegaly"
    assert {"panels_cardiomegaly.png", "panels_cardiomegaly.svg", "localization.png", "run.json"} <= {
        path.name for path in out.iterdir()
    }
    assert json.loads((out / "grad-cam.json").read_text()) == ran.json

    table = pd.read_csv(out / "localization.csv")
    own = table[(table["maps"] == "own") & (table["metric"] == "pointing_game")].iloc[0]
    images = pd.read_csv(out / "images.csv")
    assert own["value"] == pytest.approx(images["pointing_game"].mean())
    assert own["uniform"] == pytest.approx(images["region_share"].mean())
    # Tables and figures carry pseudonyms; the key alone knows the images.
    key = pd.read_csv(out / "key.csv")
    assert set(images["image"]) <= set(key["image"])
    for name in ("images.csv", "grad-cam.json", "panels_cardiomegaly.svg"):
        assert not any(original in (out / name).read_text() for original in key["original_image"])


def test_a_single_file_gets_similarities_and_never_a_pass(run: Run, tmp_path: Path) -> None:
    Image.linear_gradient("L").resize((90, 70)).save(tmp_path / "patient-name.png")
    out = tmp_path / "out"
    ran = run(
        "grad-cam", "--image", tmp_path / "patient-name.png", "--label", "edema", *FEW, "--json", "--out", out
    )  # fmt: skip
    assert ran.code == 0, ran.err
    (entry,) = ran.json["labels"]
    assert entry["n_images"] == 1
    assert entry["n_with_region"] == 0
    assert entry["pointing_game"] is None
    assert entry["controls"]["verdict"] == "similarities only"
    assert (out / "panels_edema.png").is_file()
    assert not (out / "localization.csv").exists()
    assert "patient-name" not in (out / "panels_edema.svg").read_text()


def test_a_sheet_goes_to_a_reader_and_comes_back(run: Run, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet"
    ran = run(
        "grad-cam", "sample", "--cohort", COHORT, "--n", 3, "--label", "cardiomegaly", "--label", "edema",
        "--out", sheet,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "hand it over as you would the images" in ran.out
    reader = sheet / "for_the_reader"
    assert (reader / "sheet.pdf").read_bytes().startswith(b"%PDF")
    assert "present" in (reader / "instructions.txt").read_text()
    asked = pd.read_csv(reader / "annotations.csv", dtype=str, keep_default_na=False)
    key = pd.read_csv(sheet / "key.csv")
    assert len(asked) == len(key) == 3
    assert not any(
        original in path.read_text()
        for path in (reader / "annotations.csv", reader / "instructions.txt")
        for original in key["original_image"]
    )
    again = run("grad-cam", "sample", "--cohort", COHORT, "--n", 3, "--out", sheet)
    assert again.code == 2
    assert "holds a sheet already" in again.err

    asked["present"] = ["1", "1", "0"]
    asked.loc[:1, ["x", "y", "w", "h"]] = [["10", "20", "30", "25"], ["5", "5", "12", "8.5"]]
    asked.to_csv(tmp_path / "filled.csv", index=False, sep=";")
    out = tmp_path / "out"
    ran = run(
        "grad-cam", "agree", "--sheet", sheet, "--annotations", tmp_path / "filled.csv", *FEW, "--json", "--out", out
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert sum(entry["n_with_region"] for entry in ran.json["labels"]) == 2
    assert sum(found["n_present"] for found in ran.json["reader"].values()) == 2
    assert sum(found["n_absent"] for found in ran.json["reader"].values()) == 1
    # A flat map's pointing game is the box's share of the 64 x 64 pixels.
    images = pd.read_csv(out / "images.csv")
    shares = sorted(images[images["region"]]["region_share"])
    assert shares == pytest.approx(sorted([30 * 25 / 64**2, 12 * 8 / 64**2]), abs=12 / 64**2)
    assert (out / "answers.csv").is_file()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--compare", "zero-shot,grad"), "Unknown setting 'grad'"),
        (("--compare", "tuned"), "name the folder of 'tune'"),
        (("--compare", "fine-tuned"), "--fine-tuned DIR"),
        (("--compare", "linear-probe"), "--train-from"),
        (("--compare", "zero-shot", "--probe", "x"), "--probe is given, but --compare does not name linear-probe"),
        (("--method", "grad-cam++"), "Unknown saliency method"),
        (("--label-map", "x.toml"), "--label-map belongs to --regions"),
        (("--image", "nowhere.png"), "There is no image 'nowhere.png'"),
        (("--image", "nowhere.png", "--split", "test"), "--split belongs to a cohort"),
        (("agree", "--sheet", "nowhere", "--annotations", "a.csv"), "is no folder of 'grad-cam sample'"),
    ],
)
def test_usage_that_cannot_be_meant_is_refused(run: Run, arguments: tuple[str, ...], says: str) -> None:
    ran = run("grad-cam", *arguments)
    assert ran.code == 2
    assert says in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.slow
def test_patches_are_taken_out_and_put_back(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run(
        "grad-cam", "--cohort", COHORT, "--label", "cardiomegaly", "--sample", 1, "--reference", 0, "--faithfulness", 1,
        "--panels", 0, "--json", "--out", out,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    found = ran.json["labels"][0]["faithfulness"]
    assert found["n_images"] == 1
    table = pd.read_csv(out / "faithfulness.csv").set_index("measure")["value"]
    assert found["deletion_gain"]["value"] == pytest.approx(table["deletion_gain"])
    curves = pd.read_csv(out / "faithfulness_curves.csv")
    ends = curves[curves["share"] == 0].set_index(["curve", "order"])["logit"]
    assert ends["deletion", "map"] == pytest.approx(ends["deletion", "random"])
    assert ends["insertion", "map"] < ends["deletion", "map"]
    assert (out / "faithfulness.svg").is_file()


@pytest.mark.slow
def test_a_probe_fitted_on_another_split_stands_beside_zero_shot(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run(
        "grad-cam", "--cohort", COHORT, "--label", "cardiomegaly", "--sample", 2, "--train-from", "calib",
        "--split", "test", "--panels", 1, "--json", "--out", out,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert [entry["setting"] for entry in ran.json["settings"]] == ["zero-shot", "linear-probe"]
    maps = pd.read_csv(out / "images.csv")
    zero_shot, probe = (set(maps[maps["setting"] == name]["image"]) for name in ("zero-shot", "linear-probe"))
    assert zero_shot == probe
    assert len(zero_shot) == 2
    assert maps["map_high"].nunique() == len(maps)
