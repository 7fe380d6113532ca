"""Grad-CAM for 14 labels with an image tower of BiomedCLIP's structure, against a loop with pytorch-grad-cam.

    python -m benchmarks.grad_cam [--quick] [--images N] [--loop-images N] [--repeats N]

Both get the same batches and end with maps on 224 x 224 pixels. The loop goes over labels, as its users write it: for
each a forward and a backward pass through the whole tower, once with the weights as open_clip loads them (they require
gradients), and once with frozen weights and images that require gradients, which is less work. The speed claimed is
against the faster of the two. All are timed in turn, several times; medians. The loop is timed on the first images
alone: its cost is the same for each map. Rates are by the clock, and by the processor's time, which other work on the
machine disturbs less.

The weights are random: speed does not depend on them, and no file has to be fetched. Agreement is that of the maps
before ReLU, scaling and enlarging, relative to the largest value.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from benchmarks.table import Row
from medvlm_probe.models.open_clip_adapter import OpenClipModel, build_module, wrap_module
from medvlm_probe.saliency.grad_cam import SaliencyMaps, saliency_maps
from medvlm_probe.saliency.pixel_geometry import geometry_of
from medvlm_probe.saliency.targets import Target

FIGURES = Path(__file__).resolve().parents[1] / "figures" / "benchmarks"
N_LABELS, BATCH_SIZE = 14, 16
FULL, TABLE, QUICK = (64, 8, 3), (16, 2, 3), (2, 1, 1)
"""Images through ours, images through the loop, repeats: alone, in the table of all benchmarks, and quick."""
LOOPS = {"loop, weights as loaded": False, "loop, frozen weights": True}
"""The loop's two forms, and whether the weights are frozen."""
VISION = {"timm_model_name": "vit_base_patch16_224", "timm_pool": "", "timm_proj": "linear", "image_size": 224}
TEXT = {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
"""A text tower that is never run."""


class Classifier(nn.Module):
    """The tower and the target as pytorch-grad-cam takes them."""

    def __init__(self, model: OpenClipModel, target: Target) -> None:
        super().__init__()
        self.module, self.target = model.module, target

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits."""
        return self.target.logits(self.module.encode_image(pixels))


class RawGradCAM(GradCAM):
    """pytorch-grad-cam that keeps its maps before ReLU, scaling and enlarging."""

    raw: np.ndarray

    def get_cam_image(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """Return the map, and keep it."""
        self.raw = super().get_cam_image(*args, **kwargs)
        return self.raw


def build() -> tuple[OpenClipModel, Target]:
    from open_clip.tokenizer import SimpleTokenizer

    config = {"embed_dim": 512, "vision_cfg": VISION, "text_cfg": TEXT}
    torch.manual_seed(0)
    model = wrap_module("ViT-B/16", build_module(config, "ViT-B/16"), config, SimpleTokenizer(context_length=8))
    rows = 85.2 * torch.nn.functional.normalize(torch.randn(N_LABELS, 512), dim=1)
    labels = tuple(f"label_{number}" for number in range(N_LABELS))
    return model, Target("random", labels, lambda e: torch.nn.functional.normalize(e, dim=1) @ rows.T)


def ours(model: OpenClipModel, target: Target, pixels: Tensor) -> SaliencyMaps:
    """Return all maps, and enlarge each to the pixels of its view."""
    maps = saliency_maps(model, pixels, target, batch_size=BATCH_SIZE)
    geometry = geometry_of(model, (224, 224))
    for image in maps.values:
        for one in image:
            geometry.to_original(one)
    return maps


def theirs(model: OpenClipModel, target: Target, pixels: Tensor, *, frozen: bool) -> np.ndarray:
    """Return the raw maps, (n, L, h, w), of the loop over labels."""
    layer = model.saliency_layer()
    model.module.requires_grad_(not frozen)
    cam = RawGradCAM(Classifier(model, target), [layer.module], reshape_transform=layer.to_maps)
    found = []
    for batch in pixels.split(BATCH_SIZE):
        columns = []
        for column in range(N_LABELS):
            cam(
                input_tensor=batch.clone().requires_grad_(frozen), targets=[ClassifierOutputTarget(column)] * len(batch)
            )
            columns.append(cam.raw)
        found.append(np.stack(columns, axis=1))
    cam.activations_and_grads.release()
    model.module.requires_grad_(False).zero_grad(set_to_none=True)
    return np.concatenate(found)


def timed(n_maps: int, task: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Return maps per second by the clock and by the processor's time, and the task's result."""
    clock, processor = time.perf_counter(), time.process_time()
    result = task()
    elapsed = {"clock": time.perf_counter() - clock, "processor": time.process_time() - processor}
    return {name: n_maps / seconds for name, seconds in elapsed.items()}, result


def compare(n_images: int, n_loop: int, repeats: int) -> dict[str, Any]:
    """Return the rates of each, their ratios and the agreement."""
    model, target = build()
    pixels = torch.randn(n_images, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    ours(model, target, pixels[:1])
    rows: dict[str, list[dict[str, float]]] = {"ours": [], **{name: [] for name in LOOPS}}
    difference = 0.0
    for _ in range(repeats):
        rates, maps = timed(n_images * N_LABELS, lambda: ours(model, target, pixels))
        rows["ours"].append(rates)
        for name, frozen in LOOPS.items():
            rates, raw = timed(n_loop * N_LABELS, lambda f=frozen: theirs(model, target, pixels[:n_loop], frozen=f))
            rows[name].append(rates)
            difference = max(difference, float(np.abs(maps.values[:n_loop] - raw).max() / np.abs(raw).max()))
    medians = {
        by: {name: statistics.median(rates[by] for rates in repeated) for name, repeated in rows.items()}
        for by in ("clock", "processor")
    }
    return {
        "machine": {"threads": torch.get_num_threads(), "torch": torch.__version__, "batch_size": BATCH_SIZE},
        "labels": N_LABELS,
        "images": {"ours": n_images, "loop": n_loop},
        "maps_per_second": rows,
        "median_maps_per_second": medians,
        "times_faster_than_the_faster_loop": {
            by: rates["ours"] / max(rates[name] for name in LOOPS) for by, rates in medians.items()
        },
        "largest_relative_difference": difference,
    }


def forward_seconds(n_images: int) -> float:
    """Return the seconds of the tower's forward pass alone, the median of three."""
    model, _ = build()
    pixels = torch.randn(n_images, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    seconds = []
    with torch.inference_mode():
        model.encode_images(pixels[:1])
        for _ in range(3):
            started = time.perf_counter()
            for batch in pixels.split(BATCH_SIZE):
                model.encode_images(batch)
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def rows(quick: bool) -> list[Row]:
    """Return the row against the faster loop, for as many maps as ours drew."""
    found = compare(*(QUICK if quick else TABLE))
    n_images, rates = found["images"]["ours"], found["median_maps_per_second"]["clock"]
    faster = max(LOOPS, key=lambda name: rates[name])
    return [
        Row(
            f"Grad-CAM for {N_LABELS} labels",
            f"ViT-B/16, {n_images} images",
            n_images * N_LABELS / rates["ours"],
            f"pytorch-grad-cam, {faster}",
            n_images * N_LABELS / rates[faster],
            extrapolated=found["images"]["loop"] < n_images,
            agreement=f"{found['largest_relative_difference']:.0e} of the largest value",
            floor_seconds=forward_seconds(n_images),
            floor="the tower's forward pass",
            bar=8,
        )
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Grad-CAM's maps per second against pytorch-grad-cam in a loop.")
    parser.add_argument("--quick", action="store_true", help="few images, one repeat: to see that it runs")
    parser.add_argument("--images", type=int, default=FULL[0], help="images through ours")
    parser.add_argument("--loop-images", type=int, default=FULL[1], help="images through the loop, the first of them")
    parser.add_argument("--repeats", type=int, default=FULL[2])
    given = parser.parse_args()
    sizes = QUICK if given.quick else (given.images, given.loop_images, given.repeats)
    result = compare(*sizes)
    FIGURES.mkdir(parents=True, exist_ok=True)
    path = FIGURES / ("grad_cam_quick.json" if given.quick else "grad_cam.json")
    path.write_text(json.dumps(result, indent=2) + "\n")
    for by, rates in result["median_maps_per_second"].items():
        for name, value in rates.items():
            print(f"{name:28} {value:8.2f} maps/s by the {by}")
        print(f"times the faster loop        {result['times_faster_than_the_faster_loop'][by]:8.1f} x by the {by}")
    print(f"largest relative difference  {result['largest_relative_difference']:.1e}")
    print(f"Wrote {path}")


if __name__ == "__main__":
    main()
