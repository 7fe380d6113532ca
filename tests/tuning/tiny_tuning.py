"""A small open_clip model in the bundle's true layout and a cohort that it can learn, also for a process of its own."""

from __future__ import annotations

import json
import os
import signal
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import save_file

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.data_cards import DataCard
from medvlm_probe.cohort.images import FileImages
from medvlm_probe.embeddings.extract import embed
from medvlm_probe.models.open_clip_adapter import build_module
from medvlm_probe.models.zoo import load_model
from medvlm_probe.tuning.fine_tune import fine_tune
from medvlm_probe.tuning.fine_tune_settings import FineTuneSettings
from medvlm_probe.tuning.material import FineTuned, Material

LABELS = ("edema", "fracture", "no_finding")
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
QUICK = FineTuneSettings(epochs=3, batch_size=8, rate=1e-3, head_rate=1e-3, patience=3, seed=1)


def write_model(folder: Path) -> Path:
    """Write the bundle of a small CLIP with random weights; returns the folder."""
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {}}))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build_module(CONFIG, "tiny")
    save_file(dict(module.state_dict()), folder / "open_clip_model.safetensors")
    return folder


def write_cohort(folder: Path, n: int = 60) -> Cohort:
    """Write images whose left (edema) or right (fracture) half is bright, two a patient; few labels are unknown."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    targets = (rng.random((n, 2)) < [0.5, 0.4]).astype(np.float32)
    names = []
    for row, (left, right) in enumerate(targets):
        pixels = rng.integers(60, 140, size=(32, 32))
        pixels[:, :16] += int(50 * left)
        pixels[:, 16:] += int(50 * right)
        names.append(f"{row:03d}.png")
        Image.fromarray(pixels.astype(np.uint8)).save(folder / names[-1])
    labels = np.column_stack([targets, (targets.sum(axis=1) == 0).astype(np.float32)])
    labels[rng.random(labels.shape) < 0.05] = np.nan
    table = pd.DataFrame({"image": names, "patient": [f"p{row // 2}" for row in range(n)]})
    table["split"] = np.array(["train"] * (n // 2) + ["val"] * (n // 4) + ["test"] * (n - n // 2 - n // 4))
    table[list(LABELS)] = labels
    table = table.astype(dict.fromkeys(LABELS, "float32"))
    return Cohort("halves", table, LABELS, "ignore", FileImages(folder, tuple(names)), DataCard(name="halves"))


def material_of(cohort: Cohort, model: Any, cache: Path) -> Material:
    done = embed(cohort, model, precision="float32", cache_dir=cache, workers=1)
    splits = cohort.splits()
    return Material(cohort, done.keys, done.vectors, splits == "train", splits == "val", LABELS)


@cache
def prepared(folder: Path) -> tuple[Any, Material]:
    """Return the model and the images that lie in a folder, written now where they do not; no training changes them."""
    cohort = write_cohort(folder / "images")
    if not (folder / "model").is_dir():
        write_model(folder / "model")
    loaded = load_model(f"local:{folder / 'model'}")
    return loaded, material_of(cohort, loaded, folder / "cache")


def tune(home: Path, checkpoint: Path, settings: FineTuneSettings = QUICK, **options: Any) -> FineTuned:
    """Fine-tune the model in `home` on the images there, with checkpoints in another folder."""
    loaded, material = prepared(home)
    options = {"workers": 1, "checkpoint_seconds": 0.0, **options}
    return fine_tune(loaded, material, settings, checkpoint, **options)


def die_at(n: int) -> None:
    """Kill this process at the n-th time that it puts a file into its place, from 1, before the effect."""
    n_calls = 0
    put = Path.replace

    def deadly(path: Path, target: Any) -> Any:
        nonlocal n_calls
        n_calls += 1
        if n_calls == n:
            os.kill(os.getpid(), signal.SIGKILL)
        return put(path, target)

    Path.replace = deadly  # type: ignore[method-assign]


def tune_and_die(home: Path, checkpoint: Path, n: int) -> None:
    """Fine-tune in a process of its own, which kills itself at the n-th file of the training."""
    torch.set_num_threads(1)
    die_at(n)
    tune(home, checkpoint)
