"""The benchmark table: what a row says, and that what is committed is what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

import benchmarks.__main__ as table
from benchmarks.__main__ import (
    BEGIN,
    END,
    NAMES,
    RESULT,
    SCALE_BEGIN,
    SCALE_END,
    readme_block,
    scale_block,
    write_readme,
)
from benchmarks.figure import draw
from benchmarks.table import HEADINGS, Row, cells, duration, markdown, text

PROJECT = Path(__file__).resolve().parents[1]
ROW = Row("sorting", "9 numbers", 0.5, "a loop", 4.0, extrapolated=True, floor_seconds=0.25, floor="reading", bar=8)


def test_ratios_and_promises() -> None:
    assert (ROW.times_faster, ROW.times_the_floor, ROW.held) == (8.0, 2.0, True)
    assert replace(ROW, bar=8.1).held is False
    alone = Row("audit", "", 95.0, limit=90)
    assert (alone.times_faster, alone.times_the_floor, alone.held) == (None, None, False)
    assert Row("audit", "", 1.0).held is None


def test_a_missed_promise_is_said() -> None:
    assert "8.1 x missed" in cells(replace(ROW, bar=8.1))
    assert "90 s missed" in cells(Row("audit", "", 95.0, limit=90))
    assert "8 x" in cells(ROW)


@pytest.mark.parametrize(
    ("seconds", "words"), [(2e-6, "2 µs"), (0.0123, "12.3 ms"), (59.94, "59.9 s"), (900, "15 min"), (72_000, "20 h")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_what_was_extrapolated_carries_an_asterisk() -> None:
    assert "| 4 s * |" in markdown([ROW])
    assert "multiplied" in markdown([ROW])
    assert "*" not in markdown([replace(ROW, extrapolated=False)])
    assert len(text([ROW]).splitlines()) == 2
    assert len(cells(ROW)) == len(HEADINGS)


def test_the_picture_leaves_out_what_has_no_alternative() -> None:
    axes = draw([ROW, Row("audit", "", 95.0, limit=90)]).axes[0]
    assert [tick.get_text().strip() for tick in axes.get_yticklabels()] == ["sorting"]


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_gives_rows(name: str) -> None:
    assert callable(import_module(f"benchmarks.{name}").rows)


@pytest.mark.slow
def test_small_benchmarks_run_and_write_nothing() -> None:
    before = RESULT.read_bytes() if RESULT.exists() else None
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "kde_calibration", "mmd", "help_time"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert all(task in done.stdout for task in ("KDE-ECE", "MMD permutation test", "--help"))
    assert (RESULT.read_bytes() if RESULT.exists() else None) == before


def test_the_readme_quotes_what_was_measured(tmp_path: Path) -> None:
    readme = (PROJECT / "README.md").read_text()
    assert readme_block() in readme
    assert scale_block() in readme
    copy = tmp_path / "README.md"
    copy.write_text(f"before\n{BEGIN}\nold\n{END}\nbetween\n{SCALE_BEGIN}\nold\n{SCALE_END}\nafter\n")
    write_readme(copy)
    assert copy.read_text() == f"before\n{readme_block()}\nbetween\n{scale_block()}\nafter\n"


def test_rows_of_one_benchmark_replace_its_earlier_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "RESULT", tmp_path / "table.json")
    table.write_rows("mmd", [ROW])
    table.write_rows("audit", [replace(ROW, task="audit")])
    table.write_rows("mmd", [replace(ROW, seconds=1.0)])
    assert table.read_rows()[1] == [replace(ROW, seconds=1.0), replace(ROW, task="audit")]


def test_the_table_holds_known_benchmarks_and_those_with_a_promise() -> None:
    measured = set(json.loads(RESULT.read_text())["rows"])
    assert measured <= set(NAMES)
    assert {
        "embed_throughput",
        "performance_metrics",
        "mmd",
        "grad_cam",
        "prompt_tuning",
        "kde_calibration",
    } <= measured
