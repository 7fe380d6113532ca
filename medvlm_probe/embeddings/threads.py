"""How many cores this process may use, and decoding threads that leave them to the model while it runs."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def available_cores() -> int:
    """Return the cores that this process may use: its affinity, cut by its control group's quota, at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_cores(CGROUP_LIMIT.read_text()) if CGROUP_LIMIT.is_file() else None
    return affinity if quota is None else min(affinity, quota)


def cgroup_cores(limit: str) -> int | None:
    """Return the cores that a control group's `cpu.max` ("200000 100000": quota and period) allows; None: no limit."""
    quota, period = limit.split()
    return None if quota == "max" else max(1, int(quota) // int(period))


def default_workers() -> int:
    """Return how many threads decode images: one a core, or `$OMP_NUM_THREADS` where it is set to fewer."""
    first_level = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    asked = int(first_level) if first_level.isdecimal() else 0
    return min(available_cores(), asked) if asked else available_cores()


@contextmanager
def torch_threads() -> Iterator[int]:
    """Hold torch to the cores that this process may use; gives the number of threads, and puts the old one back."""
    import torch

    before = torch.get_num_threads()
    n_threads = min(before, available_cores())
    torch.set_num_threads(n_threads)
    try:
        yield n_threads
    finally:
        torch.set_num_threads(before)


@contextmanager
def decoding_pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Give a pool whose threads run torch's small tensor operations alone; what is still queued at the end is dropped.

    Without this, each decoding thread that touches a tensor would start a team of OpenMP threads of its own.
    """
    import torch

    n_threads = torch.get_num_threads()
    all_started = threading.Barrier(workers)
    with ThreadPoolExecutor(workers, "decode", initializer=_compute_alone) as pool:
        try:
            for started in [pool.submit(all_started.wait) for _ in range(workers)]:
                started.result()
            torch.set_num_threads(n_threads)
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _compute_alone() -> None:
    import torch

    # The number set last holds for threads that torch has not met yet; asking for it makes this thread known, so that
    # it keeps 1 when the number is put back for the thread that runs the model.
    torch.set_num_threads(1)
    torch.get_num_threads()
