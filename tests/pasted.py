"""Commands as they stand in documents."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import pytest

POLICY_FAILED = 3


def run_line(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a command in this process, and return how it ended."""
    from medvlm_probe.cli.main import main

    monkeypatch.setattr(sys, "argv", shlex.split(line))
    code: Any = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    return int(code)
