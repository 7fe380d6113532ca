"""Faithfulness: how a score falls when what a map marks is taken out of the image, and rises when it is put back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError, unknown_name
from medvlm_probe.metrics.intervals import jackknife_interval, mean_without_groups, paired_mean
from medvlm_probe.types import Estimate, FloatArray, IntArray

if TYPE_CHECKING:
    from torch import Tensor

N_STEPS = 20
N_RANDOM = 5
BATCH_SIZE = 64
BLUR = 0.08
"""Standard deviation of the blur, as a share of the image's side."""

FILLS = {
    "grey": "each channel's mean over the image's own pixels, as the model is given them",
    "blur": "the image blurred by a Gaussian whose standard deviation is 8 % of its side",
}
"""What takes a patch's place, by name."""

Scorer = Callable[["Tensor"], "Tensor"]


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """Curves of N images over S + 1 steps, and those of patches in random order.

    Attributes:
        fractions: share of the patches that were replaced or put back, from 0 to 1, (S + 1,).
        deletion: score with the highest patches of the map replaced, (N, S + 1). Falls fast for a faithful map.
        insertion: score with only the highest patches in a replaced image, (N, S + 1). Rises fast for a faithful map.
        random_deletion, random_insertion: the same for patches in random order, the mean over orders, (N, S + 1).
        fill: of `FILLS`.
    """

    fractions: NDArray[np.float64]
    deletion: NDArray[np.float64]
    insertion: NDArray[np.float64]
    random_deletion: NDArray[np.float64]
    random_insertion: NDArray[np.float64]
    fill: str

    def areas(self) -> dict[str, NDArray[np.float64]]:
        """Return each curve's area by the trapezoid rule, (N,), in units of the score, by the curves' names."""
        curves = {
            "deletion": self.deletion,
            "insertion": self.insertion,
            "random_deletion": self.random_deletion,
            "random_insertion": self.random_insertion,
        }
        steps = np.diff(self.fractions)
        return {name: ((curve[:, 1:] + curve[:, :-1]) / 2) @ steps for name, curve in curves.items()}

    def estimates(self, groups: IntArray) -> dict[str, Estimate]:
        """Return mean areas and their differences to random order, with the group jackknife's intervals.

        `deletion_gain` is random less the map's, `insertion_gain` the map's less random: above 0 the map knows more
        than chance of what moves the score.

        Args:
            groups: the independently sampled group of each image (patient), (N,).
        """
        areas = self.areas()
        means = {name: mean_without_groups(area, groups) for name, area in areas.items()}
        return {
            **{name: jackknife_interval(*mean, n=len(groups)) for name, mean in means.items()},
            "deletion_gain": paired_mean(areas["random_deletion"] - areas["deletion"], groups),
            "insertion_gain": paired_mean(areas["insertion"] - areas["random_insertion"], groups),
        }


def deletion_and_insertion(
    score: Scorer,
    pixels: Tensor,
    maps: FloatArray,
    *,
    rng: np.random.Generator,
    fill: str = "grey",
    patches: tuple[int, int] | None = None,
    n_steps: int = N_STEPS,
    n_random: int = N_RANDOM,
    batch_size: int = BATCH_SIZE,
) -> Faithfulness:
    """Return how scores follow the patches that maps rank, beside patches in random order.

    Both curves end in the same two pictures: the image as it is, and the image replaced as a whole.

    Args:
        score: from preprocessed images (B, 3, H, W) to scores (B,), larger for the label: a target's logit.
        pixels: (N, 3, H, W), as the model's `preprocess` gives them.
        maps: signed maps on the square that the model sees, (N, h, w).
        rng: orders patches at random, those that a map ranks alike too.
        fill: of `FILLS`.
        patches: rows and columns of patches, at most (H, W); None takes the map's own grid. Finer maps are averaged
            over patches.
        n_steps: steps of a curve, at most one a patch.
        n_random: random orders an image.
        batch_size: images scored at once.

    Raises:
        InputError: shapes that do not fit, maps with missing values, or no step or random order.
        UnknownNameError: another fill.

    Source: Petsiuk, Das and Saenko 2018 (RISE).
    """
    if fill not in FILLS:
        raise unknown_name("fill", fill, FILLS)
    maps = np.asarray(maps)
    n, _, height, width = pixels.shape
    if maps.ndim != 3 or len(maps) != n or not np.isfinite(maps).all():
        raise InputError(f"Maps of shape {maps.shape} do not fit {n} images: expected finite (N, h, w).")
    grid = patches or (maps.shape[1], maps.shape[2])
    if not (0 < grid[0] <= height and 0 < grid[1] <= width):
        raise InputError(f"{grid[0]} x {grid[1]} patches do not fit images of {height} x {width} pixels.")
    if n_steps < 1 or n_random < 1:
        raise InputError(f"{n_steps} steps and {n_random} random orders were given; at least one of each is needed.")
    counts = np.unique(np.rint(np.linspace(0, grid[0] * grid[1], n_steps + 1)).astype(np.int64))
    filled = _filled(pixels, fill)
    curves: dict[str, list[NDArray[np.float64]]] = {name: [] for name in ("own", "put", "random", "random_put")}
    for row in range(n):
        own = _ranks(_pooled(maps[row], grid), rng)
        orders = [own, *(rng.permutation(own) for _ in range(n_random))]
        scores = _curves(score, pixels[row], filled[row], np.stack(orders), counts, grid, batch_size)
        curves["own"].append(scores[0, 0])
        curves["put"].append(scores[0, 1])
        curves["random"].append(scores[1:, 0].mean(axis=0))
        curves["random_put"].append(scores[1:, 1].mean(axis=0))
    made = {name: np.array(rows).reshape(n, len(counts)) for name, rows in curves.items()}
    return Faithfulness(counts / counts[-1], made["own"], made["put"], made["random"], made["random_put"], fill)


def _curves(
    score: Scorer,
    image: Tensor,
    filled: Tensor,
    ranks: NDArray[np.int64],
    counts: NDArray[np.int64],
    grid: tuple[int, int],
    batch_size: int,
) -> NDArray[np.float64]:
    """Return the scores of one image by order, deletion or insertion, and step, (orders, 2, S + 1)."""
    import torch

    chosen = ranks[:, None, :] < counts[:, None]
    # Nothing and everything are the same two pictures in every order and both directions: they are scored once.
    between = chosen[:, 1:-1].reshape(-1, *grid)
    masks = torch.from_numpy(
        np.concatenate([np.zeros((1, *grid), dtype=bool), np.ones((1, *grid), dtype=bool), between])
    )
    places = _to_pixels(masks, image.shape[-2:])
    jobs = [(mask, turned) for turned in (False, True) for mask in range(2 if turned else 0, len(masks))]
    found = []
    with torch.inference_mode():
        for start in range(0, len(jobs), batch_size):
            part = jobs[start : start + batch_size]
            replaced = places[[mask for mask, _ in part]] ^ torch.tensor([turned for _, turned in part])[:, None, None]
            made = torch.where(replaced[:, None].to(image.device), filled, image)
            found.append(score(made).detach().double().cpu().numpy())
    flat = np.concatenate(found)
    whole, nothing = flat[0], flat[1]
    inner = flat[2:].reshape(2, len(ranks), len(counts) - 2).transpose(1, 0, 2)
    out = np.empty((len(ranks), 2, len(counts)))
    out[:, :, 1:-1] = inner
    out[:, 0, 0], out[:, 0, -1], out[:, 1, 0], out[:, 1, -1] = whole, nothing, nothing, whole
    return out


def _filled(pixels: Tensor, fill: str) -> Tensor:
    """Return what takes the images' place as a whole, (N, 3, H, W)."""
    if fill == "grey":
        return pixels.mean(dim=(2, 3), keepdim=True).expand_as(pixels)
    return _blurred(pixels)


def _blurred(pixels: Tensor) -> Tensor:
    import torch
    from torch.nn import functional

    n, channels, height, width = pixels.shape
    spread = BLUR * max(height, width)
    reach = int(np.ceil(3 * spread))
    at = torch.arange(-reach, reach + 1, dtype=pixels.dtype, device=pixels.device)
    kernel = torch.exp(-((at / spread) ** 2) / 2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    flat = pixels.reshape(n * channels, 1, height, width)
    flat = functional.conv2d(functional.pad(flat, (reach, reach, 0, 0), mode="replicate"), kernel)
    flat = functional.conv2d(functional.pad(flat, (0, 0, reach, reach), mode="replicate"), kernel.transpose(2, 3))
    return flat.reshape(n, channels, height, width)


def _pooled(values: FloatArray, grid: tuple[int, int]) -> NDArray[np.float64]:
    """Return a map's mean over each patch, (rows, columns); a coarser one gives each patch the value it lies in."""
    import torch
    from torch.nn import functional

    whole = torch.from_numpy(np.asarray(values, dtype=np.float64))[None, None]
    pooled: NDArray[np.float64] = functional.adaptive_avg_pool2d(whole, grid)[0, 0].numpy()
    return pooled


def _ranks(patches: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return each patch's place from the highest on, (rows columns,); equal ones in random order."""
    flat = patches.ravel()
    order = np.lexsort((rng.random(flat.size), -flat))
    ranks = np.empty(flat.size, dtype=np.int64)
    ranks[order] = np.arange(flat.size)
    return ranks


def _to_pixels(masks: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return masks of patches (B, rows, columns) as masks of pixels (B, H, W)."""
    import torch

    rows, columns = (
        torch.div(torch.arange(pixels) * cells, pixels, rounding_mode="floor")
        for pixels, cells in zip(size, masks.shape[1:], strict=True)
    )
    return masks[:, rows[:, None], columns[None, :]]
