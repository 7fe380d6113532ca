"""Labels of the same images from several sources, and how each source's blanks and uncertain labels are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError, unknown_name
from medvlm_probe.types import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class LabelSources:
    """Labels of the same images from several sources.

    Attributes:
        labels: L names.
        values: source to 1, 0 or NaN (not known), (n, L); the first one is the reference that others are compared with.
        groups: the patient of each image, (n,).
    """

    labels: tuple[str, ...]
    values: Mapping[str, FloatArray]
    groups: IntArray

    def __post_init__(self) -> None:
        if len(self.values) < 2:
            raise InputError("Comparing labels takes at least two sources of them.")
        shape = (len(self.groups), len(self.labels))
        for name, values in self.values.items():
            if values.shape != shape:
                raise InputError(f"Labels of '{name}' have shape {values.shape}; expected {shape} (images, labels).")

    @property
    def reference(self) -> str:
        """The source that the others are compared with."""
        return next(iter(self.values))

    def rows(self, mask: BoolArray) -> LabelSources:
        """Return the sources on some images."""
        return LabelSources(self.labels, {k: v[mask] for k, v in self.values.items()}, self.groups[mask])


def resolve_blanks(values: FloatArray, *, blank: str, uncertainty: str) -> NDArray[np.float32]:
    """Return a source's labels as 1, 0 or NaN.

    Args:
        values: 1, 0, -1 uncertain or NaN not stated, (n, L).
        blank: what is not stated in an image of which anything is: `absent`, as labelers of reports mean it, or
            `unknown`. An image of which nothing is stated is unknown.
        uncertainty: what -1 is: `ignore` (unknown), `zeros` or `ones`.

    Raises:
        UnknownNameError: another policy.
    """
    policies = {"ignore": np.nan, "zeros": 0.0, "ones": 1.0}
    if uncertainty not in policies:
        raise unknown_name("uncertainty policy", uncertainty, policies)
    if blank not in ("absent", "unknown"):
        raise unknown_name("reading of blanks", blank, ("absent", "unknown"))
    stated = ~np.isnan(values)
    filled = np.where(~stated & stated.any(axis=1, keepdims=True), 0.0, values) if blank == "absent" else values
    return np.where(filled == -1, policies[uncertainty], filled).astype(np.float32)


def shared_labels(named: Mapping[str, Sequence[str]], wanted: Sequence[str] | None) -> tuple[str, ...]:
    """Return the labels that every source has, in the first one's order; those wanted must be among them.

    Raises:
        InputError: none is shared, or a wanted one is not.
    """
    first, *others = (list(labels) for labels in named.values())
    common = tuple(label for label in first if all(label in other for other in others))
    for label in wanted or ():
        if label not in common:
            lacking = [name for name, labels in named.items() if label not in labels]
            raise InputError(f"Label '{label}' is missing from {', '.join(lacking)}.")
    if not common:
        raise InputError(f"The sources {', '.join(named)} share no label. Name the columns alike.")
    return tuple(wanted) if wanted else common
