"""A cohort: images with their labels, sites and patients."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvlm_probe.cohort.data_cards import DataCard
from medvlm_probe.cohort.images import ImageSource
from medvlm_probe.cohort.manifest import MANIFEST_COLUMNS, UncertaintyPolicy, apply_policy
from medvlm_probe.cohort.manifest_columns import snake_case
from medvlm_probe.errors import InputError, unknown_name

GroupKind = Literal["patient", "study", "image"]


@dataclass(frozen=True, eq=False)
class Cohort:
    """Images with what is known about them. Rows of `table`, `source` and every array below are the same images.

    Attributes:
        name: what tables and files call it.
        table: one row an image, RangeIndex: the manifest columns that exist, one float32 column per label
            (1 present, 0 absent, -1 uncertain, NaN not known), and extra columns as text.
        labels: the label columns, snake_case.
        uncertainty: what `targets` makes of -1.
        source: how the pixels are read.
        card: the data card.
    """

    name: str
    table: pd.DataFrame
    labels: tuple[str, ...]
    uncertainty: UncertaintyPolicy
    source: ImageSource
    card: DataCard

    def __post_init__(self) -> None:
        if len(self.source) != len(self.table):
            raise InputError(f"{len(self.table):,} rows do not fit {len(self.source):,} images.")

    def __len__(self) -> int:
        return len(self.table)

    @property
    def absent(self) -> tuple[str, ...]:
        """The manifest columns that this cohort lacks."""
        return tuple(name for name in MANIFEST_COLUMNS if name not in self.table)

    @property
    def extra(self) -> tuple[str, ...]:
        """The columns that are neither manifest columns nor labels."""
        known = {*MANIFEST_COLUMNS, *self.labels}
        return tuple(str(name) for name in self.table.columns if name not in known)

    def targets(self, labels: Sequence[str] | None = None) -> NDArray[np.float32]:
        """Return the labels (n, L) as 1, 0 or NaN after the uncertainty policy; all labels unless some are named."""
        names = resolve_labels(self, labels)
        return apply_policy(self.table.loc[:, list(names)].to_numpy(dtype=np.float32), self.uncertainty)

    @property
    def group_kind(self) -> GroupKind:
        """What is sampled independently: the patient where any is given, else the study, else the image."""
        for kind in ("patient", "study"):
            if kind in self.table and bool(self.table[kind].notna().any()):
                return kind
        return "image"

    def groups(self) -> NDArray[np.int64]:
        """Return each image's group (n,), codes 0..G-1 in order of first appearance.

        The patient; where its cell is empty the study; where that is empty too the image alone. Ids are taken as given:
        the same patient id at two sites is one group.
        """
        keys = pd.Series([f"image {i}" for i in range(len(self))], dtype=object)
        for kind in ("study", "patient"):
            if kind in self.table:
                ids = self.table[kind]
                keys = keys.mask(ids.notna(), f"{kind} " + ids.astype(object))
        codes, _ = pd.factorize(keys)
        return codes.astype(np.int64)

    def sites(self) -> NDArray[Any]:
        """Return each image's site (n,) as str; "" where not known."""
        return self._texts("site")

    def splits(self) -> NDArray[Any]:
        """Return each image's split (n,) as str; "" where not known."""
        return self._texts("split")

    def select(self, rows: NDArray[Any] | Sequence[int]) -> Cohort:
        """Return the cohort of some rows.

        Args:
            rows: a boolean mask (n,), or row numbers in the order wanted, each at most once.

        Raises:
            InputError: a mask of another length, a number out of range or given twice.
        """
        index = np.asarray(rows)
        if index.dtype == np.bool_:
            if index.shape != (len(self),):
                raise InputError(f"A mask of shape {index.shape} does not fit {len(self):,} images.")
            index = np.flatnonzero(index)
        if index.size and (index.min() < 0 or index.max() >= len(self) or np.unique(index).size != index.size):
            raise InputError(f"Rows must be different numbers from 0 to {len(self) - 1}.")
        index = index.astype(np.int64)
        table = self.table.iloc[index].reset_index(drop=True)
        return replace(self, table=table, source=self.source.rows(index.tolist()))

    def select_split(self, split: str) -> Cohort:
        """Return the rows of one split; raises UnknownNameError, or InputError where the cohort has no splits."""
        splits = self.splits()
        known = sorted(set(splits) - {""})
        if not known:
            raise InputError(f"Cohort '{self.name}' has no splits, so '{split}' cannot be chosen. Leave the split out.")
        if split not in known:
            raise unknown_name("split", split, known)
        return self.select(splits == split)

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 over the table's content, the labels, the uncertainty policy, the recipe and its settings."""
        digest = hashlib.sha256()
        for part in (*self.labels, self.uncertainty, self.source.recipe, self.source.settings):
            _feed(digest, part.encode())
        for name in self.table.columns:
            _feed(digest, str(name).encode())
            column = self.table[name]
            if pd.api.types.is_numeric_dtype(column):
                _feed(digest, column.to_numpy(dtype="<f8").tobytes())
            else:
                _feed_texts(digest, column)
        return digest.hexdigest()

    def _texts(self, column: str) -> NDArray[Any]:
        if column not in self.table:
            return np.full(len(self), "", dtype=str)
        return self.table[column].fillna("").to_numpy(dtype=str)


def resolve_labels(cohort: Cohort, names: Sequence[str] | None) -> tuple[str, ...]:
    """Return label columns for names in any spelling, without repeats; all of them for None or no names.

    Raises:
        UnknownNameError: a name that is no label of the cohort, with the nearest ones.
    """
    if not names:
        return cohort.labels
    chosen: dict[str, None] = {}
    for name in names:
        label = snake_case(name)
        if label not in cohort.labels:
            raise unknown_name("label", name, cohort.labels)
        chosen[label] = None
    return tuple(chosen)


def _feed(digest: Any, part: bytes | memoryview) -> None:
    digest.update(len(part).to_bytes(8, "little"))
    digest.update(part)


def _feed_texts(digest: Any, column: pd.Series) -> None:
    """Feed which cells are missing, where each text ends, and the texts in UTF-8."""
    import pyarrow as pa

    texts = pa.array(column.to_numpy(dtype=object), type=pa.large_string(), from_pandas=True)
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, dtype="<i8")[: len(texts) + 1]
    _feed(digest, column.isna().to_numpy().tobytes())
    _feed(digest, ends.tobytes())
    _feed(digest, b"" if data is None else memoryview(data)[: ends[-1]])
