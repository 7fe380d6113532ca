"""What `embed --engine ray` costs beside the local engine, and what a large cohort costs by what was measured.

    python -m benchmarks.distributed_embed [--images N] [--text]

Files of phantoms through phantom-clip, one thread a copy of the model: the local engine, then Ray on this machine with
one and two copies. The caches must be equal byte for byte. Beside wall time stands the processor time of all processes,
since other work on the machine slows the one and not the other; what starts and stops (processes, imports, weights) is
counted apart, up to the first batch that comes back. Then the cost of an image alone, decoding and model apart, for
phantom-clip and for a ViT-B/16 on 512-pixel files; weights are random, on which time does not depend.

`--text` prints the README's paragraphs from the result that was written last, and measures nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from benchmarks.embed_throughput import build, write_radiographs
from benchmarks.machine import machine_facts
from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.embeddings.distributed import RayEngine
from medvlm_probe.embeddings.engines import Engine, EngineOptions, LocalEngine, open_engine
from medvlm_probe.embeddings.extract import embed
from medvlm_probe.embeddings.forward import start_batch_size
from medvlm_probe.embeddings.precision import at_precision, encode, fast_precision
from medvlm_probe.models.contract import VisionLanguageModel
from medvlm_probe.models.zoo import load_model

RESULT = Path(__file__).resolve().parents[1] / "figures" / "benchmarks" / "distributed_embed.json"
LARGE = 377_110
"""Images of MIMIC-CXR."""

ROW_BYTES = 4 * 512 + 64
"""Of a vector and its key."""

BATCH = start_batch_size(torch.device("cpu"))
_TICKS = os.sysconf("SC_CLK_TCK")


class ProcessorTime:
    """Seconds of processor time of this process and of all below it, the ended ones included."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> ProcessorTime:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def seconds(self) -> float:
        """Return the sum by now."""
        self._look(os.getpid())
        return sum(self._seconds.values())

    def _watch(self) -> None:
        while not self._ended.wait(2.0):
            self._look(os.getpid())

    def _look(self, pid: int) -> None:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            children = [task.read_text().split() for task in Path(f"/proc/{pid}/task").glob("*/children")]
        except (FileNotFoundError, ProcessLookupError):
            return
        self._seconds[pid] = (int(fields[11]) + int(fields[12])) / _TICKS
        for child in chain.from_iterable(children):
            self._look(int(child))


def write_phantoms(folder: Path, n: int) -> Cohort:
    """Write PNGs of phantoms, 224 pixels; return them as a cohort."""
    source = load_cohort(f"phantom:sites=reference,n={n}").source
    folder.mkdir()
    for row in range(n):
        source.read(row).save(folder / f"{row:05d}.png")
    return load_cohort(str(folder))


def run(cohort: Cohort, model: VisionLanguageModel, cache: Path, engine: Engine) -> dict[str, Any]:
    """Return what one engine takes for a cohort; what starts lies before the first batch that comes back."""
    marks: list[tuple[int, float, float]] = []
    with ProcessorTime() as spent:
        before, started = spent.seconds(), time.perf_counter()

        def note(done: int, total: int, seconds: float) -> None:
            if done and (not marks or done == total):
                marks.append((done, time.perf_counter(), spent.seconds()))

        embed(cohort, model, precision="float32", cache_dir=cache, engine=engine, progress=note)
    (first, first_at, first_spent), (last, last_at, last_spent) = marks
    found = {
        "engine": engine.name,
        "model_workers": engine.model_workers,
        "images": last - first,
        "start_seconds": first_at - started,
        "start_core_seconds": first_spent - before,
        "images_per_second": (last - first) / (last_at - first_at),
        "core_milliseconds_per_image": 1000 * (last_spent - first_spent) / (last - first),
    }
    print(json.dumps(found), file=sys.stderr, flush=True)
    return found


def core_milliseconds(task: Callable[[], object], n_images: int, repeats: int = 3) -> float:
    """Return the median processor time of a task, an image."""
    found = []
    for _ in range(repeats):
        started = time.process_time()
        task()
        found.append(1000 * (time.process_time() - started) / n_images)
    return statistics.median(found)


def parts_of(name: str, model: VisionLanguageModel, cohort: Cohort, n: int) -> dict[str, Any]:
    """Return the cost of one image, decoding and model apart, on one core."""
    pixels = [model.preprocess(cohort.source.read(row)) for row in range(n)]
    batch = torch.stack([pixels[i % n] for i in range(BATCH)])
    precision = fast_precision(torch.device("cpu"))
    twin = at_precision(model, precision)
    found = {
        "model": name,
        "precision": precision,
        "decode": core_milliseconds(
            lambda: [model.preprocess(cohort.source.read_with_key(row)[0]) for row in range(n)], n
        ),
        "model_milliseconds": core_milliseconds(lambda: encode(twin, batch, precision), BATCH),
    }
    print(json.dumps(found), file=sys.stderr, flush=True)
    return found


def measure(n: int) -> dict[str, Any]:
    """Return everything that is measured."""
    torch.set_num_threads(1)
    facts = machine_facts()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cohort, model = write_phantoms(folder / "phantoms", n), load_model()
        parts = [parts_of("phantom-clip", model, cohort, 32)]
        large, _ = build()
        write_radiographs(folder / "large", 16, 512, 512)
        parts.append(parts_of("ViT-B/16", large, load_cohort(str(folder / "large")), 16))
        runs = [run(cohort, model, folder / "local", LocalEngine())]
        with open_engine("ray", EngineOptions("phantom-clip", model_workers=2, workers=1)) as engine:
            assert isinstance(engine, RayEngine)
            for workers in (1, 2):
                cache = folder / f"ray-{workers}"
                runs.append(run(cohort, model, cache, replace(engine, model_workers=workers)))
                assert bytes_of(cache) == bytes_of(folder / "local")
    return {"machine": facts, "threads": 1, "batch": BATCH, "runs": runs, "parts": parts}


def bytes_of(folder: Path) -> dict[str, str]:
    """Return the hash of each file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def hours(part: dict[str, Any], model_workers: int, decoders: int, n_images: int = LARGE) -> float:
    """Return the hours of a cohort: the slower of reading and the model sets the pace."""
    pace = max(part["model_milliseconds"] / model_workers, part["decode"] / decoders)
    return n_images * pace / 3_600_000


def scale_text(found: dict[str, Any]) -> str:
    """Return the README's paragraphs."""
    local, one, two = found["runs"]
    large = found["parts"][1]
    rows = [(1, 1), (2, 1), (4, 1), (8, 1), (16, 2), (32, 4)]
    machine = found["machine"]
    lines = [
        f"`embed --engine ray` gives the bytes of `--engine local`. Measured on {machine['cores']} cores "
        f"({machine['processor']}, load average {machine['load_average']:g}), {local['images']:,} phantoms "
        f"through phantom-clip, one thread a copy of the model: the local engine {_said(local)}; Ray with one copy "
        f"{_said(one)}; with two {_said(two)}. Starting Ray's processes takes {one['start_core_seconds']:.0f} to "
        f"{two['start_core_seconds']:.0f} core-seconds: it pays from some thousand images on.",
        "",
        f"A ViT-B/16 (BiomedCLIP's size, {large['precision']}) takes {large['model_milliseconds']:.0f} ms of a core an "
        f"image, reading a 512-pixel PNG {large['decode']:.1f} ms. N images with W copies of the model, one core each, "
        "and D decoders take N x max(model / W, reading / D). Beyond two copies this is computed, not measured:",
        "",
        f"| Copies of the model (cores) | Decoders (cores) | Hours for {LARGE:,} images |",
        "|---:|---:|---:|",
        *(f"| {w} | {d} | {hours(large, w, d):,.1f} |" for w, d in rows),
        "",
        f"Time grows in proportion to the images; memory does not. The store takes {ROW_BYTES:,} bytes an image of 512 "
        f"dimensions, {ROW_BYTES * LARGE / 1e9:.2f} GB in all. A second run computes nothing: it hashes the files.",
    ]
    return "\n".join(lines)


def _said(found: dict[str, Any]) -> str:
    return f"{found['images_per_second']:.1f} images/s, {found['core_milliseconds_per_image']:.0f} core-ms an image"


def main() -> None:
    parser = argparse.ArgumentParser(description="Embedding on Ray beside the local engine.")
    parser.add_argument("--images", type=int, default=512, help="how many phantoms")
    parser.add_argument("--text", action="store_true", help="print the README's paragraphs; measure nothing")
    given = parser.parse_args()
    if not given.text:
        found = measure(given.images)
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(found, indent=2) + "\n")
    print(scale_text(json.loads(RESULT.read_text())))


if __name__ == "__main__":
    main()
