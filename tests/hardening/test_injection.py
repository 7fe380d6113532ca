"""Names that steer a terminal, a spreadsheet or a browser: shown as text, wherever a command writes them."""

from __future__ import annotations

import csv
import html.parser
import json
import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from medvlm_probe.cli.main import main
from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.phantom_export import export_phantoms
from medvlm_probe.errors import InputError, unknown_name, visible
from medvlm_probe.runs import csv_bytes

ESCAPE = "\x1b]0;owned\x07\x1b[2J"
SCRIPT = "</script><script>alert(1)</script>"
FORMULA = "=cmd()|' /C calc'!A0"
QUOTES = "\"'><img src=x onerror=alert(1)>"
STARTS_A_FORMULA = re.compile(r"[=+\-@\t\r]")
FEW = ("--precision", "float32", "--workers", "1")


class Tags(html.parser.HTMLParser):
    """Collects the tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, value in attrs if name.startswith("on") or "javascript:" in (value or "")]


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A cohort whose sites, files, splits and words for labels try to do harm."""
    folder = tmp_path / "cohort"
    cases = load_cohort("phantom:sites=reference,n=24,prevalence=balanced").source.cases  # type: ignore[attr-defined]
    export_phantoms(cases, folder, size=32)
    table = pd.read_csv(folder / "manifest.csv", dtype=str)
    names = [f"{FORMULA.replace('/', '-')}{k}.png" if k % 2 else f"a'\"<b>&{k}.png" for k in range(len(table))]
    for old, new in zip(table["image"], names, strict=True):
        (folder / old).rename(folder / new)
    table["image"] = names
    table["site"] = [(FORMULA, SCRIPT, ESCAPE, QUOTES)[k % 4] for k in range(len(table))]
    table["split"] = ["+calib" if k < 12 else QUOTES for k in range(len(table))]
    table.drop(columns="report").to_csv(folder / "manifest.csv", index=False)
    card = (folder / "DATA_CARD.md").read_text()
    for label, words in (("cardiomegaly", SCRIPT), ("edema", FORMULA), ("pneumonia", QUOTES), ("fracture", ESCAPE)):
        card = re.sub(rf"(?m)^  {label}: .*$", lambda _, o=label, w=words: f"  {o}: {json.dumps(w)}", card)
    (folder / "DATA_CARD.md").write_text(card)
    return folder / "manifest.csv"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["medvlm-probe", *map(str, arguments)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_names_do_no_harm_in_results(
    hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEDVLM_PROBE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for command in (
        ("zero-shot", "--cohort", hostile, *FEW, "--out", "zero-shot"),
        ("embed-dist", "--cohort", hostile, "--permutations", "99", *FEW, "--out", "distances"),
        ("report", "zero-shot", "distances", "--small-cells", "--title", SCRIPT, "--out", "page.html"),
        ("cohort", "check", hostile, "--out", "check"),
        ("zero-shot", "--cohort", hostile, "--split", ESCAPE),
        ("zero-shot", "--cohort", hostile, "--label", SCRIPT + ESCAPE),
    ):
        code = run(monkeypatch, *command)
        printed = capsys.readouterr()
        assert code == (2 if ESCAPE in str(command[-1]) else 0), printed.err
        assert "\x1b" not in printed.out + printed.err
        assert "\x07" not in printed.out + printed.err
    for path in tmp_path.glob("*/*.csv"):
        if path.parent.name != "cohort":
            check_csv(path)
    for path in tmp_path.glob("*/*.json"):
        json.loads(path.read_text())
    for path in [*tmp_path.glob("*/*.svg"), tmp_path / "page.html"]:
        found = Tags()
        found.feed(path.read_text())
        assert not {"script", "img", "b"} & set(found.tags), path.name
        assert not found.handlers
        assert "\x1b" not in path.read_text()


def check_csv(path: Path) -> None:
    with path.open(newline="") as file:
        for row in csv.reader(file):
            for cell in row:
                assert not STARTS_A_FORMULA.match(cell) or is_number(cell), f"{path.name}: {cell}"


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("kind", [object, "category", "string"])
def test_an_apostrophe_goes_before_formulas_alone(kind: Any) -> None:
    cells = [FORMULA, "+1+1", "@x", "-a", "\tx", "-1.5", "+2", "plain", "a=b"]
    table = pd.DataFrame({"=n": pd.Series(cells, dtype=kind), "x": range(-4, 5)})
    written = list(csv.reader(csv_bytes(table).decode().splitlines()))
    assert written[0] == ["'=n", "x"]
    assert [row[0] for row in written[1:]] == [*(f"'{cell}" for cell in cells[:5]), *cells[5:]]
    assert [row[1] for row in written[1:]] == [str(k) for k in range(-4, 5)]
    assert table["=n"].tolist() == cells
    exact = list(csv.reader(csv_bytes(table, exact=True).decode().splitlines()))
    assert [row[0] for row in exact] == ["=n", *cells]


def test_messages_cannot_steer_a_terminal() -> None:
    assert visible("a\x1b[31mb\x00\x7f\u202ec\ud800 ü 北") == "a\\x1b[31mb\\x00\\x7f\\u202ec\\ud800 ü 北"
    assert visible("one\ntwo\tthree") == "one\ntwo\tthree"
    assert str(InputError(f"'{ESCAPE}' is none.")) == "'\\x1b]0;owned\\x07\\x1b[2J' is none."
    assert "\x1b" not in str(unknown_name("label", ESCAPE, ["edema", ESCAPE]))
    long = str(InputError("begin " + "x" * 1_000_000 + " end"))
    assert len(long) < 1_100
    assert (long[:6], long[-4:]) == ("begin ", " end")
