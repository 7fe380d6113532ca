"""`embed` and `export` from the command line, on files: quarantine, limits, formats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from .conftest import Run


@pytest.fixture
def folder(run: Run, tmp_path: Path) -> Path:
    """A folder of 12 exported phantoms, with their manifest."""
    done = run("cohort", "export", "phantom:sites=reference,n=12,seed=4", "--out", "files")
    assert done.code == 0, done.err
    return tmp_path / "files"


def images(folder: Path) -> list[Path]:
    return [folder / name for name in pd.read_csv(folder / "manifest.csv")["image"]]


def test_embed_counts_and_records(run: Run, folder: Path, tmp_path: Path) -> None:
    first = run("embed", "--cohort", folder / "manifest.csv", "--json", "--out", "run")
    assert first.code == 0, first.err
    assert first.json["embedded"] == first.json["computed_now"] == 12
    again = run("embed", "--cohort", folder, "--json")
    assert again.json["computed_now"] == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert len(record["model"]["fingerprint"]) == 64
    assert record["cohort"]["recipe"] == "png/v1"


def test_pictures_are_kept_where_asked_for(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDVLM_PROBE_CACHE", str(tmp_path / "cache"))
    done = run("embed", "--cohort", folder, "--image-cache", "kept", "--json")
    assert done.json["computed_now"] == 12
    kept = sorted((tmp_path / "kept").rglob("*.png"))
    assert len(kept) == 12
    (tmp_path / "file").write_text("")
    refused = run("embed", "--cohort", folder, "--image-cache", "file")
    assert refused.code == 2
    again = run("embed", "--cohort", folder, "--precision", "float32", "--image-cache", "kept", "--json")
    assert again.json["embedded"] == 12
    assert sorted((tmp_path / "kept").rglob("*.png")) == kept


def test_bad_images_go_to_quarantine(run: Run, folder: Path, tmp_path: Path) -> None:
    first, second, *_ = images(folder)
    first.write_bytes(first.read_bytes()[:200])
    second.write_text("no image")
    refused = run("embed", "--cohort", folder / "manifest.csv")
    assert refused.code == 2
    assert "--max-failures" in refused.err
    done = run("embed", "--cohort", folder / "manifest.csv", "--max-failures", 2, "--json", "--out", "run")
    assert done.code == 0, done.err
    assert done.json["quarantined"] == 2
    table = pd.read_csv(tmp_path / "run" / "quarantine.csv")
    assert table["reason"].tolist() == ["truncated", "not_an_image"]
    distances = run(
        "embed-dist", "--cohort", folder / "manifest.csv", "--max-failures", "20%", "--permutations", 99, "--json"
    )
    assert distances.code == 0, distances.err
    assert distances.json["labels"][0]["n_negative"] + distances.json["labels"][0]["n_positive"] == 10


def test_export_formats_agree(run: Run, folder: Path, tmp_path: Path) -> None:
    cohort = folder / "manifest.csv"
    for file_format in ("parquet", "npy", "csv"):
        done = run("export", "--cohort", cohort, "--format", file_format)
        assert done.code == 0, done.err
    matrix = np.load(tmp_path / "embeddings.npy")
    table = pq.read_table(tmp_path / "embeddings.parquet")
    assert np.stack(table["embedding"].to_pylist()) == pytest.approx(matrix)
    assert "report" not in table.column_names
    assert len(matrix) == 12


def test_nothing_private_in_names_of_the_cache(run: Run, folder: Path, session_cache: Path) -> None:
    run("embed", "--cohort", folder / "manifest.csv")
    manifest = pd.read_csv(folder / "manifest.csv")
    names = " ".join(str(path.relative_to(session_cache)) for path in session_cache.rglob("*"))
    for patient in manifest["patient"]:
        assert str(patient) not in names
    about = " ".join(path.read_text() for path in session_cache.rglob("about.json"))
    assert "phantom-reference" not in about
