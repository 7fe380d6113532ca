"""A cohort's sketch by map and reduce: shards of whole patients are sketched by an engine, and merged in a tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.embeddings.engines import Engine, tree_merged
from medvlm_probe.shift.sketch import Sketch, merge_sketches, sketch
from medvlm_probe.shift.sketch_plan import SketchPlan

PATIENTS_IN_SHARD = 2_048
"""Enough that each of 20 folds of a shard holds several patients, so that no fold is put together."""


@dataclass(frozen=True, eq=False)
class SketchRows:
    """What is summed, for the images of a cohort or of a shard of it; arguments of `shift.sketch.sketch`."""

    vectors: NDArray[np.float32]
    names: NDArray[np.str_]
    probabilities: NDArray[np.float64]
    labels: NDArray[np.float64]
    outlier_scores: Mapping[str, NDArray[np.float64]]

    def at(self, rows: NDArray[np.int64]) -> SketchRows:
        """Return the arguments of some images."""
        outliers = {name: values[rows] for name, values in self.outlier_scores.items()}
        return SketchRows(self.vectors[rows], self.names[rows], self.probabilities[rows], self.labels[rows], outliers)


def sketch_in_shards(
    plan: SketchPlan,
    rows: SketchRows,
    engine: Engine,
    *,
    own_plan: bool,
    patients_in_shard: int = PATIENTS_IN_SHARD,
) -> Sketch:
    """Return the working sketch of all images, equal up to rounding (1e-9) to sketching them at once.

    Args:
        plan: what is measured.
        rows: the images.
        engine: sketches the shards.
        own_plan: whether the plan's numbers come from these images.
        patients_in_shard: about how many; images of one patient never part.
    """
    work = partial(_sketched, plan, own_plan)
    shards = shards_of(rows.names, patients_in_shard)
    return tree_merged(list(engine.map_shards(work, (rows.at(shard) for shard in shards))), merge_sketches)


def shards_of(names: Sequence[str] | NDArray[np.str_], patients_in_shard: int) -> Iterator[NDArray[np.int64]]:
    """Yield each shard's image rows, ascending: patients in the order of their names, shards of nearly equal size."""
    patients, codes = np.unique(np.asarray(names, dtype=str), return_inverse=True)
    n_shards = max(1, round(len(patients) / patients_in_shard))
    shard_of_image = codes * n_shards // max(1, len(patients))
    for shard in range(n_shards):
        yield np.flatnonzero(shard_of_image == shard).astype(np.int64)


def _sketched(plan: SketchPlan, own_plan: bool, rows: SketchRows) -> Sketch:
    return sketch(
        plan,
        rows.vectors,
        rows.names.tolist(),
        probabilities=rows.probabilities,
        labels=rows.labels,
        outlier_scores=rows.outlier_scores,
        own_plan=own_plan,
    )
