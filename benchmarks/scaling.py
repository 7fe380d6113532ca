"""How the analyses' time and memory grow with the number of images, up to 400,000 x 512 with 14 labels.

    python -m benchmarks.scaling [--sizes N ...] [--tasks NAME ...] [--limit-seconds S] [--limit-gib G]

Each task runs at each size in a process of its own, with its memory limited. Beside each stands the floor: the matrix
products that it needs at the machine's measured rate, or the bytes of its inputs at the rate of memory, whichever is
more. Two thirds of the images share a patient with another one; the site of the two-sample tests is a shifted one, so
that none of them stops early. Sizes at which a task ran out of time are extrapolated from its three largest sizes, and
marked in the column `extrapolated`.
Writes figures/benchmarks/scaling.csv, in which the rows of other tasks and sizes stay, and scaling.svg.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

PROJECT = Path(__file__).resolve().parents[1]
RESULT = PROJECT / "figures" / "benchmarks" / "scaling.csv"
SIZES = (1_000, 3_000, 10_000, 30_000, 100_000, 400_000)
DIMENSIONS = 512
PREVALENCES = (0.629, 0.135, 0.109, 0.057, 0.043, 0.043, 0.034, 0.033, 0.018, 0.018, 0.015, 0.013, 0.008, 0.005)
LABELS = tuple(f"label_{k}" for k in range(len(PREVALENCES)))


@dataclass(frozen=True, eq=False)
class Data:
    """Embeddings (n, 512), labels (n, 14), patients (n,), logits (n, 14)."""

    x: np.ndarray
    y: np.ndarray
    groups: np.ndarray
    logits: np.ndarray

    @property
    def halves(self) -> tuple[slice, slice]:
        """Two halves that share no patient."""
        n = len(self.x)
        middle = int(np.searchsorted(self.groups, self.groups[n // 2]))
        return slice(0, middle), slice(middle, n)


def data(n: int) -> Data:
    """Return made data: labels at IU-Xray's prevalences that move the embeddings a little."""
    rng = np.random.default_rng(0)
    y = (rng.random((n, len(PREVALENCES))) < PREVALENCES).astype(np.float64)
    x = rng.standard_normal((n, DIMENSIONS), dtype=np.float32)
    x *= np.linspace(2, 0.2, DIMENSIONS, dtype=np.float32)
    x[:, : len(PREVALENCES)] += y.astype(np.float32)
    logits = 2 * x[:, : len(PREVALENCES)].astype(np.float64) - 2 + rng.normal(size=y.shape)
    rows = np.arange(n)
    return Data(x, y, 2 * (rows // 3) + (rows % 3 == 2), logits)


def distances(d: Data) -> None:
    from medvlm_probe.metrics.separability import class_distances

    class_distances(d.x, d.y, d.groups, label_names=LABELS, rng=np.random.default_rng(0))


def crowded(d: Data) -> None:
    from medvlm_probe.metrics.crowding import crowding

    crowding(d.x, d.y, d.groups, label_names=LABELS, rng=np.random.default_rng(0))


def performance(d: Data) -> None:
    from medvlm_probe.metrics.classification import label_performance

    label_performance(d.y, d.logits, d.groups, label_names=LABELS, thresholds=dict.fromkeys(LABELS, 0.0))


def bootstrap(d: Data) -> None:
    from medvlm_probe.metrics.bootstrap_performance import performance_replicates, replicate_weights

    weights = replicate_weights(d.groups, 1_000, np.random.default_rng(0))
    performance_replicates(d.y, d.logits, d.groups, weights, thresholds=np.zeros(len(LABELS)))


def calibration(d: Data) -> None:
    from medvlm_probe.metrics.calibration import multilabel_calibration

    p = 1 / (1 + np.exp(-d.logits))
    multilabel_calibration(p, d.y, d.groups, label_names=LABELS, rng=np.random.default_rng(0))


def shift(d: Data) -> None:
    from medvlm_probe.shift.shift_tests import test_shift

    first, second = d.halves
    site = d.x[second].copy()
    site[:, :50] += 1
    test_shift(d.x[first], site, d.groups[first], d.groups[second], rng=np.random.default_rng(0))


def outliers(d: Data) -> None:
    from medvlm_probe.shift.outlier_scores import METHODS, OutlierInputs, fit_outlier_score
    from medvlm_probe.shift.outliers import outlier_performance

    first, second = d.halves
    own, new = (OutlierInputs(d.x[half], d.logits[half], np.tanh(d.logits[half])) for half in d.halves)
    classes = d.y[first, 1].astype(np.int64)
    middle = len(own) // 2
    for name in METHODS:
        fitted = fit_outlier_score(name, own.rows(slice(0, middle)), classes[:middle])
        scores = fitted.scores(own.rows(slice(middle, None))), fitted.scores(new)
        rng = np.random.default_rng(0)
        outlier_performance(*scores, d.groups[first][middle:], d.groups[second], rng=rng)


def probe(d: Data) -> None:
    from medvlm_probe.tuning.linear_probe import fit_linear_probe

    fit_linear_probe(d.x, d.y, d.groups, LABELS)


def projection(d: Data) -> None:
    from medvlm_probe.embeddings.projection import project

    project(d.x)


@dataclass(frozen=True)
class Task:
    """What is timed.

    Attributes:
        run: the analysis.
        products: floating-point operations of the matrix products that it cannot do without, of n.
        words: for the figure.
        power: of n, with which the part grows that is largest in the end.
        since: the number of images from which it does so, a cap being reached.
    """

    run: Callable[[Data], None]
    products: Callable[[int], float]
    words: str
    power: int = 1
    since: int = 0


def shift_products(n: int) -> float:
    """Return the operations of five permutation tests: two kernels, discriminants, covariances of 64 directions."""
    from medvlm_probe.shift.mmd import EXACT_GROUPS, N_FREQUENCIES
    from medvlm_probe.shift.shift_tests import MANY_GROUPS, N_PERMUTATIONS, PERMUTATIONS_OF_MANY

    groups = 2 * n / 3
    exact = min(groups, EXACT_GROUPS)
    mmd = 2 * groups * (groups if groups <= EXACT_GROUPS else 2 * N_FREQUENCIES)
    one = mmd + 2 * exact**2 + 2 * (groups + n) * DIMENSIONS + 2 * groups * 64 * 65 / 2
    return one * (N_PERMUTATIONS if groups <= MANY_GROUPS else PERMUTATIONS_OF_MANY)


def outlier_products(n: int) -> float:
    """Return the operations of the neighbours of three quarters of the images among the rest, and of rotations."""
    from medvlm_probe.shift.outlier_scores import MOST_NEIGHBOURS_AMONG

    return 2 * 0.75 * n * DIMENSIONS * (min(n / 4, MOST_NEIGHBOURS_AMONG) + 4 * DIMENSIONS)


TASKS: dict[str, Task] = {
    "distances": Task(distances, lambda n: n * n * DIMENSIONS, "class distances and purity", power=2),
    "crowding": Task(crowded, lambda n: n * n * DIMENSIONS, "crowding of labels", power=2),
    "shift": Task(shift, shift_products, "five two-sample tests", since=75_000),
    "outliers": Task(outliers, outlier_products, "nine outlier scores", since=40_000),
    "calibration": Task(calibration, lambda _: 0.0, "every calibration metric", since=20_000),
    "bootstrap": Task(bootstrap, lambda _: 0.0, "1,000 bootstraps"),
    "performance": Task(performance, lambda _: 0.0, "recall, AUROC, intervals"),
    "probe": Task(probe, lambda n: 2 * n * DIMENSIONS**2, "linear probes"),
    "projection": Task(projection, lambda n: 2 * n * DIMENSIONS**2, "principal components"),
}


def peak_gib() -> float:
    """Return this process's peak memory; `getrusage` would begin with that of the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**20


def measured(name: str, n: int, limit_gib: float) -> dict[str, Any]:
    """Run a task here, and return its seconds and its peak memory beyond the inputs."""
    limit = int(limit_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    given = data(n)
    TASKS[name].run(data(600))
    before = peak_gib()
    wall, processor = time.perf_counter(), time.process_time()
    TASKS[name].run(given)
    return {
        "seconds": time.perf_counter() - wall,
        "processor_seconds": time.process_time() - processor,
        "extra_gib": peak_gib() - before,
        "peak_gib": peak_gib(),
    }


def run(sizes: list[int], names: list[str], limit_seconds: float, limit_gib: float) -> pd.DataFrame:
    """Return a row for each task and size; `outcome` says `done`, or why there is no number."""
    from benchmarks.machine import memory_rate, product_rate

    products, memory = product_rate(clock=time.process_time), memory_rate(clock=time.process_time)
    rows: list[dict[str, Any]] = []
    for name in names:
        for n in sizes:
            floor = max(TASKS[name].products(n) / products, n * (DIMENSIONS * 4 + 2 * 8 * len(LABELS)) / memory)
            row: dict[str, Any] = {"task": name, "n": n, "floor_seconds": floor, "extrapolated": False}
            command = [sys.executable, "-m", "benchmarks.scaling", "--one", name, str(n), str(limit_gib)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, timeout=limit_seconds)
                out_of_memory = "MemoryError" in done.stderr or done.returncode < 0
                row["outcome"] = "done" if done.returncode == 0 else "out of memory" if out_of_memory else "failed"
                row |= json.loads(done.stdout) if done.returncode == 0 else {}
                said = done.stderr.strip().splitlines()[-1:] if done.returncode else ""
            except subprocess.TimeoutExpired:
                row["outcome"], said = f"over {limit_seconds:g} s", ""
            rows.append(row)
            print(row, *said, file=sys.stderr, flush=True)
    return pd.DataFrame(rows)


NUMBERS = ("processor_seconds", "extra_gib", "peak_gib")


def joined(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of both tables, the new ones in place of old ones of their task and size, in order."""
    table = pd.concat([old, new]).drop_duplicates(["task", "n"], keep="last")
    place = table["task"].map({name: k for k, name in enumerate(TASKS)})
    return table.assign(place=place).sort_values(["place", "n"]).drop(columns="place").reset_index(drop=True)


def extrapolated(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with numbers where a task ran out of time, by a fit to its three largest sizes.

    Processor time is the floor, a constant, a part in proportion to n and, for tasks that compare all pairs, one to
    n^2, none below 0; memory is a constant and a part in proportion to n. Where only one size lies beyond a task's cap,
    everything is in proportion to it.
    """
    table = table.copy()
    for name, rows in table.groupby("task", sort=False):
        task = TASKS[str(name)]
        done = rows[(rows["outcome"] == "done") & (rows["n"] >= task.since)].tail(3)
        for index, row in rows[rows["outcome"].str.startswith("over")].iterrows():
            if not len(done) or row["n"] < done["n"].max():
                continue
            for column in NUMBERS:
                timed = column == "processor_seconds"
                below, floor = (done["floor_seconds"], row["floor_seconds"]) if timed else (0.0, 0.0)
                beyond = _fitted(done["n"], done[column] - below, float(row["n"]), task.power if timed else 1)
                table.loc[index, column] = floor + beyond
            table.loc[index, "extrapolated"] = True
    return table


def _fitted(sizes: pd.Series, values: pd.Series, at: float, power: int) -> float:
    from scipy.optimize import nnls

    powers = np.arange(power + 1) if len(sizes) > 1 else np.array([power])
    known = values.to_numpy(float)
    # Each equation over its value: sizes then count alike.
    basis = (sizes.to_numpy(float)[:, None] / at) ** powers / known[:, None]
    return float(nnls(basis, np.ones(len(known)))[0].sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="*", type=int, default=list(SIZES), help="none: draw what is there")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--limit-seconds", type=float, default=3_600.0, help="of one task at one size")
    parser.add_argument("--limit-gib", type=float, default=24.0, help="of memory of one task")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        name, n, limit_gib = given.one
        print(json.dumps(measured(name, int(n), float(limit_gib))))
        return
    from benchmarks.scaling_figure import draw
    from medvlm_probe.plots.style import figure_bytes

    found = run(given.sizes, given.tasks, given.limit_seconds, given.limit_gib)
    before = [pd.read_csv(given.out)] if given.out.is_file() else []
    table = extrapolated(joined(pd.concat(before), found) if before else found)
    print(table.to_string(index=False))
    table.to_csv(given.out, index=False, float_format="%.4g", lineterminator="\n")
    words = {name: task.words for name, task in TASKS.items()}
    given.out.with_suffix(".svg").write_bytes(figure_bytes(draw(table, words), "svg"))


if __name__ == "__main__":
    main()
