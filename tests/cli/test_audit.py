"""`audit` through the real entry point: verdicts and exit codes, what is written, and what must never be."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from .conftest import CANARY, Run

FAST = ("--permutations", "99", "--opened", "6", "--precision", "float32", "--workers", "1")
LENIENT = "planned = 10\n[[rule]]\nrule = 'no shift beyond 2 by mmd'\n[[rule]]\nrule = 'outlier share <= 100 %'\n"


def arguments(hospitals: tuple[Path, Path], policy: Path) -> tuple[object, ...]:
    reference, site = hospitals
    return (
        "audit", "--cohort", site / "manifest.csv", "--reference", reference / "manifest.csv", "--policy", policy,
        "--pseudonym-key", policy.with_name("key"), *FAST, "--out", "out",
    )  # fmt: skip


def test_evidence_is_written_and_no_canary_sings(run: Run, hospitals: tuple[Path, Path], tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(LENIENT)
    done = run(*arguments(hospitals, policy), "--json")
    assert done.code == 0, done.err
    result = done.json
    out = tmp_path / "out"
    assert json.loads((out / "audit.json").read_text()) == result
    assert [verdict["verdict"] for verdict in result["verdicts"]] == ["pass", "pass"]
    assert result["counts"]["site_images"] == 60
    assert {cell["by"] for cell in result["performance"]} >= {"all", "site"}
    listed = pd.read_csv(out / "unusual_images.csv")
    assert listed["image"].str.fullmatch("[0-9a-f]{16}").all()
    assert len(list(out.glob("*.svg"))) >= 6
    written = {path.name: path.read_text() for path in out.iterdir()}
    assert {"audit.json", "audit.html", "run.json", "verdicts.csv", "performance.csv", "facts.csv"} <= set(written)
    for name, text in [*written.items(), ("stdout", done.out), ("stderr", done.err)]:
        assert CANARY.lower() not in text.lower(), name
        assert str(tmp_path) not in text.replace(str(out), ""), name
        assert str(hospitals[0]) not in text, name
    assert not re.search(r"</script><b>", written["audit.html"])
    assert not any(re.search(r'(^|[,"])=cmd', text, re.M) for name, text in written.items() if name.endswith(".csv"))
    assert "'=cmd" in written["performance.csv"]


def test_a_policy_that_fails_exits_with_3_and_still_writes(
    run: Run, hospitals: tuple[Path, Path], tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("[[rule]]\nrule = 'outlier share <= 0.001 %'\n[[rule]]\nrule = 'shift(classifier) <= 0.1'\n")
    done = run(*arguments(hospitals, policy))
    assert done.code == 3
    assert "shift(classifier) <= 0.1" in done.err
    assert "FAIL" in done.out
    assert done.out.index("FAIL") < done.out.index("Performance.")
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["overall"] == "fail"


def test_what_cannot_be_audited_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text('[[rule]]\nrule = "recal(edema) >= .8"\n')
    done = run("audit", "--policy", "policy.toml")
    assert done.code == 2
    assert "Did you mean recall" in done.err
    done = run("audit", "--site", "comunity")
    assert done.code == 2
    assert "community" in done.err
    done = run("audit", "--explanations", tmp_path)
    assert done.code == 2
    assert "grad-cam.json" in done.err


@pytest.mark.slow
def test_repairs_are_measured_and_labels_read_again_are_used(
    run: Run, hospitals: tuple[Path, Path], tmp_path: Path
) -> None:
    policy, own = tmp_path / "policy.toml", hospitals[1] / "one_image_each.csv"
    policy.write_text(LENIENT)
    table = pd.read_csv(hospitals[1] / "manifest.csv", dtype=str).drop(columns=["patient", "study"])
    table.to_csv(own, index=False)
    table[["image", "lung_opacity"]].to_csv(tmp_path / "again.csv", index=False)
    given = [own if word == hospitals[1] / "manifest.csv" else word for word in arguments(hospitals, policy)]
    options = ("--label", "lung_opacity", "--repair", "--fine-tune", "--reread", tmp_path / "again.csv", "--json")
    done = run(*given, *options)
    assert done.code == 0, done.err
    found = done.json["repair"]
    assert found is not None, done.json["skipped"]
    assert {"none", "platt", "site probe", "prompts 8", "last block"} <= {o["remedy"] for o in found["outcomes"]}
    assert set(found["left_out"]) >= {"linear probe, augmented"}
    assert not found["reread"]["simulated"]
    assert "others, about" in done.err
    assert (tmp_path / "out" / "repair_gain.svg").is_file()
    assert not (tmp_path / "out" / "repair.parts").exists()
    assert CANARY.lower() not in (tmp_path / "out" / "audit.html").read_text().lower()
    refused = run(*given, "--reread", tmp_path / "elsewhere.csv")
    assert refused.code == 2
    assert "no CSV" in refused.err
