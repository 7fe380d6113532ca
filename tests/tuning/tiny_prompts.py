"""A small CLIP with random weights, embeddings that its prompts can learn, and cohorts without images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.data_cards import DataCard
from medvlm_probe.cohort.images import FileImages
from medvlm_probe.models.open_clip_adapter import build_module, wrap_module
from medvlm_probe.zero_shot.prompts import LabelPrompts, PromptSet

CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
CLASSES = ("covid", "normal", "opacity")
LABELS = ("edema", "fracture")


def small_clip() -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build_module(CONFIG, "tiny")
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.15)
        module.logit_scale.data.fill_(3.0)
    return wrap_module("tiny", module, CONFIG, SimpleTokenizer(context_length=77))


def class_prompts() -> PromptSet:
    return PromptSet("mine", "", "", {name: LabelPrompts((name,)) for name in CLASSES})


def label_prompts() -> PromptSet:
    return PromptSet("mine", "", "", {name: LabelPrompts((name,), (f"no {name}",)) for name in LABELS})


def cohort_of(names: tuple[str, ...], n: int = 120, *, single: bool, seed: int = 0) -> Cohort:
    """Return a cohort of n images of n / 2 patients, in scrambled order; every tenth label is unknown."""
    rng = np.random.default_rng(seed)
    if single:
        labels = np.eye(len(names), dtype=np.float32)[rng.integers(len(names), size=n)]
    else:
        labels = (rng.random((n, len(names))) < 0.4).astype(np.float32)
        labels[rng.random(labels.shape) < 0.1] = np.nan
    images = [f"{row:03d}.png" for row in rng.permutation(n)]
    table = pd.DataFrame({"image": images, "patient": [f"p{row // 2}" for row in range(n)]})
    table["split"] = np.where(np.arange(n) < n * 2 // 3, "train", "test")
    table[list(names)] = labels
    card = DataCard(name="mine", task="single_label" if single else "multi_label")
    table = table.astype(dict.fromkeys(names, "float32"))
    return Cohort("mine", table, names, "ignore", FileImages(Path(), tuple(images)), card)


def vectors_of(cohort: Cohort, n_views: int, seed: int = 0) -> np.ndarray:
    """Return unit vectors (V, n, 16) that show the labels, each view a little different."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(len(cohort.labels), 16))
    clean = np.nan_to_num(cohort.targets(), nan=0.5) @ directions + 0.5 * rng.normal(size=(len(cohort), 16))
    views = clean + 0.3 * rng.normal(size=(n_views, *clean.shape))
    return (views / np.linalg.norm(views, axis=-1, keepdims=True)).astype(np.float32)
