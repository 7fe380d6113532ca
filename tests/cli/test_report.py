"""`report`: earlier runs on one page, through the real entry point."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medvlm_probe.report.audit_page import audit_page

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="90pt" height="40pt" viewBox="0 0 90 40"><title>Five tests</title>'
    '<path d="M 0 0 L 9 9" style="stroke: #0072b2"/></svg>'
)
AUDIT = {
    "overall": "fail",
    "policy": "Proof of concept",
    "verdicts": [{"rule": "no shift beyond 0.02", "verdict": "fail", "value": 0.1, "low": 0.08, "high": 0.12}],
    "sentences": {"shift": "The images moved."},
    "shift": {"sentence": "The images moved.", "tests": [], "n_images": [400, 200]},
    "provenance": {"site": {"cohort": {"name": "new-site", "recipe": "png/v1"}}},
}


def estimate(value: float, n: int) -> dict[str, object]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": n, "n_groups": n, "method": "by hand"}


def folder_of(path: Path, command: str, result: object, **record: object) -> Path:
    """Write a run's folder as the command would leave it."""
    path.mkdir()
    (path / "run.json").write_text(json.dumps({"command": command, "config": {"cohort": "/data/secret.csv"}, **record}))
    (path / f"{command}.json").write_text(json.dumps(result))
    return path


@pytest.fixture
def audit_run(tmp_path: Path) -> Path:
    folder = folder_of(tmp_path / "audit", "audit", AUDIT)
    (folder / "shift.svg").write_text(SVG)
    (folder / "unusual_images.csv").write_text("image,patient\n/data/1.png,Smith^Jane\n")
    return folder


@pytest.fixture
def distance_run(tmp_path: Path) -> Path:
    labels = [
        {"label": "edema", "n_positive": 41, "n_negative": 90, "ratio": estimate(1.234, 131)},
        {"label": "hernia", "n_positive": 4, "n_negative": 127, "ratio": estimate(1.777, 131)},
    ]
    cohort = {"name": "iu_xray", "recipe": "png/v1"}
    folder = folder_of(tmp_path / "distances", "embed-dist", {"labels": labels}, cohort=cohort, model={"name": "m"})
    for name in ("distances", "panels_edema"):
        (folder / f"{name}.svg").write_text(SVG)
    return folder


def test_a_finished_run_becomes_a_page(run, tmp_path) -> None:
    cohort = "phantom:n=20,size=64,sites=reference"
    made = run("label-agreement", "--cohort", cohort, "--labels", "rules=reports", "--quiet", "--out", "agreement")
    assert made.code == 0
    done = run("report", "agreement", "--title", "For the <committee>", "--json")
    assert done.code == 0
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert done.json == {"page": "report.html", "runs": ["label-agreement"], "bytes": len(html.encode())}
    assert "<h1>For the &lt;committee&gt;</h1>" in html
    assert "Agreement of label sources: phantom" in html
    assert "Nothing on this page is about patients, or medicine." in html
    assert '<svg class="plot"' in html
    pair = json.loads((tmp_path / "agreement" / "label-agreement.json").read_text())["pairs"][0]
    assert f">{pair['n_neither']}</td>" in html
    assert str(tmp_path) not in html


def test_an_audits_run_gives_the_audits_page(run, audit_run, tmp_path) -> None:
    assert run("report", audit_run, "--out", tmp_path / "page.html").code == 0
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert html == audit_page(AUDIT, {"shift": SVG}, title="Audit of a new site")
    assert "secret" not in html
    assert "Smith" not in html


def test_other_runs_stand_beside_an_audit(run, audit_run, distance_run, tmp_path) -> None:
    done = run("report", distance_run, audit_run)
    assert done.code == 0
    assert "Wrote report.html" in done.err
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert html.index("The images moved.") < html.rindex("Distances between embeddings: iu_xray, m")
    assert "1.23 [1.13, 1.33]" in html
    assert "secret" not in html


def test_small_cells_of_people_hide_the_figures_too(run, distance_run, tmp_path) -> None:
    assert run("report", distance_run, "--out", tmp_path / "safe.html").code == 0
    safe = (tmp_path / "safe.html").read_text(encoding="utf-8")
    assert "under 10" in safe
    assert "its figures, which would show cells of fewer than 10 people" in safe
    assert "<svg" not in safe
    assert "1.78" not in safe
    assert run("report", distance_run, "--small-cells", "--out", tmp_path / "inside.html").code == 0
    inside = (tmp_path / "inside.html").read_text(encoding="utf-8")
    assert inside.count("<svg") == 1
    assert "1.78 [1.68, 1.88]" in inside


@pytest.mark.parametrize(
    ("record", "result", "words"),
    [
        (None, None, "has no run.json"),
        ({"command": "embed"}, None, "which has no page. Pages show: audit, zero-shot"),
        ({"command": "zero-shot"}, None, "has no zero-shot.json"),
        ({"command": "zero-shot"}, [], "holds no JSON object"),
    ],
)
def test_what_is_no_run_is_refused(run, tmp_path, record, result, words) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    if record is not None:
        (folder / "run.json").write_text(json.dumps(record))
    if result is not None:
        (folder / "zero-shot.json").write_text(json.dumps(result))
    done = run("report", folder)
    assert done.code == 2
    assert words in done.err


def test_a_page_has_one_verdict(run, audit_run) -> None:
    done = run("report", audit_run, audit_run)
    assert done.code == 2
    assert "a page has one verdict" in done.err
