"""Every test, script and file that SECURITY.md names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
TEXT = (PROJECT / "SECURITY.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)


def test_every_test_that_is_named_exists() -> None:
    assert len(NAMED) > 30
    for file, test in NAMED:
        tree = ast.parse((PROJECT / file).read_text(encoding="utf-8"))
        assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{file}::{test}"


def test_every_script_that_is_named_exists() -> None:
    for path in re.findall(r"((?:analyses|benchmarks|tests|figures)/[\w/]+\.(?:py|csv))", TEXT):
        assert (PROJECT / path).is_file(), path


def test_every_promise_names_a_test() -> None:
    promised = TEXT.partition("## What is promised")[2].partition("## What is not promised")[0]
    for promise in re.split(r"\n- ", promised)[1:]:
        assert "`tests/" in promise, promise[:80]
