"""The main job on real radiographs through real weights, where they lie beside the project."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from .conftest import Run

PER_SITE = 14


@pytest.fixture
def cohort(shared_dir: Path, tmp_path: Path) -> Path:
    """A manifest of a few real radiographs of two hospitals that dino-minilm has not seen, half of them abnormal."""
    source = shared_dir / "real_cxr" / "multisite"
    table = pd.read_csv(source / "manifest.csv", dtype=str)
    table = table[(table["split"] == "test") & table["site"].isin(["indiana", "nih"])]
    chosen = table.groupby(["site", "no_finding"]).head(PER_SITE // 2)
    for name in chosen["image"]:
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, tmp_path / "files" / name)
    path = tmp_path / "files" / "manifest.csv"
    chosen.to_csv(path, index=False)
    return path


@pytest.mark.slow
def test_embed_dist_by_site(run: Run, cohort: Path, shared_dir: Path, tmp_path: Path) -> None:
    model = f"local:{shared_dir / 'models' / 'dino-minilm'}"
    done = run(
        "embed-dist", "--model", model, "--cohort", cohort, "--label", "no_finding", "--by", "site", "--out", "out",
        "--reference", "indiana", "--permutations", 199, "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    found = done.json
    assert [site["site"] for site in found["sites"]] == ["indiana", "nih"]
    entry = found["labels"][0]
    assert entry["n_positive"] + entry["n_negative"] == 2 * PER_SITE
    assert 0.2 < entry["inter"]["value"] < 1.4
    assert (tmp_path / "out" / "cross_site.svg").exists()
    assert "not medicine" not in done.err
