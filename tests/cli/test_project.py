"""`project` through the real entry point."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from .conftest import Run

COHORT = "phantom:prevalence=balanced,sites=reference+portable,n=30"


def test_files_and_words(run: Run, tmp_path: Path) -> None:
    done = run("project", "--cohort", COHORT, "--by", "label", "--by", "abnormal", "--by", "Cardiomegaly", "--out", "o")
    assert done.code == 0, done.err
    for words in ("Trustworthiness of the picture", "no statistic", "of the variance", "not medicine"):
        assert words in done.out
    names = {path.name for path in (tmp_path / "o").iterdir()}
    figures = {f"pca_{by}.{kind}" for by in ("label", "abnormal", "cardiomegaly") for kind in ("svg", "png")}
    assert names == figures | {"coordinates.csv", "project.json", "run.json"}
    table = pd.read_csv(tmp_path / "o" / "coordinates.csv")
    assert len(table) == table["image"].nunique() == 60
    assert {"x", "y", "abnormal", "edema"} <= set(table.columns)


def test_json(run: Run) -> None:
    done = run("project", "--cohort", COHORT, "--json", "--split", "test")
    assert done.code == 0, done.err
    found = done.json
    assert [c["by"] for c in found["colourings"]] == ["label", "site"]
    assert 0 < found["trustworthiness"]["value"] <= 1
    assert len(found["variance_shares"]) == 2
    assert found["method"] == "pca"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--by", "sight"], "Unknown --by 'sight'"), (["--method", "trimap"], "trimap")],
)
def test_what_is_refused_before_anything_is_embedded(run: Run, arguments: list[str], says: str) -> None:
    done = run("project", "--cohort", COHORT, *arguments)
    assert done.code == 2
    assert says in done.err
    assert "Embedding" not in done.err
