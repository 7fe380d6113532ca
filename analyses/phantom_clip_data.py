"""The phantoms that phantom-clip learns from: drawn once into chunk files, read back as shuffled, jittered batches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.cohort.phantom import SEVERITIES, Case, Phantom, draw, sample_patient
from medvlm_probe.runs import write_atomically

CHUNK = 500
GRID = 28  # twice the patch grid, so that a shift by half a patch moves the targets exactly
MASKS = (*CHEXPERT_LABELS[1:], "heart", "lungs", "thorax")
ABSENT = -1


def severity_row(case: Case) -> list[int]:
    """Return each label's severity (0, 1, 2; -1 absent); an opacity implied by others has the severest of them."""
    grades = dict.fromkeys(CHEXPERT_LABELS, ABSENT)
    for finding in case.findings:
        grades[finding.kind] = max(grades[finding.kind], SEVERITIES.index(finding.severity))
    if case.labels["lung_opacity"] and grades["lung_opacity"] == ABSENT:
        children = ("lung_lesion", "edema", "consolidation", "pneumonia", "atelectasis")
        grades["lung_opacity"] = max(grades[child] for child in children)
    if case.labels["no_finding"]:
        grades["no_finding"] = 0
    return [grades[label] for label in CHEXPERT_LABELS]


def coverage(phantom: Phantom) -> NDArray[np.uint8]:
    """Return how much of each grid cell each mask covers, 0 to 255, (16, 28, 28)."""
    size = phantom.pixels.shape[0] // GRID
    empty = np.zeros(phantom.pixels.shape, bool)
    layers = np.stack([{**phantom.masks, **phantom.anatomy}.get(name, empty) for name in MASKS])
    cells = layers.reshape(len(MASKS), GRID, size, GRID, size).mean(axis=(2, 4))
    return np.rint(cells * 255).astype(np.uint8)


def draw_chunk(path: Path, site: str, seed: int, first: int, n: int) -> None:
    """Draw the first image of patients `first` to `first + n - 1` (balanced prevalences) into one file."""
    phantoms = [draw(sample_patient(site, seed, index, "balanced")[0]) for index in range(first, first + n)]
    content = {
        "images": np.stack([phantom.pixels for phantom in phantoms]),
        "masks": np.stack([coverage(phantom) for phantom in phantoms]),
        "severity": np.array([severity_row(phantom.case) for phantom in phantoms], np.int8),
        "ctr": np.array([phantom.case.ctr for phantom in phantoms], np.float32),
        "reports": np.array([phantom.case.report for phantom in phantoms]),
    }
    write_atomically(path, partial(np.savez, **content))


def chunk_path(folder: Path, seed: int, number: int) -> Path:
    """Return where a chunk lies."""
    return folder / f"reference-{seed}-{number:04d}.npz"


def render(folder: Path, seed: int, n_chunks: int) -> None:
    """Draw the chunks that are missing, in order."""
    for number in range(n_chunks):
        path = chunk_path(folder, seed, number)
        if not path.exists():
            draw_chunk(path, "reference", seed, number * CHUNK, CHUNK)


def read_chunk(folder: Path, seed: int, number: int) -> dict[str, np.ndarray]:
    """Return a chunk, waiting for the renderer where it isn't drawn yet."""
    path = chunk_path(folder, seed, number)
    while not path.exists():
        time.sleep(2)
    with np.load(path, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}


@dataclass(frozen=True)
class Batch:
    """Images uint8 (N, 224, 224), mask targets float32 (N, 196, 16), severity int8 (N, 14), and so on."""

    images: NDArray[np.uint8]
    masks: NDArray[np.float32]
    severity: NDArray[np.int8]
    ctr: NDArray[np.float32]
    reports: list[str]

    def part(self, number: int, n_parts: int) -> Batch:
        """Return every `n_parts`-th image from `number` on."""
        rows = slice(number, None, n_parts)
        return Batch(self.images[rows], self.masks[rows], self.severity[rows], self.ctr[rows], self.reports[rows])


def jitter(
    images: NDArray[np.uint8], masks: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Shift each image by up to 12 pixels, and change its contrast, brightness and gamma. Never flips: sides matter."""
    shifted, cells = np.empty_like(images), np.empty_like(masks)
    grey = np.arange(256) / 255
    for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
        dy, dx = rng.integers(-12, 13, 2)
        rows, columns = (np.clip(np.arange(224) + d, 0, 223) for d in (dy, dx))
        contrast, brightness, gamma = np.exp(rng.normal(0, 0.08)), rng.normal(0, 0.03), np.exp(rng.normal(0, 0.1))
        curve = np.rint(255 * np.clip((grey**gamma - 0.5) * contrast + 0.5 + brightness, 0, 1)).astype(np.uint8)
        shifted[i] = curve[image[rows[:, None], columns]]
        cell_rows, cell_columns = (np.clip(np.arange(GRID) + round(d / 8), 0, GRID - 1) for d in (dy, dx))
        cells[i] = mask[:, cell_rows[:, None], cell_columns]
    return shifted, cells


def to_patches(masks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return targets on 16-pixel patches, float32 (N, 196, 16): 0 without the mask, 1 where it covers 40 % or more."""
    n, layers = masks.shape[:2]
    pooled = masks.reshape(n, layers, GRID // 2, 2, GRID // 2, 2).mean(axis=(3, 5), dtype=np.float32) / 255
    return np.ascontiguousarray(np.minimum(1, 2.5 * pooled).reshape(n, layers, -1).transpose(0, 2, 1))


def batches(folder: Path, seed: int, n_chunks: int, size: int, first_step: int, window: int = 8) -> Iterator[Batch]:
    """Yield batches for ever, from step `first_step` on; every pass visits all chunks, shuffled in windows of chunks.

    The first pass takes the chunks in the order in which they are drawn, so that training need not wait for the last.
    The order depends on the seed and the step alone: a resumed training sees what an undisturbed one would.
    """
    steps_per_window = window * CHUNK // size
    windows_per_pass = n_chunks // window
    number = first_step // steps_per_window
    skip = first_step % steps_per_window
    while True:
        turn, position = divmod(number, windows_per_pass)
        order = np.arange(n_chunks) if turn == 0 else np.random.default_rng([seed, turn]).permutation(n_chunks)
        parts = [read_chunk(folder, seed, int(c)) for c in order[position * window : (position + 1) * window]]
        data = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        del parts
        rows = np.random.default_rng([seed, turn, position]).permutation(len(data["ctr"]))
        for step in range(skip, steps_per_window):
            chosen = rows[step * size : (step + 1) * size]
            rng = np.random.default_rng([seed, number, step])
            images, masks = jitter(data["images"][chosen], data["masks"][chosen], rng)
            yield Batch(
                images,
                to_patches(masks),
                data["severity"][chosen],
                data["ctr"][chosen],
                data["reports"][chosen].tolist(),
            )
        number, skip = number + 1, 0
