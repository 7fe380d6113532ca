"""The names that one data set goes by, and which data sets share images: a table to be read and added to."""

from __future__ import annotations

import re
from collections.abc import Mapping

ALIASES: Mapping[str, tuple[str, ...]] = {
    "iu_xray": ("iu", "iu_cxr", "open_i", "nlmcxr", "indiana", "indiana_university", "iu_chest_x_ray"),
    "nih_cxr14": ("nih", "chestx_ray14", "nih_chestx_ray14", "nih_chest_x_rays", "chestx_ray8", "cxr8"),
    "rsna_pneumonia": ("rsna", "rsna18", "rsna_2018", "rsna_pneumonia_detection_challenge"),
    "siim_acr_pneumothorax": ("siim", "siim_acr", "siim_pneumothorax"),
    "chexpert": ("chexpert_small", "chexpert_plus", "stanford"),
    "mimic_cxr": ("mimic", "mimic_cxr_jpg", "bidmc"),
    "padchest": ("bimcv_padchest", "padchest_gr"),
    "vindr_cxr": ("vindr", "vinbigdata_cxr"),
    "guangzhou": ("kermany", "chest_xray_pneumonia", "labeled_oct_and_chest_x_ray", "pneumoniamnist"),
    "hannover": ("hannover_covid", "covid_19_image_repository", "ml_workgroup"),
    "pmc_15m": (),
    "phantom": ("phantoms", "phantom_export"),
}
"""A data set's name in this package, and how cards, models and manifests' sites call it as well."""

PART_OF: Mapping[str, str] = {"rsna_pneumonia": "nih_cxr14", "siim_acr_pneumothorax": "nih_cxr14"}
"""Data sets whose images are images of another one, under other names and other splits."""


def canonical_name(name: str) -> str:
    """Return a data set's name in this package, whatever its case and separators; an unknown name in snake_case."""
    return _CANONICAL.get(_letters(name)) or re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_CANONICAL = {_letters(alias): name for name, aliases in ALIASES.items() for alias in (name, *aliases)}
