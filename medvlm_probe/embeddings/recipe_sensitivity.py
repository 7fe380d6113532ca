"""How far an embedding moves when the same file is shown through another window or scaling."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.images import FileImages
from medvlm_probe.cohort.recipes import DICOM, PNG, RECIPES
from medvlm_probe.embeddings.extract import Embedded, embed
from medvlm_probe.errors import InputError
from medvlm_probe.metrics.intervals import jackknife_interval
from medvlm_probe.metrics.proportions import proportion
from medvlm_probe.models.contract import VisionLanguageModel
from medvlm_probe.types import Estimate, IntArray

MAX_IMAGES = 200


@dataclass(frozen=True)
class RecipeEffect:
    """What one other recipe does, on the images that both recipes can read.

    Attributes:
        recipe: the other recipe.
        n_images, n_unreadable: images compared, and images that the other recipe cannot read.
        n_changed: images whose pixels the recipe can change at all: those whose embedding is not the same.
        displacement: mean Euclidean distance between an image's two normalised embeddings over that between images of
            different groups, both by the cohort's recipe; 0 where nothing moves, 1 where the recipe moves an image as
            far as another patient lies. Smaller is better.
        recognised: share of images whose nearest embedding by the cohort's recipe is still their own; larger is better.
    """

    recipe: str
    n_images: int
    n_unreadable: int
    n_changed: int
    displacement: Estimate
    recognised: Estimate


@dataclass(frozen=True)
class RecipeSensitivity:
    """The effects of all other recipes of a kind on a sample of a cohort."""

    recipe: str
    model: str
    n_sampled: int
    n_given: int
    effects: tuple[RecipeEffect, ...]

    def table(self) -> pd.DataFrame:
        """Return a row a recipe: counts, and value, low and high of both estimates."""
        rows = []
        for effect in self.effects:
            row: dict[str, object] = {
                "recipe": effect.recipe,
                "compared_with": self.recipe,
                "n_images": effect.n_images,
            }
            row |= {"n_unreadable": effect.n_unreadable, "n_changed": effect.n_changed}
            for name, estimate in (("displacement", effect.displacement), ("recognised", effect.recognised)):
                row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
            rows.append(row)
        return pd.DataFrame(rows)


def other_recipes(recipe: str) -> tuple[str, ...]:
    """Return the recipes that show the same files otherwise: those of the same kind."""
    kind = DICOM if recipe.startswith(DICOM) else PNG
    return tuple(name for name in RECIPES if name.partition(":")[0] == kind and name != recipe)


def recipe_sensitivity(
    cohort: Cohort,
    model: VisionLanguageModel,
    *,
    max_images: int = MAX_IMAGES,
    precision: str = "auto",
    workers: int | None = None,
    cache_dir: Path | None = None,
    say: Callable[[str], None] | None = None,
) -> RecipeSensitivity:
    """Return how far the embeddings of a cohort's images move under each other recipe.

    Args:
        cohort: of files.
        model: any.
        max_images: at most so many images, a sample that depends on the images' names alone.
        precision, workers, cache_dir: as in `extract.embed`.
        say: told what is embedded next.

    Raises:
        InputError: the cohort draws its images, or fewer than two groups can be read.
    """
    source = cohort.source
    if not isinstance(source, FileImages):
        raise InputError(
            "This cohort draws its images; recipes are for files. Export it: cohort export --format dicom."
        )
    part = _sample(cohort, max_images)

    def embedded(recipe: str) -> Embedded:
        if say is not None:
            say(f"Embedding {len(part):,} images as {recipe} shows them.")
        shown = replace(part, source=replace(part.source, recipe=recipe))  # type: ignore[type-var]
        return embed(shown, model, precision=precision, workers=workers, cache_dir=cache_dir, max_failures=len(part))

    base = embedded(source.recipe)
    groups = part.groups()[base.rows]
    if len(np.unique(groups)) < 2:
        raise InputError(f"Fewer than two {cohort.group_kind}s can be read, so there is no distance to compare with.")
    own, spread = _unit(base.vectors), _between(_unit(base.vectors), groups)
    effects = []
    for recipe in other_recipes(source.recipe):
        other = embedded(recipe)
        shared, at_base, at_other = np.intersect1d(base.rows, other.rows, return_indices=True)
        moved = _unit(other.vectors[at_other])
        effects.append(_effect(recipe, moved, own, at_base, groups, spread, len(part) - len(shared)))
    return RecipeSensitivity(source.recipe, model.name, len(part), len(cohort), tuple(effects))


def _effect(
    recipe: str,
    moved: NDArray[np.float64],
    own: NDArray[np.float64],
    at_base: IntArray,
    groups: IntArray,
    spread: NDArray[np.float64],
    n_unreadable: int,
) -> RecipeEffect:
    distances = np.linalg.norm(moved - own[at_base], axis=1)
    nearest = np.argmax(moved @ own.T, axis=1)
    codes = np.unique(groups[at_base], return_inverse=True)[1]
    return RecipeEffect(
        recipe=recipe,
        n_images=len(at_base),
        n_unreadable=n_unreadable,
        n_changed=int((distances > 1e-4).sum()),
        displacement=_ratio(distances, spread[at_base], codes),
        recognised=proportion(nearest == at_base, codes),
    )


def _ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64], codes: IntArray) -> Estimate:
    """Return the ratio of two means over images with its jackknife interval over groups, never below 0."""
    above, below = np.bincount(codes, weights=numerator), np.bincount(codes, weights=denominator)
    without = (above.sum() - above) / np.maximum(below.sum() - below, 1e-300)
    estimate = jackknife_interval(float(above.sum() / below.sum()), without, n=len(codes))
    return replace(estimate, low=max(estimate.low, 0.0))


def _between(vectors: NDArray[np.float64], groups: IntArray) -> NDArray[np.float64]:
    """Return each image's mean distance to the images of other groups, (n,)."""
    distances = np.sqrt(np.maximum(2 - 2 * vectors @ vectors.T, 0))
    others = groups[:, None] != groups
    return np.asarray((distances * others).sum(axis=1) / np.maximum(others.sum(axis=1), 1))


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    wide = np.asarray(vectors, dtype=np.float64)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-300))


def _sample(cohort: Cohort, max_images: int) -> Cohort:
    if len(cohort) <= max_images:
        return cohort
    names = cohort.table["image"].astype(str)
    order = np.argsort([hashlib.sha256(name.encode()).hexdigest() for name in names], kind="stable")
    return cohort.select(np.sort(order[:max_images]))
