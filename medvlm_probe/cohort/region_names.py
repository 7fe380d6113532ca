"""From what a source calls its findings to labels: by a map in TOML, the cohort's labels, published classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medvlm_probe.cohort.importers.nih_cxr14 import LABEL_MAP as NIH_CLASSES
from medvlm_probe.cohort.importers.published import LabelMap
from medvlm_probe.cohort.manifest_columns import snake_case
from medvlm_probe.errors import InputError, unknown_name
from medvlm_probe.runs import parse_toml

NIH_BOX_CLASSES: LabelMap = {**NIH_CLASSES, "Infiltrate": NIH_CLASSES["Infiltration"]}
"""NIH's classes, and what its box file calls one of them."""

RSNA_CLASSES: LabelMap = {
    "Lung Opacity": ("lung_opacity",),
    "Lung Opacity (RSNA pneumonia)": ("lung_opacity",),
}

KNOWN_CLASSES: LabelMap = {
    snake_case(name): labels for name, labels in {**NIH_BOX_CLASSES, **RSNA_CLASSES}.items() if labels
}
"""Classes of published boxes (snake_case), for tables that keep them where a label should stand."""


def read_region_names(path: Path) -> dict[str, tuple[str, ...]]:
    """Read a label map of regions: the source's name in any spelling to the labels that its regions belong to.

        [regions]
        "Lung Opacity" = "lung_opacity"
        "Mass" = ["lung_lesion", "lung_opacity"]
        "Rib" = []                                # leave these out

    Raises:
        InputError, UnknownNameError: the file cannot be read, or a field is unknown or of another kind.
    """
    try:
        content = parse_toml(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise InputError(f"There is no label map '{path}'. Check the path.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path.name} is no valid TOML: {error}.") from error
    for name in content:
        if name != "regions":
            raise InputError(f"{path.name}: {unknown_name('field', name, ['regions'])}")
    table = content.get("regions")
    if not isinstance(table, dict):
        raise InputError(f'{path.name} has no table [regions]. Write one, with lines such as "Their name" = "label".')
    names = {}
    for name, given in table.items():
        labels = [given] if isinstance(given, str) else given
        if not isinstance(labels, list) or not all(isinstance(label, str) and snake_case(label) for label in labels):
            raise InputError(f"{path.name}: regions.{name} must be a label, or a list of labels.")
        names[snake_case(name)] = tuple(snake_case(label) for label in labels)
    return names


def labels_for(
    name: str, own: Sequence[str], classes: LabelMap, given: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    """Return the labels that a source's finding belongs to.

    What the label map says; else what the source's published classes say; else the cohort's label of that name; else
    what any published class of that name says; else the name itself, in snake_case.

    Args:
        name: as the source writes it.
        own: the cohort's labels.
        classes: of the source, by the name as it writes it.
        given: from `read_region_names`.
    """
    plain = snake_case(name)
    if plain in given:
        return given[plain]
    if classes.get(name):
        return classes[name]
    if plain in own:
        return (plain,)
    return KNOWN_CLASSES.get(plain, (plain,))
