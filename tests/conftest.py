"""Fixtures that several parts' tests share."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

PROJECT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each process slow modules to begin with, so that none ends alone with one of them.

    Processes that steal work begin with equal shares of the order in which tests were collected.
    """
    n = int(getattr(config, "workerinput", {}).get("workercount", 1))
    slow = [item for item in items if item.get_closest_marker("slow")]
    fast = iter([item for item in items if not item.get_closest_marker("slow")])
    modules = list(dict.fromkeys(item.path for item in slow))
    order: list[pytest.Item] = []
    for share in range(n):
        order += [item for item in slow if modules.index(item.path) % n == share]
        order += islice(fast, max(len(items) * (share + 1) // n - len(order), 0))
    items[:] = [*order, *fast]


@pytest.fixture(scope="session")
def pasted_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all documents and processes, as a reader who pastes every command would have."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "pasted_cache"


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed, new for each test."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real radiographs and weights beside the project; tests that need it skip where it is absent."""
    folder = PROJECT.parent / "shared"
    if not (folder / "real_cxr").is_dir():
        pytest.skip("needs real radiographs and weights in ../shared, which is not present")
    return folder
