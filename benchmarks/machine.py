"""What this machine can do at all: its rate of matrix products and of memory, and its name."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def product_rate(size: int = 1024, repeats: int = 15, *, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the rate of float32 matrix products with the threads that are allowed now, operations per second."""
    a, b = np.random.default_rng(0).normal(size=(2, size, size)).astype(np.float32)
    a @ b.T
    return 2 * size**3 / _median_seconds(lambda: a @ b.T, repeats, clock)


def memory_rate(repeats: int = 7, *, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return how many bytes of an array beyond the caches one thread reads a second."""
    values = np.ones(1 << 26, dtype=np.float32)
    values.sum()
    return values.nbytes / _median_seconds(values.sum, repeats, clock)


def _median_seconds(task: Callable[[], object], repeats: int, clock: Callable[[], float]) -> float:
    seconds = []
    for _ in range(repeats):
        start = clock()
        task()
        seconds.append(clock() - start)
    return statistics.median(seconds)


def machine_facts() -> dict[str, Any]:
    """Return processor, cores, load and the versions of what computes."""
    import torch

    from medvlm_probe.embeddings.threads import available_cores

    return {
        "processor": processor(),
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "load_average": round(os.getloadavg()[0], 2),
    }


def processor() -> str:
    """Return the processor's model name as the system gives it."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
