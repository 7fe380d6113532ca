"""A cohort's images as another acquisition would have given them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from medvlm_probe.cohort.acquisition import AcquisitionStep, acquire, parse_steps
from medvlm_probe.cohort.cohort import Cohort

if TYPE_CHECKING:
    from PIL.Image import Image

    from medvlm_probe.cohort.images import ImageSource


@dataclass(frozen=True)
class AcquiredImages:
    """Another source's images under acquisition transforms.

    The transforms stand in the recipe, which every store is keyed by; an image keeps the content key of the untouched
    one, which also seeds what is random. So vectors of both pair by key, and neither can be taken for the other.

    Attributes:
        source: the untouched images.
        transform: as `acquisition.parse_steps` reads it, `blur/v1@2`.

    Raises:
        UnknownNameError, InputError: a transform that does not exist.
    """

    source: ImageSource
    transform: str

    def __post_init__(self) -> None:
        parse_steps(self.transform)

    @property
    def recipe(self) -> str:
        """The source's recipe and the transforms: `png/v1+blur/v1@2`."""
        return f"{self.source.recipe}+{'+'.join(step.name for step in self._steps)}"

    @property
    def settings(self) -> str:
        """The source's own settings."""
        return self.source.settings

    def __len__(self) -> int:
        return len(self.source)

    def content_key(self, row: int) -> str:
        """Return the untouched image's content key; raises ImageError."""
        return self.source.content_key(row)

    def read(self, row: int) -> Image:
        """Return the transformed image; raises ImageError."""
        return self.read_with_key(row)[0]

    def read_with_key(self, row: int) -> tuple[Image, str]:
        """Return the transformed image and the untouched one's content key; raises ImageError."""
        image, key = self.source.read_with_key(row)
        return acquire(image, self._steps, key), key

    def rows(self, index: Sequence[int]) -> AcquiredImages:
        """Return the source of these rows, in this order."""
        return replace(self, source=self.source.rows(index))

    @cached_property
    def _steps(self) -> tuple[AcquisitionStep, ...]:
        return parse_steps(self.transform)


def acquired(cohort: Cohort, transform: str) -> Cohort:
    """Return a cohort whose images went through a transform, `blur/v1@2`; all else stays."""
    return replace(cohort, source=AcquiredImages(cohort.source, transform))
