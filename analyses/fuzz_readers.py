"""Changed files through every reader: how each ends, counted.

    python analyses/fuzz_readers.py [--inputs 160] [--slow-inputs 40] [--only NAME]

Every reader of `tests/hardening/every_reader.py` gets a valid file changed by `mutated_files.mutated`, again and again.
A process of its own reads them, with 2 GiB of memory beyond what it began with and `SECONDS` for each file; where it
ends or waits too long, that file counts, and a new process goes on behind it. Writes figures/hardening/fuzz.csv, a row
a reader: `read` ended in a result, `refused` in an error of `medvlm_probe.errors`, `failed` in anything else (another
exception, a crash, too long, too much memory), `most_seconds` and `most_mib` for one file. Prints the failures, with
the number that makes the file again (`--only NAME --first NUMBER --inputs 1 --traceback`).
"""

from __future__ import annotations

import argparse
import csv
import gc
import importlib
import os
import pkgutil
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "tests" / "hardening"))  # the tests run the same readers

from every_reader import READERS, Reader  # noqa: E402
from mutated_files import mutated  # noqa: E402

from medvlm_probe.errors import ProbeError  # noqa: E402

OUT = PROJECT / "figures" / "hardening" / "fuzz.csv"
COLUMNS = ("reader", "inputs", "read", "refused", "failed", "most_seconds", "most_mib")
SECONDS = 10
MEMORY = 2 << 30
LONGEST_MESSAGE = 1_500


def changed(data: bytes, reader: Reader, position: int, number: int) -> tuple[bytes, bool]:
    """Return the changed file of a number, and whether its checksums are made true again."""
    rng = np.random.default_rng([position, number])
    return mutated(data, reader.kind, rng), bool(rng.random() < 0.7)


def read_all(position: int, first: int, last: int, sender: Connection, *, show: bool) -> None:
    """Read the files of these numbers, and send (number, outcome, seconds, MiB that the process grew by)."""
    reader = READERS[position]
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text) / "subject"
        folder.mkdir()
        subject = reader.make(folder)
        subject.read()
        data = subject.file.read_bytes()
        own = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (own + MEMORY, own + MEMORY))
        for number in range(first, last):
            content, sealed = changed(data, reader, position, number)
            subject.file.write_bytes(content)
            if sealed and subject.seal is not None:
                subject.seal()
            sender.send((number, "begun", 0.0, 0.0))
            before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
            outcome = "read"
            try:
                subject.read()
            except ProbeError as error:
                outcome = (
                    "refused" if len(str(error)) <= LONGEST_MESSAGE else f"a message of {len(str(error)):,} letters"
                )
            except BaseException as error:
                if show:
                    traceback.print_exc()
                outcome = f"{type(error).__name__}: {str(error)[:120]}"
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            sender.send((number, outcome, time.perf_counter() - began, grown))


def fuzzed(
    position: int, first: int, n: int, *, show: bool
) -> tuple[Counter[str], list[tuple[int, str]], float, float]:
    """Return the counts of a reader, its failures, and the most seconds and MiB of one file."""
    counts: Counter[str] = Counter()
    failures: list[tuple[int, str]] = []
    most_seconds = most_mib = 0.0
    number, end = first, first + n
    while number < end:
        receiver, sender = Pipe(duplex=False)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                if not show:
                    quiet = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(quiet, 1)
                    os.dup2(quiet, 2)
                receiver.close()
                read_all(position, number, end, sender, show=show)
                code = 0
            except BaseException as error:
                sender.send((-1, "".join(traceback.format_exception(error)), 0.0, 0.0))
            finally:
                os._exit(code)
        sender.close()
        begun = -1
        while number < end:
            ready = select.select([receiver], [], [], 60 if begun < 0 else SECONDS)[0]
            try:
                if not ready:
                    raise TimeoutError
                of, outcome, seconds, mib = receiver.recv()
            except (EOFError, TimeoutError) as error:
                if begun < 0:
                    raise SystemExit(f"{READERS[position].name}: the valid file is not read: {error!r}") from error
                failures.append((begun, "too long" if isinstance(error, TimeoutError) else "crashed"))
                counts["failed"] += 1
                number = begun + 1
                break
            if of < 0:
                raise SystemExit(f"{READERS[position].name}: the valid file cannot be read: {outcome}")
            if outcome == "begun":
                begun = of
                continue
            kind = outcome if outcome in ("read", "refused") else "failed"
            counts[kind] += 1
            if kind == "failed":
                failures.append((of, outcome))
            most_seconds, most_mib = max(most_seconds, seconds), max(most_mib, mib)
            number = of + 1
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        receiver.close()
    return counts, failures, most_seconds, most_mib


def import_everything() -> None:
    """Import what readers import late, once, before the processes part."""
    import medvlm_probe

    ours = [found.name for found in pkgutil.walk_packages(medvlm_probe.__path__, "medvlm_probe.")]
    for name in (*ours, "open_clip", "transformers", "pyarrow.parquet", "pyarrow.csv", "safetensors.torch", "jinja2"):
        with suppress(ImportError):
            importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    gc.freeze()


def keep(rows: list[tuple[object, ...]]) -> None:
    OUT.parent.mkdir(parents=True, exist_ok=True)
    with OUT.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=160)
    parser.add_argument("--slow-inputs", type=int, default=40)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only")
    parser.add_argument("--traceback", action="store_true")
    given = parser.parse_args()
    import_everything()
    tempfile.tempdir = tempfile.mkdtemp()
    rows: list[tuple[Any, ...]] = []
    for position, reader in enumerate(READERS):
        if given.only and given.only != reader.name:
            continue
        n = min(given.inputs, given.slow_inputs) if reader.slow else given.inputs
        counts, failures, seconds, mib = fuzzed(position, given.first, n, show=given.traceback)
        rows.append(
            (reader.name, n, *(counts[k] for k in ("read", "refused", "failed")), f"{seconds:.2f}", f"{mib:.0f}")
        )
        print(*rows[-1], sep=", ", flush=True)
        for number, why in failures:
            print(f"    {number}: {why}", flush=True)
        if not given.only:
            keep(rows)
    shutil.rmtree(tempfile.tempdir)
    print(f"{sum(row[1] for row in rows):,} files, {sum(row[4] for row in rows)} failures")


if __name__ == "__main__":
    main()
