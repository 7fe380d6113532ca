"""Run the console script in this process: fast, and with everything that it prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
