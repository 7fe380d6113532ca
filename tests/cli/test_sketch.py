"""`sketch` from the command line: made, merged, exported, shown, compared, and naming nobody."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from .conftest import Run

SITE = "phantom:sites=reference,n=30,seed=7,size=64"


@pytest.fixture
def folder(run: Run, tmp_path: Path) -> Path:
    """A folder of exported phantoms of patients with telling names, in two shards that share none."""
    assert run("cohort", "export", SITE, "--out", "files").code == 0
    table = pd.read_csv(tmp_path / "files" / "manifest.csv", dtype=str)
    table["patient"] = "CANARY^" + table["patient"]
    table["report"] = "CANARY report"
    table.to_csv(tmp_path / "files" / "manifest.csv", index=False)
    first = table["patient"] <= sorted(table["patient"].unique())[table["patient"].nunique() // 2]
    table[first].to_csv(tmp_path / "files" / "one.csv", index=False)
    table[~first].to_csv(tmp_path / "files" / "two.csv", index=False)
    return tmp_path / "files"


def test_sketches_from_shards_to_a_comparison(run: Run, folder: Path, tmp_path: Path) -> None:
    whole = run("sketch", "--cohort", folder / "manifest.csv", "--features", 128, "--out", "whole.sketch", "--json")
    assert whole.code == 0, whole.err
    assert whole.json["images"] == 30
    assert len(whole.json["plan"]["labels"]) == 14
    for name in ("one", "two"):
        done = run("sketch", "--cohort", folder / f"{name}.csv", "--like", "whole.sketch", "--out", f"{name}.sketch")
        assert done.code == 0, done.err
    merged = run("sketch", "merge", "one.sketch", "two.sketch", "--out", "merged.sketch", "--json")
    assert merged.json["patients"] == whole.json["patients"]
    same = run("sketch", "compare", "whole.sketch", "merged.sketch", "--json").json
    both = [row["reference_prevalence"] == row["site_prevalence"] for row in same["labels"]]
    assert all(both)
    assert same["squared_mmd"]["value"] < 0
    exported = run("sketch", "export", "whole.sketch", "--out", "for_them.sketch", "--json")
    assert exported.json["kind"] == "export"
    assert exported.json["suppressed_cells"]
    assert run("sketch", "show", "for_them.sketch").code == 0
    assert "suppressed" in run("sketch", "show", "for_them.sketch").out
    table = run("sketch", "compare", "for_them.sketch", "two.sketch")
    assert "Squared MMD" in table.out
    for path in tmp_path.glob("*.sketch"):
        content = path.read_bytes()
        assert b"CANARY" not in content
        assert str(tmp_path).encode() not in content
        assert b"manifest" not in content


def test_noise_needs_another_plan(run: Run, folder: Path) -> None:
    cohort = folder / "manifest.csv"
    options = ("--features", 64, "--prompts", "none")
    assert run("sketch", "--cohort", cohort, *options, "--out", "own.sketch").code == 0
    refused = run("sketch", "export", "own.sketch", "--epsilon", 2, "--delta", 1e-5)
    assert refused.code == 2
    assert "--like" in refused.err
    told = ("--export", "--epsilon", 2, "--delta", 1e-5, "--json")
    done = run("sketch", "--cohort", cohort, *options, "--bandwidth", 0.7, *told)
    assert done.code == 0, done.err
    assert done.json["privacy"] == {"epsilon": 2.0, "delta": 1e-5}
    assert run("sketch", "--cohort", cohort, "--epsilon", 2).code == 2
    assert "bandwidth" in run("sketch", "--cohort", cohort, "--like", "own.sketch", "--bandwidth", 1.0).err


def test_what_does_not_fit_is_refused(run: Run, folder: Path, tmp_path: Path) -> None:
    cohort = folder / "manifest.csv"
    first = ("--cohort", cohort, "--features", 64, "--out", "a.sketch")
    assert run("sketch", *first).code == 0
    other = run("sketch", "--cohort", cohort, "--like", "a.sketch", "--prompts", "bare", "--out", "b.sketch")
    assert other.code == 2
    assert "prompts" in other.err
    (tmp_path / "c.sketch").write_text("nothing")
    assert "no sketch" in run("sketch", "show", "c.sketch").err
