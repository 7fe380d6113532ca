"""Which images get which role: no group and no content is both shown and used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.data_cards import DataCard
from medvlm_probe.cohort.images import FileImages
from medvlm_probe.errors import InputError, UnknownNameError
from medvlm_probe.tuning.roles import HELD_BACK, assign_roles


def cohort_of(splits: list[str | None], patients: list[str]) -> Cohort:
    names = tuple(f"{row}.png" for row in range(len(splits)))
    table = pd.DataFrame({"image": names, "patient": patients, "edema": np.float32(0)})
    if any(splits):
        table["split"] = splits
    return Cohort("c", table, ("edema",), "ignore", FileImages(Path(), names), DataCard(name="c"))


def plain(n: int = 12) -> Cohort:
    return cohort_of((["train"] * 6 + ["val"] * 3 + ["test"] * 3)[:n], [f"p{row}" for row in range(n)])


def test_roles_follow_the_names() -> None:
    roles = assign_roles(plain(), train_from="train", threshold_from="val", split="test")
    assert roles.train.tolist() == [True] * 6 + [False] * 6
    assert roles.thresholds.tolist() == [False] * 6 + [True] * 3 + [False] * 3
    assert roles.shown.tolist() == [False] * 9 + [True] * 3
    assert not roles.validation.any()
    assert roles.used.all()
    assert roles.to_json()["n_train"] == 6
    assert roles.to_json()["validation_from"] is None


def test_without_a_split_everything_else_is_shown() -> None:
    roles = assign_roles(plain(), train_from="train")
    assert roles.shown.tolist() == [False] * 6 + [True] * 6
    assert roles.threshold_from == ""


def test_patients_and_copies_that_are_shown_are_left_out_of_everything_else() -> None:
    patients = [f"p{row}" for row in range(12)]
    patients[0] = patients[11]
    keys = [f"k{row}" for row in range(12)]
    keys[7] = keys[10]
    roles = assign_roles(plain_with(patients), train_from="train", threshold_from="val", split="test", keys=keys)
    assert roles.train.tolist() == [False] + [True] * 5 + [False] * 6
    assert np.flatnonzero(roles.thresholds).tolist() == [6, 8]
    assert np.flatnonzero(roles.shown).tolist() == [9, 10, 11]
    assert roles.n_left_out == 2
    assert "2 images of train and val were left out" in roles.notes[0]


def plain_with(patients: list[str]) -> Cohort:
    return cohort_of(["train"] * 6 + ["val"] * 3 + ["test"] * 3, patients)


def test_what_stops_is_held_back_by_patient_where_no_split_is_named() -> None:
    patients = [f"p{row // 2}" for row in range(80)]
    cohort = cohort_of(["train"] * 80 + ["test"] * 4, patients + [f"t{row}" for row in range(4)])
    roles = assign_roles(cohort, train_from="train", stops=True, seed=3)
    assert not (roles.train & roles.validation).any()
    assert roles.validation.sum() == 2 * round(HELD_BACK * 40)
    groups = cohort.groups()
    assert not set(groups[roles.train]) & set(groups[roles.validation])
    assert (roles.train | roles.validation).sum() == 80
    again = assign_roles(cohort, train_from="train", stops=True, seed=3)
    assert (again.validation == roles.validation).all()
    assert "held back" in roles.notes[0]


def test_roles_of_some_images() -> None:
    roles = assign_roles(plain(), train_from="train", split="test").select(np.array([11, 0]))
    assert (roles.train.tolist(), roles.shown.tolist()) == ([False, True], [True, False])


@given(st.integers(0, 500))
@settings(max_examples=30, deadline=None)
def test_no_group_and_no_content_is_shown_and_used(seed: int) -> None:
    rng = np.random.default_rng(seed)
    splits = rng.choice(["train", "val", "test", "other"], size=60).tolist()
    cohort = cohort_of(splits, [f"p{k}" for k in rng.integers(0, 300, size=60)])
    keys = [f"k{k}" for k in rng.integers(0, 300, size=60)]
    names = {"train_from": "train", "threshold_from": "val", "split": "test", "validation_from": "val"}
    roles = assign_roles(cohort, **names, stops=True, keys=keys)
    groups, used = cohort.groups(), roles.train | roles.validation | roles.thresholds
    assert not set(groups[used]) & set(groups[roles.shown])
    assert not {keys[k] for k in np.flatnonzero(used)} & {keys[k] for k in np.flatnonzero(roles.shown)}
    assert not set(groups[roles.train]) & set(groups[roles.validation])


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"train_from": None}, "--train-from; nothing is chosen for you. It has test, train, val"),
        ({"train_from": "train", "split": "train"}, "both shown and used"),
        ({"train_from": "train", "split": "val", "threshold_from": "val"}, "both shown and used"),
        ({"train_from": "train", "validation_from": "train"}, "cannot train and decide"),
    ],
)
def test_wrong_names_are_told(names: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        assign_roles(plain(), **names)


def test_splits_that_do_not_exist_are_told() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean train"):
        assign_roles(plain(), train_from="trian")
    bare = cohort_of([None] * 4, list("abcd"))
    with pytest.raises(InputError, match="cohort split"):
        assign_roles(bare, train_from=None)
    with pytest.raises(InputError, match="has no splits"):
        assign_roles(bare, train_from="train")
    with pytest.raises(InputError, match="No images are left to show"):
        assign_roles(cohort_of(["train"] * 4, list("abcd")), train_from="train")
