"""`audit --reference X.sketch` through the real entry point: evidence, refusals, and no name in what is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medvlm_probe.audit.sketch_answers import NOT_FROM_A_SKETCH

from .conftest import CANARY, Run

LENIENT = "planned = 10\n[[rule]]\nrule = 'no shift beyond 2 by mmd'\n[[rule]]\nrule = 'outlier share <= 100 %'\n"
FAST = ("--precision", "float32", "--workers", "1")


@pytest.fixture
def sketches(run: Run, hospitals: tuple[Path, Path]) -> tuple[Path, Path]:
    """A reference's sketch of either kind, made of images whose every name is a canary."""
    made = run("sketch", "--cohort", hospitals[1] / "manifest.csv", "--features", 256, *FAST, "--out", "ref.sketch")
    assert made.code == 0, made.err
    assert run("sketch", "export", "ref.sketch", "--out", "export.sketch").code == 0
    return Path("ref.sketch"), Path("export.sketch")


def test_a_sketch_is_audited_against_and_no_canary_sings(
    run: Run, hospitals: tuple[Path, Path], sketches: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "policy.toml").write_text(LENIENT)
    audit = ("audit", "--cohort", hospitals[0] / "manifest.csv", "--policy", "policy.toml", *FAST)
    for kind, path in zip(("working", "export"), sketches, strict=True):
        done = run(*audit, "--pseudonym-key", "key", "--reference", path, "--out", kind, "--json")
        assert done.code == 0, done.err
        result = done.json
        assert json.loads((tmp_path / kind / "audit.json").read_text()) == result
        # Folds of ten patients are too few here for a bound; and outliers pass by no score that needs no fit.
        shift = {"working": "pass", "export": "not enough evidence"}[kind]
        assert [verdict["verdict"] for verdict in result["verdicts"]] == [shift, "not enough evidence"]
        assert set(NOT_FROM_A_SKETCH) <= set(result["skipped"])
        assert result["counts"]["reference_images"] == 60
        assert result["counts"]["site_images"] == 50
        assert result["provenance"]["reference_sketch"]["kind"] == kind
        assert result["shift"]["tests"][0]["effect"]["value"] is not None
        assert {row["side"] for row in result["performance"]} == {"reference", "site"}
        written = {file.name: file.read_text() for file in (tmp_path / kind).iterdir()}
        assert {"audit.html", "audit.json", "run.json", "shift.csv", "performance.csv", "outliers_scores.svg"} <= set(
            written
        )
        assert "sketch of" in written["audit.html"]
        for name, text in [*written.items(), ("stdout", done.out), ("stderr", done.err)]:
            assert CANARY.lower() not in text.lower(), name
            assert str(tmp_path) not in text.replace(str(tmp_path / kind), ""), name
            assert str(hospitals[0]) not in text, name
            assert "ref.sketch" not in text.replace("--reference", ""), name


def test_what_does_not_fit_is_refused(
    run: Run, hospitals: tuple[Path, Path], sketches: tuple[Path, Path], tmp_path: Path
) -> None:
    reference = sketches[0]
    audit = ("audit", "--cohort", hospitals[0] / "manifest.csv", *FAST)

    def refused(*options: object) -> str:
        done = run(*audit, *options)
        assert done.code == 2, done.out
        assert "Traceback" not in done.err
        return done.err

    assert "other prompts" in refused("--reference", reference, "--prompts", "bare")
    assert "--reference-split" in refused("--reference", reference, "--reference-split", "test")
    assert "--ages-from" in refused("--reference", reference, "--ages-from", "phantom")
    assert "Did you mean edema" in refused("--reference", reference, "--label", "edemas")
    data = reference.read_bytes()
    for name, content in {
        "cut": data[: len(data) // 2],
        "garbage": np.random.default_rng(0).bytes(5_000),
        "empty": b"",
        "other": data.replace(b'\\"fingerprint\\": \\"', b'\\"fingerprint\\": \\"0'),
    }.items():
        (tmp_path / f"{name}.sketch").write_bytes(content)
    for name in ("cut", "garbage", "empty"):
        assert "no sketch, or is cut off" in refused("--reference", f"{name}.sketch")
    assert "Cannot read" in refused("--reference", "nowhere.sketch")
    assert "sketch compare" in refused("--cohort", reference)
