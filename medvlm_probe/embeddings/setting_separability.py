"""Separability of the same held-out images in several settings: zero-shot, linear probe, fine-tuned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.legacy_separability import LegacySeparability, legacy_separability
from medvlm_probe.metrics.pairwise import Space
from medvlm_probe.metrics.separation_scores import labels_in_row, separability_row
from medvlm_probe.types import Estimate, FloatArray, IntArray


@dataclass(frozen=True)
class SettingSeparability:
    """One setting's row.

    Attributes:
        setting: its name.
        same_as: an earlier setting with the very same vectors, whose numbers these are: a linear probe adds a head and
            moves no embedding, so a difference between the two would say nothing. "" where there is none.
        estimates: of `separation_scores.QUANTITIES`.
        legacy: the published study's inter, intra and ratio; None where not asked for.
    """

    setting: str
    same_as: str
    estimates: Mapping[str, Estimate]
    legacy: LegacySeparability | None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON objects."""
        return {
            "setting": self.setting,
            "same_vectors_as": self.same_as or None,
            **{name: estimate.to_json() for name, estimate in self.estimates.items()},
            "legacy": self.legacy.to_json() if self.legacy else None,
        }


@dataclass(frozen=True)
class SeparabilityComparison:
    """The settings' rows, each a mean over `labels`; `left_out` have too few groups of positives or of negatives."""

    settings: tuple[SettingSeparability, ...]
    labels: tuple[str, ...]
    left_out: tuple[str, ...]
    space: Space

    @property
    def sentences(self) -> list[str]:
        """What a reader has to know beside the numbers."""
        said = [
            f"{entry.setting} has the vectors of {entry.same_as}: its separability is the same by construction."
            for entry in self.settings
            if entry.same_as
        ]
        if self.left_out:
            said.append(f"Not in the means, with fewer than 10 groups of either kind: {', '.join(self.left_out)}.")
        return said

    def to_json(self) -> dict[str, Any]:
        """Return the rows as JSON objects."""
        return {
            "space": self.space,
            "labels": list(self.labels),
            "labels_left_out": list(self.left_out),
            "settings": [entry.to_json() for entry in self.settings],
        }

    def table(self) -> pd.DataFrame:
        """Return one row per setting and quantity; the published ones stand as `legacy_inter` and so on."""
        rows: list[dict[str, object]] = []
        for entry in self.settings:
            head = {"setting": entry.setting, "same_vectors_as": entry.same_as}
            rows += [head | {"quantity": name} | vars(estimate) for name, estimate in entry.estimates.items()]
            if entry.legacy is not None:
                for name in ("intra", "inter", "ratio", "null_ratio", "null_low", "null_high", "p_value"):
                    rows.append(head | {"quantity": f"legacy_{name}", "value": getattr(entry.legacy, name)})
        return pd.DataFrame(rows)


def compare_settings(
    vectors: Mapping[str, FloatArray],
    labels: FloatArray,
    groups: IntArray,
    label_names: Sequence[str],
    *,
    space: Space = "l2",
    legacy: bool = False,
    seed: int = 0,
) -> SeparabilityComparison:
    """Return how well labels are separated in each setting, on the same images, which no setting was trained on.

    Args:
        vectors: setting to the image embeddings of the held-out images before normalisation, (n, d) each; settings may
            share an array, and dimensions may differ.
        labels: 1, 0 or NaN, (n, L).
        groups: the independently sampled group (patient) of each image, (n,).
        label_names: L names.
        space: `l2`, without which settings cannot be compared, or `raw`.
        legacy: add the published study's definitions, which are on raw vectors.
        seed: of folds and permutations, the same in all settings.

    Raises:
        InputError: no setting, or shapes that do not fit.
    """
    if not vectors:
        raise InputError("No settings to compare: give the embeddings of at least one.")
    rows: list[SettingSeparability] = []
    for setting, array in vectors.items():
        twin = next((entry for entry in rows if _same(vectors[entry.setting], array)), None)
        if twin is not None:
            rows.append(SettingSeparability(setting, twin.same_as or twin.setting, twin.estimates, twin.legacy))
            continue
        estimates = separability_row(
            array, labels, groups, label_names=label_names, space=space, rng=np.random.default_rng([seed, 0])
        )
        published = (
            legacy_separability(array, labels, label_names, groups, rng=np.random.default_rng([seed, 1]))
            if legacy
            else None
        )
        rows.append(SettingSeparability(setting, "", estimates, published))
    used = labels_in_row(labels, groups)
    return SeparabilityComparison(
        settings=tuple(rows),
        labels=tuple(name for name, kept in zip(label_names, used, strict=True) if kept),
        left_out=tuple(name for name, kept in zip(label_names, used, strict=True) if not kept),
        space=space,
    )


def _same(first: FloatArray, second: FloatArray) -> bool:
    return first is second or (first.shape == second.shape and bool(np.array_equal(first, second)))
