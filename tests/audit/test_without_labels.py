"""Estimates without labels say how far they may be trusted, by what was measured."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from medvlm_probe.audit.examine import Settings, examine
from medvlm_probe.audit.policy import parse_policy
from medvlm_probe.audit.without_labels import ENOUGH, MEASURED, NEVER_TRUSTED, estimate_without_labels, trust, trusted

from .two_hospitals import hospital, inputs_of

FIGURES = Path(__file__).parents[2] / "figures" / "label_free"


def rows_of(name: str) -> list[dict[str, str]]:
    with (FIGURES / name).open() as file:
        return list(csv.DictReader(file))


def test_what_is_said_is_what_was_measured() -> None:
    rows = [row for row in rows_of("summary.csv") if row["metric"] == "accuracy"]
    measured = {
        (row["shift"], row["method"]): float(row["held"])
        for row in rows
        if row["cohort"] == "phantoms" or row["shift"] == "nih"
    }
    scanners: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in rows_of("phantoms.csv"):
        if row["shift"] == "covariate" and row["metric"] == "accuracy":
            cell = scanners.setdefault((row["severity"], row["method"]), [])
            cell.append((float(row["runs"]), float(row["held"])))
    for (_, method), cell in scanners.items():
        share = sum(n * held for n, held in cell) / sum(n for n, _ in cell)
        measured["worst", method] = min(share, measured.get(("worst", method), 1.0))
    for shift, methods in MEASURED.items():
        for method, share in methods.items():
            assert share == pytest.approx(measured[shift, method], abs=0.0051)


def test_intervals_too_narrow_without_any_shift_are_never_trusted() -> None:
    narrow = {
        (row["method"], row["metric"])
        for row in rows_of("summary.csv")
        if row["shift"] == "none" and float(row["held"]) < ENOUGH
    }
    assert narrow == NEVER_TRUSTED


def test_intervals_are_trusted_by_what_moved(tmp_path: Path) -> None:
    inputs = inputs_of(hospital(tmp_path / "a", 300, 0), hospital(tmp_path / "b", 200, 1, prefix="q"))
    for moved, reliable in (
        (None, set(MEASURED["none"])),
        ("none", set(MEASURED["none"])),
        ("prevalence", {"label_shift"}),
        ("both", set()),
    ):
        found = estimate_without_labels(inputs, moved)
        assert {row.method for row in found.rows if row.estimate.reliable} == reliable
        for row in found.rows:
            expected = row.method in reliable and (row.method, row.metric) not in NEVER_TRUSTED
            assert row.estimate.reliable == trusted(row.method, row.metric, moved) == expected
        assert trust(moved) in found.sentence
    assert "all are marked as unreliable" in trust("covariate")
    assert "unreliable" not in trust(None)


def test_an_audit_hands_on_what_moved(tmp_path: Path) -> None:
    inputs = inputs_of(hospital(tmp_path / "a", 300, 0), hospital(tmp_path / "b", 200, 1, prefix="q"))
    policy = parse_policy("[[rule]]\nrule = 'overconfidence <= 0.2'", "p")
    found = examine(inputs, policy, Settings(n_permutations=99, n_sampled=0))
    assert found.what_moved is not None
    assert found.label_free is not None
    assert found.label_free.moved == found.what_moved.found.shift
