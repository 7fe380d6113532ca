"""Cores, quotas and threads: no more than this process may use, and decoding threads that start no others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from medvlm_probe.embeddings import threads
from medvlm_probe.embeddings.threads import available_cores, cgroup_cores, decoding_pool, default_workers, torch_threads


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with affinity to eight cores and no quota; the quota's file."""
    limit = tmp_path / "cpu.max"
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(threads, "CGROUP_LIMIT", limit)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return limit


@pytest.mark.parametrize(
    ("limit", "cores"), [("max 100000\n", None), ("200000 100000\n", 2), ("50000 100000\n", 1), ("350000 100000", 3)]
)
def test_quotas(limit: str, cores: int | None) -> None:
    assert cgroup_cores(limit) == cores


def test_cores_are_affinity_cut_by_quota(eight_cores: Path) -> None:
    assert available_cores() == 8
    eight_cores.write_text("max 100000\n")
    assert available_cores() == 8
    eight_cores.write_text("300000 100000\n")
    assert available_cores() == 3


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(("given", "workers"), [("", 8), ("2", 2), ("4,2", 4), ("99", 8), ("0", 8), ("many", 8)])
def test_workers_follow_omp_num_threads(monkeypatch: pytest.MonkeyPatch, given: str, workers: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert default_workers() == workers


def test_torch_uses_no_more_than_the_cores(eight_cores: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(6)
        with torch_threads() as n_threads:
            assert n_threads == torch.get_num_threads() == 6
        eight_cores.write_text("300000 100000\n")
        with torch_threads() as n_threads:
            assert n_threads == torch.get_num_threads() == 3
        assert torch.get_num_threads() == 6
    finally:
        torch.set_num_threads(before)


def test_decoding_threads_compute_alone_and_the_model_with_all() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with decoding_pool(2) as pool:
            assert torch.get_num_threads() == 3
            assert list(pool.map(lambda _: torch.get_num_threads(), range(8))) == [1] * 8
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_an_error_drops_what_is_still_queued() -> None:
    done: list[int] = []

    def fail_early() -> None:
        with decoding_pool(1) as pool:
            for number in range(10_000):
                pool.submit(done.append, number)
            raise KeyError

    with pytest.raises(KeyError):
        fail_early()
    assert len(done) < 10_000
