"""CalibPrompt's data sets through `cohort import`: the legacy split, prepared folders, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from .conftest import Run


def image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 24), dtype=np.uint8)).save(path)


def test_the_legacy_split_is_asked_for(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "kaggle"
    for number in range(1, 21):
        image(root / "COVID/images" / f"COVID-{number}.png", number)
        image(root / "Normal/images" / f"Normal-{number}.png", 100 + number)
    splits = {}
    for name, options in (("own", ()), ("legacy", ("--legacy-split",))):
        done = run("cohort", "import", "covidx", root, "--out", root / f"{name}.csv", "--overwrite", *options)
        assert done.code == 0, done.err
        assert "40 images, no patients or studies given" in done.out
        splits[name] = pd.read_csv(root / f"{name}.csv")["split"].tolist()
        assert sorted(splits[name]) == ["test"] * 20 + ["train"] * 20
    assert splits["own"] != splits["legacy"]
    assert "as in published results; it leaks" in (root / "DATA_CARD.md").read_text()
    checked = run("cohort", "check", root / "own.csv", "--json")
    assert (checked.code, checked.json["quarantine"]) == (0, [])


def test_a_prepared_folder(run: Run, tmp_path: Path) -> None:
    for split in ("train", "test"):
        for seed, name in enumerate(("benign", "malignant")):
            image(tmp_path / "pannuke/images" / split / name / "a.png", seed)
    done = run("cohort", "import", "calibprompt", "pannuke", "--out", "pannuke/manifest.csv", "--json")
    assert done.code == 0, done.err
    assert [row["label"] for row in done.json["labels"]] == ["benign", "malignant"]
    assert "An H&E image patch of {} tissue." in (tmp_path / "pannuke/DATA_CARD.md").read_text()


def test_data_sets_without_a_legacy_split(run: Run, tmp_path: Path) -> None:
    image(tmp_path / "a/x.png", 0)
    done = run("cohort", "import", "generic_folder:a", "--legacy-split", "--out", "a/manifest.csv")
    assert done.code == 2
    assert "'a' has no legacy split; those that have one: covidx, rsna18, pannuke, digestpath." in done.err
