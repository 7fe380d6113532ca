"""`label-reports` through the real entry point: what it writes, what it prints, what it never writes."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from medvlm_probe.cohort.labels import CHEXPERT_LABELS

from .conftest import Run

REPORTS = """image,study,report
a.png,S1,"FINDINGS: Small left pleural effusion. No pneumothorax. IMPRESSION: Possible pneumonia."
b.png,S1,"FINDINGS: Small left pleural effusion. No pneumothorax. IMPRESSION: Possible pneumonia."
c.png,S2,Normal chest.
d.png,S3,
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.csv"
    path.write_text(REPORTS)
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_file_has_a_row_an_image_and_no_report_text(run: Run, manifest: Path, tmp_path: Path) -> None:
    done = run("label-reports", "--cohort", manifest, "--out", tmp_path / "labels.csv")
    assert done.code == 0
    rows = rows_of(tmp_path / "labels.csv")
    assert list(rows[0]) == ["image", "study", *CHEXPERT_LABELS]
    assert [row["pleural_effusion"] for row in rows] == ["1", "1", "", ""]
    assert [row["pneumothorax"] for row in rows] == ["0", "0", "", ""]
    assert [row["pneumonia"] for row in rows] == ["-1", "-1", "", ""]
    assert [row["no_finding"] for row in rows] == ["0", "0", "1", ""]
    written = (tmp_path / "labels.csv").read_text()
    assert "effusion." not in written
    assert "Normal" not in written
    assert "Present" in done.out
    assert "2 different reports" in done.err


def test_json_counts_images_and_the_run_is_recorded(run: Run, manifest: Path) -> None:
    done = run("label-reports", "--cohort", manifest, "--json")
    found = {entry["label"]: entry for entry in done.json["labels"]}
    assert found["pneumonia"] == {
        "label": "pneumonia", "n_present": 0, "n_uncertain": 2, "n_absent": 0, "n_not_mentioned": 2
    }  # fmt: skip
    assert (done.json["n_images"], done.json["n_reports"]) == (4, 2)
    folder = Path(done.json["file"]).parent
    assert folder.parts[:2] == ("runs", "label-reports")
    assert sorted(path.name for path in folder.iterdir()) == ["labels.csv", "run.json"]
    assert "effusion" not in (folder / "run.json").read_text()


def test_hierarchy_can_be_left_out(run: Run, manifest: Path, tmp_path: Path) -> None:
    for options, expected in (((), "-1"), (("--no-hierarchy",), "")):
        assert run("label-reports", "--cohort", manifest, "--out", tmp_path / "l.csv", *options).code == 0
        assert rows_of(tmp_path / "l.csv")[0]["lung_opacity"] == expected


def test_labels_go_on_into_label_agreement(run: Run, tmp_path: Path) -> None:
    assert run("label-reports", "--out", tmp_path / "labels.csv").code == 0
    done = run("label-agreement", "--labels", f"file={tmp_path / 'labels.csv'}", "--labels", "text=reports", "--json")
    assert done.code == 0
    pairs = [pair for pair in done.json["pairs"] if {pair["a"], pair["b"]} == {"file", "text"}]
    assert len(pairs) == 14
    assert all(pair["n_only_a"] == pair["n_only_b"] == 0 for pair in pairs)


def test_explain_shows_words_on_a_terminal_only(
    run: Run, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for options in ((), ("--json",), ("--out", tmp_path / "l.csv")):
        refused = run("label-reports", "--cohort", manifest, "--explain", "S1", *options)
        assert refused.code == 2
        assert "patient data" in refused.err
        assert "effusion" not in refused.out + refused.err
    monkeypatch.setattr(sys.stdout.__class__, "isatty", lambda self: True, raising=False)
    shown = run("label-reports", "--cohort", manifest, "--explain", "S1")
    assert shown.code == 0
    assert "pneumothorax: absent 'pneumothorax' (no) [decides]: no pneumothorax" in shown.out
    assert "pneumonia: uncertain 'pneumonia' (possible) [decides]" in shown.out
    assert not (tmp_path / "runs").exists()
    assert run("label-reports", "--cohort", manifest, "--explain", "S9").code == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [(("--out", "labels.txt"), "expected the name of a CSV file"), (("--cohort", "none.csv"), "none.csv")],
)
def test_wrong_use_is_explained(run: Run, manifest: Path, options: tuple[str, ...], message: str) -> None:
    done = run("label-reports", "--cohort", manifest, *options)
    assert done.code == 2
    assert message in done.err


def test_a_cohort_without_reports_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("image,edema\na.png,1\n")
    done = run("label-reports", "--cohort", tmp_path / "m.csv")
    assert done.code == 2
    assert "has no reports to read" in done.err
