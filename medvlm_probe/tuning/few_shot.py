"""Few-shot sets: so many images of each class, drawn from a split by sorted path and seed, each of another patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.runs import sha256_json

if TYPE_CHECKING:
    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.types import BoolArray, FloatArray

FORMAT = "medvlm-probe few-shot set/v1"


@dataclass(frozen=True, eq=False)
class Problem:
    """The images of one problem of classification.

    Attributes:
        classes: its classes by name: the labels, or `absent` and `present` of one of several labels.
        label: of several labels the one that it is about; "" where exactly one label is right.
        rows: (n,) int64, rows of the cohort, ascending.
        truth: (n,) int64, the number of each image's class.
        n_labelled: images with a known class that could have been drawn.
    """

    classes: tuple[str, ...]
    label: str
    rows: NDArray[np.int64]
    truth: NDArray[np.int64]
    n_labelled: int

    def count(self, number: int) -> int:
        """Return how many images of a class were drawn."""
        return int((self.truth == number).sum())


@dataclass(frozen=True, eq=False)
class FewShotSet:
    """What one seed draws: a problem for a single-label cohort, one for each of several labels.

    Of several labels each is a problem of its own: an image that was drawn for one teaches nothing about the others,
    so every label is balanced, and its images do not depend on which other labels are tuned beside it.

    Attributes:
        train: to learn from.
        validation: to choose an epoch by, of other patients; problems without images where none were asked for.
        labels: of the task, in its order.
        shots, validation_shots: images asked for of each class.
        seed: of the draw.
    """

    train: tuple[Problem, ...]
    validation: tuple[Problem, ...]
    labels: tuple[str, ...]
    shots: int
    validation_shots: int
    seed: int

    @property
    def n_labels_used(self) -> int:
        """How many known labels learning and choosing rest on."""
        return sum(len(problem.rows) for problem in (*self.train, *self.validation))

    @property
    def rows(self) -> NDArray[np.int64]:
        """The images that have a part in it, ascending, each once."""
        return np.unique(np.concatenate([problem.rows for problem in (*self.train, *self.validation)]))

    @property
    def short(self) -> dict[str, int]:
        """The classes with fewer training images than asked for, and how many they have."""
        found = {}
        for problem in self.train:
            for number, name in enumerate(problem.classes):
                if problem.count(number) < self.shots:
                    found[f"{problem.label} {name}".strip()] = problem.count(number)
        return found

    def moved(self, places: NDArray[np.int64]) -> FewShotSet:
        """Return the same images in another cohort, `places` holding the new row of each old one."""

        def of(problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
            return tuple(replace(problem, rows=places[problem.rows]) for problem in problems)

        return replace(self, train=of(self.train), validation=of(self.validation))

    def to_json(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return the set as a file holds it, the images by the content keys of the cohort's rows."""

        def listed(problems: Sequence[Problem]) -> list[dict[str, Any]]:
            return [
                {
                    "label": problem.label or None,
                    "classes": list(problem.classes),
                    "images": [
                        {"sha256": keys[row], "class": problem.classes[number]}
                        for row, number in zip(problem.rows.tolist(), problem.truth.tolist(), strict=True)
                    ],
                }
                for problem in problems
            ]

        return {
            "format": FORMAT,
            "seed": self.seed,
            "shots": self.shots,
            "validation_shots": self.validation_shots,
            "labels": list(self.labels),
            "train": listed(self.train),
            "validation": listed(self.validation),
        }

    def fingerprint(self, keys: Sequence[str]) -> str:
        """Return the sha256 over the images' contents and classes."""
        return sha256_json(self.to_json(keys))


def draw_few_shot(
    cohort: Cohort,
    pool: BoolArray,
    labels: Sequence[str],
    *,
    shots: int,
    seed: int,
    validation_shots: int = 0,
) -> FewShotSet:
    """Return a few-shot set of a cohort, the same on every machine: images are sorted by path before the draw.

    Within a problem every image is of another group (patient), and validation uses none of training's groups. A class
    that has fewer groups than asked for gives what it has, training first.

    Args:
        cohort: a card of `single_label` makes one problem of all labels; else each label is one.
        pool: which images may be drawn, (n,).
        labels: at least two for a single-label cohort, else at least one.
        shots: images of each class to train on, at least 1.
        seed: of the draw.
        validation_shots: images of each class to choose an epoch by; 0 for none.

    Raises:
        InputError: numbers out of range, a class without any image in the pool, or a single-label image with no class
            or several.
    """
    if shots < 1 or validation_shots < 0:
        raise InputError(f"{shots} shots and {validation_shots} for validation: expected at least 1, and at least 0.")
    names, targets = tuple(labels), cohort.targets(labels)
    paths, groups = cohort.table["image"].to_numpy(dtype=str), cohort.groups()
    order = np.flatnonzero(pool)
    order = order[np.argsort(paths[order], kind="stable")]
    train, validation = [], []
    for label, classes, truth in _problems(cohort, names, targets, pool):
        drawn = _draw(order, groups, truth, len(classes), (shots, validation_shots), _seeds(seed, label))
        n_labelled = int((truth[order] >= 0).sum())
        for number, name in enumerate(classes):
            if not (truth[drawn[0]] == number).any():
                what = f"'{label}' {name}" if label else f"class '{name}'"
                raise InputError(f"No image to train on has {what}. Leave the label out, or name another split.")
        train.append(Problem(classes, label, drawn[0], truth[drawn[0]], n_labelled))
        validation.append(Problem(classes, label, drawn[1], truth[drawn[1]], n_labelled))
    return FewShotSet(tuple(train), tuple(validation), names, shots, validation_shots, seed)


def _problems(
    cohort: Cohort, labels: tuple[str, ...], targets: FloatArray, pool: BoolArray
) -> list[tuple[str, tuple[str, ...], NDArray[np.int64]]]:
    """Return each problem's label, its classes, and each image's class, (n,), -1 where it is not known."""
    if cohort.card.task == "single_label":
        if len(labels) < 2:
            raise InputError(f"'{cohort.name}' has one right label an image; name two labels or more.")
        present = targets == 1
        one = present.sum(axis=1) == 1
        if (present.sum(axis=1) > 1)[pool].any():
            raise InputError(f"'{cohort.name}' has images with several labels, but its card says single_label.")
        return [("", labels, np.where(one, present.argmax(axis=1), -1).astype(np.int64))]
    known = np.where(np.isnan(targets), -1, targets).astype(np.int64)
    return [(label, ("absent", "present"), known[:, k]) for k, label in enumerate(labels)]


def _seeds(seed: int, label: str) -> list[int]:
    return [seed, int.from_bytes(sha256(label.encode()).digest()[:4], "little")]


def _draw(
    order: NDArray[np.int64],
    groups: NDArray[np.int64],
    truth: NDArray[np.int64],
    n_classes: int,
    wanted: tuple[int, int],
    seeds: list[int],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of training and validation, each ascending; no group is drawn twice."""
    used: set[int] = set()
    parts: tuple[list[int], list[int]] = ([], [])
    pools = [order[truth[order] == number] for number in range(n_classes)]
    # The class with the fewest groups draws first: patients of several classes must not be spent on the others.
    scarce_first = sorted(range(n_classes), key=lambda number: (len(np.unique(groups[pools[number]])), number))
    for part, n_wanted in zip(parts, wanted, strict=True):
        for number in scarce_first:
            rng = np.random.default_rng([*seeds, number])
            taken = 0
            for row in rng.permutation(pools[number]).tolist():
                if taken < n_wanted and int(groups[row]) not in used:
                    used.add(int(groups[row]))
                    part.append(row)
                    taken += 1
    return np.array(sorted(parts[0]), dtype=np.int64), np.array(sorted(parts[1]), dtype=np.int64)
