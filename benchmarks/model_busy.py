"""Whether `embed` keeps a fast model busy: one that sleeps as long as a GPU would take, on 512-pixel PNGs.

    python -m benchmarks.model_busy [--quick]

Sleeping leaves the cores to decoding, as work on a GPU does; as on CUDA, two batches are decoded ahead. Decoding must
be able to keep up: how long it takes an image with all threads and nothing beside is measured first, in wall time with
whatever else the machine does, and the model sleeps four times as long, at least 1 ms, so that decoding keeps up even
while others take most of the cores. A GPU with more cores beside it is the same case at another scale.

Ours is the whole call with an empty cache: hashing, the check against float32, decoding, the model, publishing. Instead
stands the loop that decodes a batch and then calls the model, on one image of eight. The floor is the model's own time
without the check; floor over ours is the share of the wall time in which the model did what it was there for. Beside it
stands the share from the first batch to the last, as in a cohort so large that the start does not count. Both ways must
give the same bytes. Writes figures/benchmarks/model_busy.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks.embed_throughput import write_radiographs
from benchmarks.machine import machine_facts
from benchmarks.table import Row
from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.images import ImageSource
from medvlm_probe.embeddings.batches import load_batches, split, unique_items
from medvlm_probe.embeddings.extract import Embedded, embed
from medvlm_probe.embeddings.precision import CHECK_IMAGES
from medvlm_probe.embeddings.threads import available_cores, decoding_pool
from medvlm_probe.models.image_transform import EvalTransform, build_transform

RESULT = Path(__file__).resolve().parents[1] / "figures" / "benchmarks" / "model_busy.json"
BATCH_SIZE = 64
AHEAD = 2
SLOWER = 4.0
BUSY = 0.95
DIFFERENT = 64
EVERY = 8
"""The loop is run on one image of so many, and its time multiplied."""


@dataclass(frozen=True)
class SleepingModel:
    """The image side of the contract; gives some of the pixels, after a while.

    Attributes:
        milliseconds: an image.
        transform: from an image to pixels.
        spans: start, end and images of each call.
    """

    milliseconds: float
    transform: EvalTransform
    spans: list[tuple[float, float, int]] = field(default_factory=list)
    name: str = "sleeping"
    fingerprint: str = "0" * 64
    embedding_dim: int = 512
    image_size: int = 224

    def preprocess(self, image: Image.Image) -> Tensor:
        """Return (3, 224, 224) float32."""
        return self.transform(image)

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Return (N, 512): the middle of each image."""
        started = time.perf_counter()
        time.sleep(len(pixels) * self.milliseconds / 1000)
        self.spans.append((started, time.perf_counter(), len(pixels)))
        return pixels[:, 0].flatten(1)[:, 25_000 : 25_000 + self.embedding_dim].clone()

    def share_from_first_to_last(self) -> float:
        """Return the share of the time between the first and the last batch, not of the check, that it was called."""
        spans = [span for span in self.spans if span[2] > CHECK_IMAGES]
        return sum(end - start for start, end, _ in spans) / (spans[-1][1] - spans[0][0])


def write_files(folder: Path, n: int) -> Cohort:
    """Write `n` files of `DIFFERENT` pictures; what follows a PNG's end makes files with the same picture differ."""
    pictures = [path.read_bytes() for path in write_radiographs(folder / "pictures", min(n, DIFFERENT), 512, 512)]
    names = [f"{number:05d}.png" for number in range(n)]
    for number, name in enumerate(names):
        (folder / name).write_bytes(pictures[number % len(pictures)] + number.to_bytes(4, "big"))
    (folder / "manifest.csv").write_text("\n".join(["image", *names]) + "\n")
    return load_cohort(str(folder / "manifest.csv"))


def decoding_milliseconds(cohort: Cohort, model: Any, workers: int) -> float:
    """Return the wall milliseconds an image of decoding with all threads and nothing beside."""
    items = unique_items([cohort.source.content_key(row) for row in range(min(len(cohort), BATCH_SIZE))])
    with decoding_pool(workers) as pool:
        started = time.perf_counter()
        for _ in load_batches(split(items, 32), cohort.source, model, pool, ahead=AHEAD):
            pass
        return 1000 * (time.perf_counter() - started) / len(items)


def plain_loop(source: ImageSource, model: SleepingModel) -> NDArray[np.float32]:
    """Return the embeddings by decoding a batch, then calling the model."""
    found = []
    for start in range(0, len(source), BATCH_SIZE):
        rows = range(start, min(start + BATCH_SIZE, len(source)))
        found.append(model.encode_images(torch.stack([model.preprocess(source.read(row)) for row in rows])))
    return torch.cat(found).numpy()


def embed_afresh(cohort: Cohort, model: Any, cache: Path, workers: int) -> Embedded:
    """Return `embed`'s result with an empty cache, as on CUDA."""
    shutil.rmtree(cache, ignore_errors=True)
    return embed(cohort, model, batch_size=BATCH_SIZE, prefetch=AHEAD, workers=workers, cache_dir=cache)


def turn(cohort: Cohort, transform: EvalTransform, cache: Path, workers: int) -> dict[str, Any]:
    """Return what one turn took: ours, the loop, and the model."""
    decoding = decoding_milliseconds(cohort, SleepingModel(0.0, transform), workers)
    model = SleepingModel(max(1.0, SLOWER * decoding), transform)
    started = time.perf_counter()
    ours = embed_afresh(cohort, model, cache, workers)
    seconds = time.perf_counter() - started
    share = model.share_from_first_to_last()
    started = time.perf_counter()
    theirs = plain_loop(cohort.source.rows(range(0, len(cohort), EVERY)), model)
    plain_seconds = EVERY * (time.perf_counter() - started)
    assert np.array_equal(theirs, ours.vectors[::EVERY])
    model_seconds = len(cohort) * model.milliseconds / 1000
    return {
        "decoding_milliseconds": decoding,
        "model_milliseconds": model.milliseconds,
        "seconds": seconds,
        "plain_seconds": plain_seconds,
        "model_seconds": model_seconds,
        "busy": model_seconds / seconds,
        "busy_from_first_to_last_batch": share,
        "steps": dict(ours.seconds),
    }


def measure(quick: bool) -> dict[str, Any]:
    """Return all turns, and the one whose share is the median."""
    n, repeats = (128, 1) if quick else (2048, 3)
    workers = available_cores()
    transform = build_transform({"size": (224, 224), "interpolation": "bicubic"})
    with tempfile.TemporaryDirectory() as name:
        cohort = write_files(Path(name) / "files", n)
        turns = [turn(cohort, transform, Path(name) / "cache", workers) for _ in range(repeats)]
    median = sorted(turns, key=lambda one: float(one["busy"]))[repeats // 2]
    facts = {"machine": machine_facts(), "images": n, "batch_size": BATCH_SIZE, "workers": workers}
    return {**facts, "median": median, "turns": turns}


def rows(quick: bool) -> list[Row]:
    """Return the row of the turn whose share is the median; ours has to be at most the floor over `BUSY`."""
    found = measure(quick)
    median = found["median"]
    return [
        Row(
            "embed beside a busy model",
            f"{found['images']:,} PNGs of 512 pixels, a model of {median['model_milliseconds']:.1f} ms an image",
            median["seconds"],
            "decoding a batch, then the model",
            median["plain_seconds"],
            extrapolated=True,
            agreement="equal bytes",
            floor_seconds=median["model_seconds"],
            floor=f"the model alone: busy {median['busy']:.0%} of the time",
            limit=median["model_seconds"] / BUSY,
        )
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="128 images, one turn, nothing written: to see that it runs"
    )
    quick = parser.parse_args().quick
    found = measure(quick)
    for one in found["turns"]:
        print(
            f"decoding {one['decoding_milliseconds']:.2f} ms an image, model {one['model_milliseconds']:.2f} ms: "
            f"{one['seconds']:.1f} s, loop {one['plain_seconds']:.1f} s, model alone {one['model_seconds']:.1f} s; "
            f"busy {one['busy']:.1%}, from first to last batch {one['busy_from_first_to_last_batch']:.1%}"
        )
    if not quick:
        RESULT.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
