"""`embed` with a ViT-B/16 against a plain open_clip loop in float32, and against what the machine can do at all.

    python -m benchmarks.embed_throughput [--quick]

(a) 512-pixel PNGs, end to end: `embed` with an empty cache, the loop that users write (open_clip and a DataLoader with
0 or 2 worker processes, whichever is faster on the first images), and the forward pass alone on tensors in memory, in
turn, several times; medians.
(b) 5-megapixel PNGs: `embed` against its floor, (decoding + forward core-seconds) / cores.

The check against float32 comes once per cohort, whatever its size; it is shown apart, and is part of `seconds` in (a).
The weights are random: throughput does not depend on them, and no file has to be fetched.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.machine import processor
from benchmarks.table import Row
from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.embeddings.extract import Embedded, embed
from medvlm_probe.embeddings.forward import start_batch_size
from medvlm_probe.embeddings.precision import at_precision, encode, fast_precision
from medvlm_probe.embeddings.threads import available_cores
from medvlm_probe.models.open_clip_adapter import OpenClipModel, wrap_module

FIGURES = Path(__file__).resolve().parents[1] / "figures" / "benchmarks"
MODEL = "ViT-B-16"
BATCH_SIZE = start_batch_size(torch.device("cpu"))
LOADER_WORKERS = (0, 2)
Transform = Callable[[Image.Image], torch.Tensor]


class PlainImages(Dataset):  # type: ignore[type-arg]
    """The data set that a user would write: Pillow and open_clip's own transform."""

    def __init__(self, paths: list[Path], transform: Transform) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(Image.open(self.paths[index]))


def write_radiographs(folder: Path, n: int, height: int, width: int) -> list[Path]:
    """Write grey 8-bit PNGs with a radiograph's spectrum: broad shapes, edges, and grain that does not compress."""
    folder.mkdir(parents=True)
    paths = []
    for number in range(n):
        rng = np.random.default_rng(number)
        pixels = np.zeros((height, width), dtype=np.float32)
        for cells, strength in ((4, 60.0), (12, 30.0), (48, 12.0)):
            coarse = Image.fromarray(rng.normal(size=(cells, cells)).astype(np.float32))
            pixels += strength * np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
        pixels += 120 + 2.0 * rng.standard_normal((height, width), dtype=np.float32)
        path = folder / f"{number:04d}.png"
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
        paths.append(path)
    (folder / "manifest.csv").write_text("image\n" + "".join(f"{path.name}\n" for path in paths))
    return paths


def build() -> tuple[OpenClipModel, Transform]:
    """Return the model and open_clip's own transform for it."""
    import open_clip

    torch.manual_seed(0)
    module, _, transform = open_clip.create_model_and_transforms(MODEL, load_weights=False)
    config = open_clip.get_model_config(MODEL)
    return wrap_module(MODEL, module, config, open_clip.get_tokenizer(MODEL)), transform


def plain_loop(paths: list[Path], model: OpenClipModel, transform: Transform, workers: int) -> torch.Tensor:
    """Return the embeddings by the loop that a user would write."""
    loader = DataLoader(PlainImages(paths, transform), batch_size=BATCH_SIZE, num_workers=workers)
    with torch.inference_mode():
        return torch.cat([model.module.encode_image(pixels) for pixels in loader])


def embed_afresh(cohort: Cohort, model: OpenClipModel, folder: Path) -> Embedded:
    """Return `embed`'s result with an empty cache."""
    shutil.rmtree(folder, ignore_errors=True)
    return embed(cohort, model, cache_dir=folder)


def forward_only(cohort: Cohort, model: OpenClipModel, precision: str) -> float:
    """Return the seconds of the forward pass over all images, in the same batches, from tensors in memory."""
    twin = at_precision(model, precision)  # type: ignore[arg-type]
    batches = torch.stack([model.preprocess(cohort.source.read(row)) for row in range(len(cohort))]).split(BATCH_SIZE)
    encode(twin, batches[0], precision)  # type: ignore[arg-type]
    started = time.perf_counter()
    for pixels in batches:
        encode(twin, pixels, precision)  # type: ignore[arg-type]
    return time.perf_counter() - started


def decode_only(cohort: Cohort, model: OpenClipModel) -> float:
    """Return the core-seconds of reading, decoding and preprocessing all images on one thread."""
    started = time.process_time()
    for row in range(len(cohort)):
        model.preprocess(cohort.source.read_with_key(row)[0])
    return time.process_time() - started


def timed(name: str, task: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long a task took, and its result; says so on stderr."""
    started = time.perf_counter()
    result = task()
    seconds = time.perf_counter() - started
    print(f"{name}: {seconds:.1f} s", file=sys.stderr)
    return seconds, result


def compare_small(model: OpenClipModel, transform: Transform, folder: Path, n: int, repeats: int) -> dict[str, Any]:
    """Return part (a)."""
    paths = write_radiographs(folder / "small", n, 512, 512)
    cohort = load_cohort(str(folder / "small" / "manifest.csv"))
    precision = fast_precision(torch.device("cpu"))
    plain_loop(paths[:4], model, transform, 0)
    pilot = {
        workers: timed(f"pilot, {workers} workers", lambda w=workers: plain_loop(paths[:32], model, transform, w))[0]
        for workers in LOADER_WORKERS
    }
    workers = min(pilot, key=lambda count: pilot[count])
    times: dict[str, list[float]] = {"plain float32 loop": [], "embed": [], "forward pass alone": []}
    results: list[Embedded] = []
    reference = torch.empty(0)
    for _ in range(repeats):
        seconds, reference = timed("plain loop", lambda: plain_loop(paths, model, transform, workers))
        times["plain float32 loop"].append(seconds)
        seconds, result = timed("embed", lambda: embed_afresh(cohort, model, folder / "cache"))
        times["embed"].append(seconds)
        results.append(result)
        times["forward pass alone"].append(forward_only(cohort, model, precision))
    medians = {name: statistics.median(values) for name, values in times.items()}
    check = statistics.median(result.seconds["check"] for result in results)
    plain, ours, forward = medians.values()
    vectors = torch.from_numpy(results[-1].vectors)
    return {
        "n_images": n,
        "precision": results[-1].precision,
        "loader_workers": workers,
        "pilot_seconds_by_loader_workers": pilot,
        "seconds": times,
        "median_seconds": medians,
        "steps_of_embed": [dict(result.seconds) for result in results],
        "check_seconds": check,
        "images_per_second": {name: n / value for name, value in medians.items()},
        "times_faster_than_plain_loop": plain / ours,
        "times_faster_without_check": plain / (ours - check),
        "share_of_forward_pass_speed": forward / (ours - check),
        "min_cosine_to_plain_loop": float(torch.nn.functional.cosine_similarity(vectors, reference).min()),
    }


def compare_large(model: OpenClipModel, folder: Path, n: int, repeats: int) -> dict[str, Any]:
    """Return part (b)."""
    write_radiographs(folder / "large", n, 2500, 2048)
    cohort = load_cohort(str(folder / "large" / "manifest.csv"))
    precision = fast_precision(torch.device("cpu"))
    cores, threads = available_cores(), torch.get_num_threads()
    rows = []
    for _ in range(repeats):
        decode = decode_only(cohort, model)
        forward = forward_only(cohort, model, precision)
        _, result = timed("embed, 5 megapixels", lambda: embed_afresh(cohort, model, folder / "cache"))
        floor = (decode + forward * threads) / cores
        ours = result.seconds["total"] - result.seconds["check"]
        rows.append({"decode_core_seconds": decode, "forward_core_seconds": forward * threads, "floor_seconds": floor})
        rows[-1] |= {"embed_seconds": ours, "ratio": ours / floor, "steps_of_embed": dict(result.seconds)}
    return {
        "n_images": n,
        "cores": cores,
        "repeats": rows,
        "decode_ms_per_image": 1000 * statistics.median(row["decode_core_seconds"] for row in rows) / n,
        "times_the_floor": statistics.median(row["ratio"] for row in rows),
    }


def measure(quick: bool) -> dict[str, Any]:
    """Return both parts and what they ran on."""
    machine = {"processor": processor(), "cores": available_cores(), "torch": torch.__version__}
    machine |= {"threads": torch.get_num_threads(), "model": MODEL, "batch_size": BATCH_SIZE}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, transform = build()
        small = compare_small(model, transform, folder, 32 if quick else 320, 1 if quick else 3)
        large = compare_large(model, folder, 8 if quick else 32, 1 if quick else 3)
    return {"machine": machine, "png_512": small, "png_5_megapixels": large}


def rows(quick: bool) -> list[Row]:
    """Return the row of part (a), with the check against float32 as part of ours; and of part (b), without it."""
    found = measure(quick)
    small, large = found["png_512"], found["png_5_megapixels"]
    plain, ours, forward = small["median_seconds"].values()
    return [
        Row(
            "embed end to end",
            f"{MODEL}, {small['n_images']} PNGs of 512 pixels",
            ours,
            "open_clip and a DataLoader",
            plain,
            agreement=f"cosine at least {small['min_cosine_to_plain_loop']:.5f}",
            floor_seconds=forward,
            floor=f"forward pass in {small['precision']}",
            bar=2,
        ),
        Row(
            "embed end to end, check apart",
            f"{MODEL}, {large['n_images']} PNGs of 5 megapixels",
            statistics.median(row["embed_seconds"] for row in large["repeats"]),
            floor_seconds=statistics.median(row["floor_seconds"] for row in large["repeats"]),
            floor="decoding and forward pass over all cores",
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Throughput of embed against a plain loop and against its floor.")
    parser.add_argument("--quick", action="store_true", help="few images, one repeat: to see that it runs")
    quick = parser.parse_args().quick
    found = measure(quick)
    small, large = found["png_512"], found["png_5_megapixels"]
    FIGURES.mkdir(parents=True, exist_ok=True)
    path = FIGURES / ("embed_throughput_quick.json" if quick else "embed_throughput.json")
    path.write_text(json.dumps(found, indent=2) + "\n")
    for name, value in small["images_per_second"].items():
        print(f"{name:40} {value:7.2f} images/s")
    print(f"embed / plain loop                       {small['times_faster_than_plain_loop']:7.2f} x, check included")
    print(f"embed / plain loop, check apart          {small['times_faster_without_check']:7.2f} x")
    print(f"share of the forward pass's own speed    {small['share_of_forward_pass_speed']:7.1%}, check apart")
    print(f"smallest cosine to the plain loop        {small['min_cosine_to_plain_loop']:.6f}")
    print(f"5 megapixels: times the floor            {large['times_the_floor']:7.2f} x")
    print(f"Wrote {path}")


if __name__ == "__main__":
    main()
