"""Run the console script in this process: fast, and with everything that it prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]
CANARY = "ZZCANARY"


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests of a process: what one has embedded, the next one reads."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], session_cache: Path, tmp_path: Path
) -> Run:
    """Return a function that runs `medvlm-probe` with arguments, in an empty folder."""
    from medvlm_probe.cli.main import main

    monkeypatch.setenv("MEDVLM_PROBE_CACHE", str(session_cache))
    monkeypatch.chdir(tmp_path)

    def command(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["medvlm-probe", *map(str, arguments)])
        capsys.readouterr()
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        printed = capsys.readouterr()
        return Ran(code, printed.out, printed.err)

    return command


@pytest.fixture(scope="session")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folders of phantoms with canaries in paths, patients, reports, extra columns, and names that do harm."""
    from medvlm_probe.cohort.catalog import load_cohort
    from medvlm_probe.cohort.phantom_export import export_phantoms

    folders = []
    for name, spec in (
        ("reference", "phantom:sites=reference,n=50,prevalence=balanced"),
        (f"{CANARY}-new", "phantom:sites=community,n=60,prevalence=balanced,seed=3"),
    ):
        folder = tmp_path_factory.mktemp("hospitals") / name
        export_phantoms(load_cohort(spec).source.cases, folder, format="png", size=64)  # type: ignore[attr-defined]
        folders.append(folder)
    path = folders[1] / "manifest.csv"
    table = pd.read_csv(path, dtype=str)
    table["site"] = ["=cmd('x')" if k % 2 else "</script><b>" for k in range(len(table))]
    table["patient"] = [f"{CANARY}-{p}" for p in table["patient"]]
    table["report"] = f"{CANARY} says the report"
    table["view"] = [f"{CANARY} view" if k % 3 else "PA" for k in range(len(table))]
    table["ward"] = f"{CANARY}-ward"
    for image in table["image"]:
        target = folders[1] / "images" / CANARY / Path(image).name
        target.parent.mkdir(parents=True, exist_ok=True)
        (folders[1] / image).rename(target)
    table["image"] = [f"images/{CANARY}/{Path(image).name}" for image in table["image"]]
    table.to_csv(path, index=False)
    return folders[0], folders[1]
