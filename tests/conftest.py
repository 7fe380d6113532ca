"""Fixtures that several parts' tests share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

PROJECT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow tests, so that no process ends alone with one of them."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


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
