"""The recipes by name: which files each reads, and how it shows their values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from os.path import splitext
from typing import TYPE_CHECKING

from medvlm_probe.cohort import png_recipe
from medvlm_probe.cohort.image_headers import ImageHeader, is_dicom
from medvlm_probe.errors import unknown_name

if TYPE_CHECKING:
    from PIL.Image import Image

PNG, DICOM, JPEG_DRAFT = "png/v1", "dicom/v1", "jpeg/draft/v1"
DRAFT_SIDE = 512
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")


@dataclass(frozen=True)
class Recipe:
    """A named, versioned way from a file to 8-bit pixels.

    Attributes:
        name: as it stands in data cards, cohorts and stores.
        dicom: whether DICOM files are read, besides PNG, JPEG and TIFF.
        window: which window of a DICOM file is shown; 0 is the full range of its stored bits.
        percentiles: the ends, 0 to 100, that grey images are stretched between; None stretches nothing.
        draft_side: JPEGs are decoded as small as leaves both sides at least so long; None: as they are stored.
    """

    name: str
    dicom: bool
    window: int = 1
    percentiles: tuple[float, float] | None = None
    draft_side: int | None = None


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(PNG, dicom=False),
        Recipe(f"{PNG}:percentile-0.5-99.5", dicom=False, percentiles=(0.5, 99.5)),
        Recipe(f"{PNG}:percentile-2-98", dicom=False, percentiles=(2, 98)),
        Recipe(DICOM, dicom=True),
        Recipe(f"{DICOM}:window2", dicom=True, window=2),
        Recipe(f"{DICOM}:full-range", dicom=True, window=0),
        Recipe(f"{DICOM}:percentile-0.5-99.5", dicom=True, percentiles=(0.5, 99.5)),
        Recipe(f"{DICOM}:percentile-2-98", dicom=True, percentiles=(2, 98)),
        Recipe(JPEG_DRAFT, dicom=False, draft_side=DRAFT_SIDE),
    )
}
"""Every recipe that reads files. Those behind a colon are for comparison with the one before it; `jpeg/draft/v1` is
png/v1 for large JPEGs in a hurry, taken only where a data card asks for it."""


def recipe_named(name: str) -> Recipe:
    """Return a recipe (UnknownNameError for a name that is none)."""
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES)
    return RECIPES[name]


def recipe_for(paths: Iterable[str]) -> str:
    """Return the name of the recipe that files of these names need.

    `dicom/v1` where one ends in .dcm, .dicom or .ima or has no ending, as archives write them (a UID's last number is
    no ending), else `png/v1`.
    """
    suffixes = {splitext(path)[1].lower() for path in paths}
    return DICOM if any(s in DICOM_SUFFIXES or s.strip(".").isdigit() or not s for s in suffixes) else PNG


def checked_header(data: bytes, recipe: Recipe, max_pixels: int) -> ImageHeader:
    """Return the header of a file that the recipe accepts; nothing is decoded.

    Raises:
        ImageError: the file is not usable; `reason` is a key of `images.REASONS`.
    """
    if recipe.dicom and is_dicom(data):
        from medvlm_probe.cohort import dicom_recipe

        return dicom_recipe.checked_header(data, max_pixels)
    return png_recipe.checked_header(data, max_pixels)


def decode(data: bytes, recipe: Recipe, max_pixels: int) -> Image:
    """Return the image in mode "L" or "RGB", 8 bit; the same errors as `checked_header`, and those of decoding."""
    if recipe.dicom and is_dicom(data):
        from medvlm_probe.cohort import dicom_recipe

        rendering = dicom_recipe.Rendering(recipe.window, recipe.percentiles)
        return dicom_recipe.decode(data, max_pixels, rendering)
    return png_recipe.decode(data, max_pixels, recipe.percentiles, recipe.draft_side)
