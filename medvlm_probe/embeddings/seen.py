"""Whether a model has seen a cohort's images in training, as far as both declare where their images come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from medvlm_probe.cohort.phantom_source import PhantomImages
from medvlm_probe.cohort.splits import GIVEN_SPLIT
from medvlm_probe.embeddings.same_data import ALIASES, PART_OF, canonical_name
from medvlm_probe.errors import InputError

if TYPE_CHECKING:
    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.models.training_data import TrainingData

Status = Literal[
    "seen in training", "may be seen in training", "same source", "none declared here", "training data not declared"
]


class _Level(IntEnum):
    OTHER, SAME_SOURCE, POSSIBLE, SEEN = range(4)


_STATUS: dict[_Level, Status] = {
    _Level.SEEN: "seen in training",
    _Level.POSSIBLE: "may be seen in training",
    _Level.SAME_SOURCE: "same source",
    _Level.OTHER: "none declared here",
}


@dataclass(frozen=True)
class SeenInTraining:
    """What a model's declared training data and a cohort have in common.

    Attributes:
        status: `seen in training` where any image is; else `may be seen in training` where the declaration cannot tell;
            else `same source`: other images of a data set (and site, where sites are declared) that was trained on;
            else `none declared here`; `training data not declared` where the model says nothing.
        n_images: images looked at; each counts once, under the first of these that holds for it:
        n_seen: declared training images, by content or by data set and split.
        n_possible: images of a declared data set whose part in training cannot be told.
        n_same_source: other images of a declared source.
        declared: the data sets that the model declares.
        reason: all of this in one sentence.
    """

    status: Status
    n_images: int
    n_seen: int
    n_possible: int
    n_same_source: int
    declared: tuple[str, ...]
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields that JSON files carry."""
        return {
            "status": self.status,
            "n_images": self.n_images,
            "n_seen": self.n_seen,
            "n_possible": self.n_possible,
            "n_same_source": self.n_same_source,
            "declared": list(self.declared),
            "reason": self.reason,
        }


@dataclass(frozen=True)
class _Origin:
    """Where images come from: a data set, the part of it ("" not known), and whether parts can be compared by name."""

    dataset: str
    part: str
    comparable: bool


def seen_in_training(
    cohort: Cohort, model: str, trained_on: Sequence[TrainingData], keys: Sequence[str] | None = None
) -> SeenInTraining:
    """Hold a cohort against what a model declares.

    An image is of a data set when the cohort's data card is named so or says so (`same_as`), or when its site is (see
    `same_data.ALIASES`). Only a card speaks of the data set's own splits: a site's name alone tells the source and not
    the part, and neither does a split made here. Where a declaration lists its images by content, the list decides, and
    it finds copies whatever the cohort is called; it does not find re-encoded ones.

    Args:
        cohort: the images.
        model: what the sentence calls the model.
        trained_on: what the model declares; empty: nothing.
        keys: the images' content keys (n,), needed where a declaration lists its images.

    Raises:
        InputError: an image list without keys, or keys that do not fit.
        ModelError: an image list that cannot be read.
    """
    n = len(cohort)
    if not trained_on:
        reason = f"Training data not declared by {model}: nobody can tell here whether it has seen these images."
        return SeenInTraining("training data not declared", n, 0, 0, 0, (), reason)
    frame = pd.DataFrame({"site": cohort.sites(), "part": _parts(cohort)})
    codes = frame.groupby(["site", "part"], sort=True).ngroup().to_numpy()
    kinds = frame.assign(code=codes).drop_duplicates("code").set_index("code").sort_index()
    levels = np.zeros(n, dtype=np.int64)
    reasons: dict[_Level, list[str]] = {level: [] for level in _Level}
    for entry in trained_on:
        found = np.array([_level(entry, _origins(cohort, *kind), kind[0]) for kind in kinds.itertuples(index=False)])
        of_rows = found[codes] if n else levels
        if entry.images is not None:
            listed = _listed(entry, keys, n)
            of_rows = np.where(listed, _Level.SEEN, np.where(of_rows == _Level.POSSIBLE, _Level.SAME_SOURCE, of_rows))
        for level in set(of_rows.tolist()):
            reasons[_Level(level)].append(_entry_words(entry))
        levels = np.maximum(levels, of_rows)
    top = _Level(int(levels.max(initial=0)))
    counts = {level: int((levels == level).sum()) for level in _Level}
    return SeenInTraining(
        status=_STATUS[top],
        n_images=n,
        n_seen=counts[_Level.SEEN],
        n_possible=counts[_Level.POSSIBLE],
        n_same_source=counts[_Level.SAME_SOURCE],
        declared=tuple(entry.dataset for entry in trained_on),
        reason=_sentence(top, counts, n, model, reasons[top]),
    )


def _parts(cohort: Cohort) -> list[str]:
    """Return the part of its data set that each image comes from, before any split made here; "" where not known."""
    if isinstance(cohort.source, PhantomImages):
        return [f"{case.prevalence}, seed {case.seed}" for case in cohort.source.cases]
    if GIVEN_SPLIT in cohort.table:
        return cohort.table[GIVEN_SPLIT].fillna("").astype(str).tolist()
    return [str(split) for split in cohort.splits()]


def _origins(cohort: Cohort, site: str, part: str) -> list[_Origin]:
    drawn, own = isinstance(cohort.source, PhantomImages), canonical_name(cohort.card.name)
    named = [name.partition("/") for name in cohort.card.same_as]
    if own not in {canonical_name(name) for name, _, _ in named}:
        named.append((own, "", ""))
    origins = []
    for name, _, own_part in named:
        dataset = canonical_name(name)
        # The splits of phantoms as files are halves of a cohort; what was drawn is told by the seed alone.
        known_part = part if drawn or dataset != "phantom" else ""
        # A published data set that copies another one has splits of its own.
        comparable = bool(own_part) or own == dataset or own not in ALIASES
        origins.append(_Origin(dataset, own_part or known_part, comparable))
    return [*origins, _Origin(canonical_name(site), "", comparable=False)] if site else origins


def _level(entry: TrainingData, origins: Sequence[_Origin], site: str) -> _Level:
    """Return the highest level over the origins; one that speaks of the entry's own splits silences vaguer ones."""
    exact = [origin for origin in origins if origin.comparable and origin.dataset == canonical_name(entry.dataset)]
    return max(_level_of(entry, origin, site) for origin in exact or origins)


def _level_of(entry: TrainingData, origin: _Origin, site: str) -> _Level:
    dataset = canonical_name(entry.dataset)
    if origin.dataset != dataset:
        if PART_OF.get(origin.dataset) == dataset:
            return _Level.SEEN if not entry.splits and not entry.sites else _Level.POSSIBLE
        return _Level.POSSIBLE if PART_OF.get(dataset) == origin.dataset else _Level.OTHER
    sites = {canonical_name(name) for name in entry.sites}
    if sites and site and not sites & {canonical_name(site)}:
        return _Level.OTHER
    if sites and not site:
        return _Level.POSSIBLE
    if not entry.splits:
        return _Level.SEEN
    if not origin.comparable or not origin.part:
        return _Level.POSSIBLE
    return _Level.SEEN if origin.part in entry.splits else _Level.SAME_SOURCE


def _listed(entry: TrainingData, keys: Sequence[str] | None, n: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    if keys is None or len(keys) != n:
        raise InputError(f"The training images of '{entry.dataset}' are listed by content; give {n:,} content keys.")
    known = entry.image_keys()
    return np.array([key in known for key in keys], dtype=np.bool_)


def _entry_words(entry: TrainingData) -> str:
    details = ", ".join([*entry.sites, *entry.splits])
    return f"{entry.dataset} ({details})" if details else entry.dataset


def _sentence(level: _Level, counts: dict[_Level, int], n: int, model: str, what: Sequence[str]) -> str:
    listed = "; ".join(dict.fromkeys(what))
    of = f"{counts[level]:,} of {n:,} images"
    if level is _Level.SEEN:
        return f"Seen in training: {model} was trained on {of}, as it declares for {listed}."
    if level is _Level.POSSIBLE:
        return (
            f"May be seen in training: {model} was trained on a part of {listed}, and {of} are of that source; "
            "nothing tells which part they are of."
        )
    if level is _Level.SAME_SOURCE:
        return (
            f"Same source: {of} are of a source that {model} was trained on, {listed}; none of them is declared as a "
            "training image."
        )
    return f"None declared here: {model} declares {listed} as its training data, and no image of this cohort is of it."
