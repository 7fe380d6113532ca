"""A small deterministic model and cohorts of small images, for these tests and for the processes that they kill."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.data_cards import DataCard
from medvlm_probe.cohort.images import FileImages
from medvlm_probe.embeddings.extract import Embedded, embed

IMAGE_SIZE = 16
DIM = 12


def tower(seed: int) -> torch.nn.Module:
    """Return a convolution, a non-linearity and a linear layer with seeded weights."""
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 4, 4), torch.nn.GELU(), torch.nn.Flatten(), torch.nn.Linear(8 * 16, DIM)
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module.requires_grad_(False)


@dataclass(frozen=True)
class TinyModel:
    """The image side of the contract. `batches` notes the size of each batch; `before` is called with each."""

    module: Any
    name: str = "tiny"
    embedding_dim: int = DIM
    image_size: int = IMAGE_SIZE
    batches: list[int] = field(default_factory=list)
    before: Callable[[torch.Tensor], None] = lambda pixels: None

    @property
    def fingerprint(self) -> str:
        tensors = b"".join(tensor.numpy().tobytes() for tensor in self.module.state_dict().values())
        return hashlib.sha256(tensors).hexdigest()

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        pixels = np.asarray(image.convert("L").resize((IMAGE_SIZE, IMAGE_SIZE)), dtype=np.float32) / 255 - 0.5
        return torch.from_numpy(np.stack([pixels] * 3))

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        self.before(pixels)
        self.batches.append(len(pixels))
        return self.module(pixels)


def make_model(seed: int = 0, **options: Any) -> TinyModel:
    return TinyModel(tower(seed), **options)


def pixels_of(index: int, size: int = 24) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (size, size), dtype=np.uint8)


def write_images(folder: Path, contents: Sequence[int]) -> tuple[str, ...]:
    """Write one PNG for each number; equal numbers make equal files under different names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = tuple(f"image-{position:03d}.png" for position in range(len(contents)))
    for name, content in zip(names, contents, strict=True):
        Image.fromarray(pixels_of(content)).save(folder / name)
    return names


def cohort_of(folder: Path, names: Sequence[str], **columns: Sequence[Any]) -> Cohort:
    """Return the cohort of files below a folder; extra columns are patient, study, site, split, report or labels."""
    labels = tuple(name for name in columns if name in ("edema", "cardiomegaly"))
    table = pd.DataFrame({"image": list(names), **{name: list(values) for name, values in columns.items()}})
    table = table.astype(dict.fromkeys(labels, "float32"))
    return Cohort("tiny", table, labels, "ignore", FileImages(folder, tuple(names)), DataCard(name="tiny"))


def snapshot(folder: Path) -> dict[str, str]:
    """Return the hash of every file below a folder, by its relative path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def direct(model: TinyModel, contents: Sequence[int]) -> np.ndarray:
    """Return the embeddings of numbered contents one by one, without the package."""
    rows = [model.preprocess(Image.fromarray(pixels_of(content))) for content in contents]
    return torch.cat([model.module(row[None]) for row in rows]).numpy()


def embed_in_child(folder: str, names: Sequence[str], cache: str, sender: Any, die_at: int, after: bool) -> None:
    """Embed in a process of its own: a slow model, a message after each batch, death at a step of writing.

    `die_at` counts the calls of `os.fsync` and `os.replace`, from 1; the process kills itself at that call, before or
    after its effect. 0: it does not.
    """
    torch.set_num_threads(1)
    n_calls = 0

    def deadly(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            nonlocal n_calls
            n_calls += 1
            if n_calls == die_at and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*args)
            if n_calls == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    os.fsync, os.replace = deadly(os.fsync), deadly(os.replace)
    model = make_model(before=lambda pixels: time.sleep(0.003))
    result = embed_all(cohort_of(Path(folder), names), model, Path(cache), progress=lambda *done: sender.send(done))
    sender.send(("end", n_calls, result.n_computed))
    sender.close()


def embed_all(cohort: Cohort, model: TinyModel, cache: Path, **options: Any) -> Embedded:
    """`embed` with small shards and batches, so that few images make many of both."""
    settings = {"precision": "bfloat16", "batch_size": 3, "shard_size": 7, "workers": 2, "max_failures": 1.0}
    return embed(cohort, model, cache_dir=cache, **{**settings, **options})
