"""The phantom cohort as a cohort: its table without drawing a pixel, its images drawn when they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import pandas as pd

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.cohort.manifest import UncertaintyPolicy
from medvlm_probe.errors import InputError, unknown_name

if TYPE_CHECKING:
    from PIL.Image import Image

    from medvlm_probe.cohort.data_cards import DataCard
    from medvlm_probe.cohort.phantom import Case

IMAGES_AT_SITES = {"reference": 600, "portable": 200, "low_dose": 200, "inverted_archive": 200, "community": 200}
"""The embedded default's sites and how many images each has."""

_OPTIONS = ("prevalence", "sites", "n", "seed", "size")


@dataclass(frozen=True)
class PhantomOptions:
    """What phantom cohort to make.

    Attributes:
        prevalence: `iu_xray` (long-tailed) or `balanced`.
        images: site name to number of images.
        seed: the cohort's seed; each seed has other patients.
        size: width and height of the images, 32 to 1024 pixels.
    """

    prevalence: str = "iu_xray"
    images: tuple[tuple[str, int], ...] = tuple(IMAGES_AT_SITES.items())
    seed: int = 0
    size: int = 224


@dataclass(frozen=True)
class PhantomImages:
    """Phantom radiographs, drawn when read: the recipe phantom/v1, mode "L"."""

    cases: tuple[Case, ...]
    size: int
    recipe: str = "phantom/v1"

    @cached_property
    def settings(self) -> str:
        """The generator's digest and the size, which decide the pixels besides the cases."""
        from medvlm_probe.cohort.phantom import generator_digest

        return f"generator {generator_digest()}, {self.size} px"

    def __len__(self) -> int:
        return len(self.cases)

    def content_key(self, row: int) -> str:
        """Return the sha256 over the generator and the case: equal keys draw equal pixels. Nothing is drawn."""
        from medvlm_probe.cohort.phantom import case_key

        return case_key(self.cases[row], self.size)

    def read(self, row: int) -> Image:
        """Return the drawn radiograph, mode "L", size x size."""
        from PIL import Image

        from medvlm_probe.cohort.phantom import draw

        return Image.fromarray(draw(self.cases[row], self.size).pixels)

    def read_with_key(self, row: int) -> tuple[Image, str]:
        """Return the drawn radiograph and its content key."""
        return self.read(row), self.content_key(row)

    def rows(self, index: Sequence[int]) -> PhantomImages:
        """Return the source of these rows, in this order."""
        return replace(self, cases=tuple(self.cases[i] for i in index))


def phantom_options(text: str) -> PhantomOptions:
    """Read `prevalence=balanced,sites=reference+portable,n=100,seed=1,size=512`; any of them may be left out.

    `n` is the number of images at each site.

    Raises:
        UnknownNameError: an unknown option, site or prevalence.
        InputError: a number that is none, or out of range.
    """
    from medvlm_probe.cohort.phantom import PREVALENCES, SITES
    from medvlm_probe.cohort.phantom.render import LARGEST, SMALLEST

    given: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        key, _, value = part.partition("=")
        if key not in _OPTIONS:
            raise unknown_name("phantom option", key, _OPTIONS)
        given[key] = value
    options = PhantomOptions()
    if "prevalence" in given:
        if given["prevalence"] not in PREVALENCES:
            raise unknown_name("prevalence", given["prevalence"], PREVALENCES)
        options = replace(options, prevalence=given["prevalence"])
    if "seed" in given:
        options = replace(options, seed=_whole_number("seed", given["seed"], 0, 2**31 - 1))
    if "size" in given:
        options = replace(options, size=_whole_number("size", given["size"], SMALLEST, LARGEST))
    sites = tuple(dict.fromkeys(given["sites"].split("+"))) if "sites" in given else tuple(IMAGES_AT_SITES)
    for site in sites:
        if site not in SITES:
            raise unknown_name("phantom site", site, SITES)
    n = _whole_number("n", given["n"], 1, 1_000_000) if "n" in given else None
    return replace(options, images=tuple((site, IMAGES_AT_SITES.get(site, 200) if n is None else n) for site in sites))


def phantom_cohort(options: PhantomOptions, card: DataCard, uncertainty: UncertaintyPolicy) -> Cohort:
    """Return the phantom cohort that `options` ask for. Patients are split in two halves, `calib` and `test`."""
    from medvlm_probe.cohort.phantom import sample_cases

    cases = [case for site, n in options.images for case in sample_cases(site, n, options.seed, options.prevalence)]
    return Cohort(
        name=card.name,
        table=phantom_table(cases),
        labels=CHEXPERT_LABELS,
        uncertainty=uncertainty,
        source=PhantomImages(tuple(cases), options.size),
        card=card,
    )


def phantom_table(cases: Sequence[Case], suffix: str = ".png") -> pd.DataFrame:
    """Return the manifest of cases, one row each: the columns of `MANIFEST_COLUMNS`, then the 14 labels as float32.

    Args:
        cases: from `sample_cases`.
        suffix: what the image names end in.
    """
    table = pd.DataFrame(
        {
            "image": [f"{image_stem(case)}{suffix}" for case in cases],
            "patient": [case.patient for case in cases],
            "study": [case.study for case in cases],
            "site": [case.site for case in cases],
            "view": [case.view for case in cases],
            "split": [split_of(case.patient) for case in cases],
            "age": pd.array([case.age for case in cases]).astype("float32"),
            "sex": [case.sex for case in cases],
            "report": [case.report for case in cases],
        }
    )
    labels = pd.DataFrame([case.labels for case in cases], columns=list(CHEXPERT_LABELS)).astype("float32")
    return pd.concat([table, labels], axis=1)


def image_stem(case: Case) -> str:
    """Return an image's path without its suffix: `SITE/PATIENT-K`, K counting the patient's images from 1."""
    return f"{case.site}/{case.patient}-{case.image_index + 1}"


def split_of(patient: str) -> str:
    """Return the half, `calib` or `test`, that a patient's id falls in; it never depends on the other patients."""
    return "calib" if hashlib.sha256(patient.encode()).digest()[0] < 128 else "test"


def _whole_number(name: str, text: str, low: int, high: int) -> int:
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise InputError(f"Phantom option {name}={text}: expected a whole number from {low:,} to {high:,}.")
    return int(text)
