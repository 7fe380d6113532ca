"""Acquisition transforms: what another scanner, archive or export would have done to the same radiograph, by degrees.

A transform takes an 8-bit grey image to one of the same size, depends on nothing but the image, its level and its
content key, and is named with its version and level: `blur/v1@2` is a blur of 2 pixels. Lengths in pixels are pixels of
a picture whose shorter side has 224 (`FRAME`), about what models see, so that one level does the same to a small export
and to a film of five megapixels. Two transforms after one another are joined by a plus: `blur/v1@1+jpeg/v1@25`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medvlm_probe.cohort import acquisition_geometry as geometry
from medvlm_probe.cohort import acquisition_greys as greys
from medvlm_probe.cohort.acquisition_geometry import FRAME
from medvlm_probe.errors import InputError, unknown_name

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "ACQUISITIONS",
    "FRAME",
    "Acquisition",
    "AcquisitionStep",
    "acquire",
    "acquisition_names",
    "chained",
    "parse_steps",
]

Apply = Callable[["Image", float, str], "Image"]


@dataclass(frozen=True)
class Acquisition:
    """One way in which acquisition differs.

    Attributes:
        name: as in `ACQUISITIONS`.
        version: changes whenever the pixels do.
        words: what is different about the image, for people: "lower resolution".
        unit: of the levels.
        level_words: how a level is put beside `words`: "{} px".
        neutral: the level that leaves every image as it is; infinite where it cannot be reached (photons, pixels).
        levels: 3 to 5, in the order of an axis; the damage grows away from `neutral`.
        apply: takes a mode "L" image, a level and the image's content key.
    """

    name: str
    version: int
    words: str
    unit: str
    level_words: str
    neutral: float
    levels: tuple[float, ...]
    apply: Apply

    def severity(self, level: float) -> int:
        """Return how many of the levels lie between neutral and this one, itself included; negative before neutral."""
        low, high = sorted((self.neutral, level))
        between = sum(low <= other <= high for other in self.levels if other != self.neutral)
        return -between if self.two_sided and level < self.neutral else between

    @property
    def two_sided(self) -> bool:
        """Whether there are levels on both sides of neutral."""
        return min(self.levels) < self.neutral < max(self.levels)

    @property
    def span(self) -> tuple[float, float]:
        """The least and the greatest level that can be asked for; neutral lies between them."""
        every = (*self.levels, self.neutral)
        return min(every), max(every)

    def step(self, level: float) -> AcquisitionStep:
        """Return this transform at a level; any number in `span` will do."""
        return AcquisitionStep(self, level)


@dataclass(frozen=True)
class AcquisitionStep:
    """A transform at one level."""

    acquisition: Acquisition
    level: float

    @property
    def name(self) -> str:
        """`blur/v1@2`."""
        return f"{self.acquisition.name}/v{self.acquisition.version}@{self.level:g}"

    @property
    def words(self) -> str:
        """`lower resolution (96 px)`."""
        level = self.acquisition.level_words.format(f"{self.level:g}".replace("-", "\u2212"))
        return f"{self.acquisition.words} ({level})"


ACQUISITIONS: dict[str, Acquisition] = {
    entry.name: entry
    for entry in (
        Acquisition("gamma", 1, "another grey curve", "gamma", "gamma {}", 1.0, (0.5, 0.7, 1.4, 2.0), greys.gamma),
        Acquisition("contrast", 1, "another contrast", "factor", "x {}", 1.0, (0.5, 0.7, 1.4, 2.0), greys.contrast),
        Acquisition(
            "window", 1, "another window", "% of the range", "centre {} %", 0.0, (-20, -10, 10, 20), greys.window
        ),
        Acquisition("noise", 1, "more noise", "photons", "{} photons", math.inf, (8000, 2000, 500, 125), greys.noise),
        Acquisition("blur", 1, "more blur", "px", "{} px", 0.0, (0.5, 1, 2, 4), geometry.blur),
        Acquisition("jpeg", 1, "stronger JPEG", "quality", "quality {}", math.inf, (75, 50, 25, 10), greys.jpeg),
        Acquisition(
            "resolution", 1, "lower resolution", "px", "{} px", math.inf, (160, 128, 96, 64, 32), geometry.resolution
        ),
        Acquisition(
            "aspect", 1, "another aspect", "width to height", "x {}", 1.0, (0.7, 0.85, 1.18, 1.4), geometry.aspect
        ),
        Acquisition("marker", 1, "a side marker", "% of the side", "{} %", 0.0, (5, 10, 20), geometry.marker),
        Acquisition(
            "collimation", 1, "black borders", "% of each side", "{} %", 0.0, (2, 5, 10, 15), geometry.collimation
        ),
        Acquisition(
            "inversion", 1, "inverted greys", "% of the images", "{} % of them", 0.0, (10, 25, 50, 100), greys.inversion
        ),
        Acquisition("rotation", 1, "tilted images", "degrees", "{} degrees", 0.0, (3, 6, 12, 24), geometry.rotation),
    )
}
"""Every acquisition transform."""

_CHAIN = (
    *("rotation", "collimation", "blur", "noise", "gamma", "contrast", "window", "inversion", "marker"),
    *("aspect", "resolution", "jpeg"),
)
"""The order in which a film meets them: patient, tube and detector, display, export."""


def acquisition_names(only: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """Return `blur/v1@0.5`, ... for every level of the transforms named, or of all.

    Raises:
        UnknownNameError: a name that is none.
    """
    chosen = ACQUISITIONS if only is None else only
    return tuple(_named(name).step(level).name for name in chosen for level in _named(name).levels)


def parse_steps(name: str) -> tuple[AcquisitionStep, ...]:
    """Return the steps of `blur/v1@1+jpeg/v1@25`, in the order in which they are applied.

    Raises:
        UnknownNameError: a transform that does not exist.
        InputError: another version, or a level that is no number or out of range.
    """
    return tuple(_steps(name))


def chained(names: Iterable[str]) -> str:
    """Return transforms joined in the order in which a film meets them, compression last: `blur/v1@1+jpeg/v1@25`.

    Raises:
        UnknownNameError, InputError: as `parse_steps`.
    """
    steps = [step for name in names for step in parse_steps(name)]
    return "+".join(step.name for step in sorted(steps, key=lambda step: _CHAIN.index(step.acquisition.name)))


def acquire(image: Image, steps: tuple[AcquisitionStep, ...], key: str) -> Image:
    """Return an image as the steps make it: of the same size and mode.

    Args:
        image: mode "L", or "RGB", whose channels are treated alike.
        steps: applied in this order.
        key: the image's content key, which seeds what is random.
    """
    for step in steps:
        if step.level == step.acquisition.neutral:
            continue
        if image.mode == "RGB":
            from PIL import Image as Images

            bands = [step.acquisition.apply(band, step.level, key) for band in image.split()]
            image = Images.merge("RGB", bands)
        else:
            image = step.acquisition.apply(image, step.level, key)
    return image


def _steps(name: str) -> Iterator[AcquisitionStep]:
    for part in name.split("+"):
        head, _, level = part.partition("@")
        base, _, version = head.partition("/v")
        entry = _named(base)
        try:
            value = float(level)
        except ValueError:
            value = math.nan
        low, high = entry.span
        if version != str(entry.version) or not low <= value <= high:
            example = entry.step(entry.levels[0]).name
            raise InputError(
                f"Acquisition transform '{part}': expected NAME/vVERSION@LEVEL such as {example}, with a level from "
                f"{low:g} to {high:g} {entry.unit}."
            )
        yield entry.step(value)


def _named(name: str) -> Acquisition:
    if name not in ACQUISITIONS:
        raise unknown_name("acquisition transform", name, ACQUISITIONS)
    return ACQUISITIONS[name]
