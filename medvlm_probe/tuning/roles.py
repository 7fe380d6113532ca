"""Which images train, which decide when to stop, which thresholds are chosen on, and which results are shown for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError, unknown_name
from medvlm_probe.types import BoolArray, IntArray

if TYPE_CHECKING:
    from medvlm_probe.cohort.cohort import Cohort

HELD_BACK = 0.15
"""Share of the training groups that decide when to stop, where no split is named for it; the published study's."""


@dataclass(frozen=True, eq=False)
class Roles:
    """Masks over a cohort's images, (n,). No group and no content is shown and used otherwise.

    Attributes:
        train: fitted on.
        validation: decide when to stop; never fitted on. Empty where nothing has to be stopped.
        thresholds: thresholds are chosen on them; empty where none are.
        shown: results are for them.
        train_from, validation_from, threshold_from: the splits' names; `validation_from` is the training split's where
            groups were held back from it, and "" where there is no such part.
        n_left_out: images of those splits that were left out, because their group or content is shown.
        notes: sentences for people.
    """

    train: BoolArray
    validation: BoolArray
    thresholds: BoolArray
    shown: BoolArray
    train_from: str
    validation_from: str
    threshold_from: str
    n_left_out: int
    notes: tuple[str, ...]

    @property
    def used(self) -> BoolArray:
        """The images that have any role."""
        return self.train | self.validation | self.thresholds | self.shown

    def select(self, rows: IntArray) -> Roles:
        """Return the roles of some images, by their numbers."""
        parts = {name: getattr(self, name)[rows] for name in ("train", "validation", "thresholds", "shown")}
        return replace(self, **parts)

    def to_json(self) -> dict[str, Any]:
        """Return names and counts."""
        return {
            "train_from": self.train_from,
            "validation_from": self.validation_from or None,
            "threshold_from": self.threshold_from or None,
            "n_train": int(self.train.sum()),
            "n_validation": int(self.validation.sum()),
            "n_thresholds": int(self.thresholds.sum()),
            "n_shown": int(self.shown.sum()),
            "n_left_out": self.n_left_out,
        }


def assign_roles(
    cohort: Cohort,
    *,
    train_from: str | None,
    threshold_from: str | None = None,
    split: str | None = None,
    validation_from: str | None = None,
    stops: bool = False,
    keys: Sequence[str] | None = None,
    seed: int = 0,
) -> Roles:
    """Return the roles of a cohort's images.

    Args:
        cohort: all images.
        train_from: the split to fit on.
        threshold_from: the split to choose thresholds on; None chooses none. It may be the training split, whose
            scores must then come from fits that had not seen the image, or the validation split.
        split: the split that results are shown for; None: all images of no split named here.
        validation_from: the split that decides when to stop.
        stops: whether anything has to be stopped. Without `validation_from` a seeded share of the training groups,
            `HELD_BACK`, is held back for it.
        keys: content keys of the images, (n,): copies of a shown image are used for nothing else.
        seed: of the groups held back.

    Raises:
        UnknownNameError: no such split.
        InputError: no split to train on is named, the shown split has another role, or a role has no images.
    """
    splits, groups = cohort.splits(), cohort.groups()
    known = sorted(set(splits.tolist()) - {""})
    if train_from is None:
        has = f"It has {', '.join(known)}." if known else "It has no splits; make some: medvlm-probe cohort split."
        raise InputError(f"Name the split to train on with --train-from; nothing is chosen for you. {has}")
    for name in filter(None, (train_from, threshold_from, split, validation_from)):
        if not known:
            raise InputError(f"Cohort '{cohort.name}' has no splits. Make some: medvlm-probe cohort split.")
        if name not in known:
            raise unknown_name("split", name, known)
    others = [name for name in (train_from, validation_from, threshold_from) if name]
    if split in others:
        raise InputError(f"Split '{split}' is both shown and used for fitting or choosing. Name different splits.")
    if validation_from == train_from:
        raise InputError(f"Split '{train_from}' cannot train and decide when to stop. Name another --validation-from.")
    shown = ~np.isin(splits, others) if split is None else splits == split
    reserved = np.isin(groups, groups[shown])
    if keys is not None:
        contents = np.unique(np.asarray(keys, dtype=str), return_inverse=True)[1]
        reserved |= np.isin(contents, contents[shown])
    free = ~reserved
    train = splits == train_from
    n_left_out = int((np.isin(splits, others) & reserved).sum())
    notes = []
    if n_left_out:
        listed = " and ".join(dict.fromkeys(others))
        notes.append(
            f"{n_left_out:,} images of {listed} were left out: their {cohort.group_kind} or content is among those "
            "shown."
        )
    train &= free
    validation = np.zeros_like(train)
    if validation_from is not None:
        validation = (splits == validation_from) & free & ~np.isin(groups, groups[train])
    elif stops:
        validation = train & _held_back(groups, train, seed)
        train &= ~validation
        notes.append(
            f"No --validation-from: {HELD_BACK:.0%} of the groups of '{train_from}' ({int(validation.sum()):,} images) "
            "are held back to decide when to stop."
        )
    thresholds = np.zeros_like(train) if threshold_from is None else (splits == threshold_from) & free
    roles = Roles(
        train=train,
        validation=validation,
        thresholds=thresholds,
        shown=shown,
        train_from=train_from,
        validation_from=validation_from or (train_from if stops else ""),
        threshold_from=threshold_from or "",
        n_left_out=n_left_out,
        notes=tuple(notes),
    )
    _refuse_empty(roles, stops=stops or validation_from is not None)
    return roles


def _held_back(groups: IntArray, train: BoolArray, seed: int) -> NDArray[np.bool_]:
    """Return which images are of a seeded share of the training groups, (n,); one group at least, of two."""
    of_training = np.unique(groups[train])
    order = np.random.default_rng(seed).permutation(of_training)
    n_held = max(1, round(HELD_BACK * len(order))) if len(order) > 1 else 0
    return np.isin(groups, order[:n_held])


def _refuse_empty(roles: Roles, *, stops: bool) -> None:
    wanted = {"to train on": roles.train, "to show results for": roles.shown}
    if stops:
        wanted["to decide when to stop"] = roles.validation
    if roles.threshold_from:
        wanted["to choose thresholds on"] = roles.thresholds
    empty = [what for what, rows in wanted.items() if not rows.any()]
    if empty:
        raise InputError(f"No images are left {' or '.join(empty)}. Check the splits: medvlm-probe cohort split.")
