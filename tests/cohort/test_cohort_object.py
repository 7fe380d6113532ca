"""The Cohort: targets, groups, selection, labels and its fingerprint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvlm_probe.cohort.cohort import Cohort, resolve_labels
from medvlm_probe.cohort.data_cards import DataCard
from medvlm_probe.cohort.images import FileImages
from medvlm_probe.errors import InputError, UnknownNameError


def cohort_of(columns: dict[str, list[object]], labels: tuple[str, ...] = (), root: str = ".") -> Cohort:
    table = pd.DataFrame(columns)
    for label in labels:
        table[label] = table[label].astype("float32")
    source = FileImages(Path(root), tuple(table["image"]))
    return Cohort("test", table, labels, "ignore", source, DataCard(name="test"))


@pytest.fixture
def cohort() -> Cohort:
    return cohort_of(
        {
            "image": ["a", "b", "c", "d", "e"],
            "patient": ["p1", None, "p1", None, None],
            "study": ["s1", "s2", "s9", "s2", None],
            "site": ["x", "x", None, "y", "y"],
            "split": ["train", "test", "test", "test", None],
            "edema": [1, 0, -1, np.nan, 1],
            "pleural_effusion": [0, 1, 1, -1, 0],
            "note": ["n", None, "n", "n", "n"],
        },
        ("edema", "pleural_effusion"),
    )


def test_targets_follow_the_policy(cohort: Cohort) -> None:
    np.testing.assert_array_equal(cohort.targets(["edema"])[:, 0], np.float32([1, 0, np.nan, np.nan, 1]))
    ones = replace(cohort, uncertainty="ones")
    np.testing.assert_array_equal(ones.targets()[:, 1], np.float32([0, 1, 1, 1, 0]))
    assert cohort.targets().shape == (5, 2)
    assert cohort.targets().dtype == np.float32


def test_groups_fall_back_row_by_row(cohort: Cohort) -> None:
    assert cohort.group_kind == "patient"
    assert cohort.groups().tolist() == [0, 1, 0, 1, 2]


def test_group_kind_is_the_coarsest_that_is_filled() -> None:
    assert cohort_of({"image": ["a", "b"], "patient": [None, None], "study": ["s", "s"]}).group_kind == "study"
    plain = cohort_of({"image": ["a", "b"]})
    assert plain.group_kind == "image"
    assert plain.groups().tolist() == [0, 1]


def test_ids_of_different_kinds_never_meet() -> None:
    mixed = cohort_of({"image": ["a", "b", "c"], "patient": ["1", None, None], "study": ["9", "1", None]})
    assert mixed.groups().tolist() == [0, 1, 2]


ids = st.lists(st.sampled_from([None, "1", "2", "007", "7"]), min_size=1, max_size=12)


@settings(max_examples=100, deadline=None)
@given(st.data(), ids)
def test_groups_against_a_plain_loop(data: st.DataObject, patients: list[str | None]) -> None:
    n = len(patients)
    studies = data.draw(st.lists(st.sampled_from([None, "1", "2"]), min_size=n, max_size=n))
    groups = cohort_of({"image": [f"i{i}" for i in range(n)], "patient": patients, "study": studies}).groups()
    keys = [(0, p) if p else (1, s) if s else (2, i) for i, (p, s) in enumerate(zip(patients, studies, strict=True))]
    expected = {key: code for code, key in enumerate(dict.fromkeys(keys))}
    assert groups.tolist() == [expected[key] for key in keys]


def test_sites_and_extra_columns(cohort: Cohort) -> None:
    assert cohort.sites().tolist() == ["x", "x", "", "y", "y"]
    assert cohort.extra == ("note",)
    assert cohort.absent == ("view", "age", "sex", "report")
    assert cohort_of({"image": ["a"]}).sites().tolist() == [""]


def test_select_by_mask_and_by_number(cohort: Cohort) -> None:
    part = cohort.select(cohort.sites() == "y")
    assert part.table["image"].tolist() == ["d", "e"]
    assert part.source.paths == ("d", "e")  # type: ignore[attr-defined]
    assert list(part.table.index) == [0, 1]
    assert cohort.select([4, 0]).table["image"].tolist() == ["e", "a"]
    assert len(cohort.select([])) == 0
    for wrong in ([5], [-1], [1, 1], np.array([True])):
        with pytest.raises(InputError):
            cohort.select(wrong)


def test_select_split(cohort: Cohort) -> None:
    assert len(cohort.select_split("test")) == 3
    with pytest.raises(UnknownNameError, match="Did you mean test"):
        cohort.select_split("tset")
    with pytest.raises(InputError, match="has no splits"):
        cohort_of({"image": ["a"]}).select_split("test")


def test_resolve_labels(cohort: Cohort) -> None:
    assert resolve_labels(cohort, None) == ("edema", "pleural_effusion")
    assert resolve_labels(cohort, ["Pleural Effusion", "edema", "EDEMA"]) == ("pleural_effusion", "edema")
    with pytest.raises(UnknownNameError, match="Did you mean pleural_effusion"):
        resolve_labels(cohort, ["pleural_effussion"])


def test_the_fingerprint_changes_with_every_part_and_with_nothing_else(cohort: Cohort) -> None:
    again = replace(cohort, table=cohort.table.copy())
    assert again.fingerprint == cohort.fingerprint
    changed = {"original": cohort.fingerprint, "policy": replace(cohort, uncertainty="ones").fingerprint}
    for column in cohort.table.columns:
        table = cohort.table.copy()
        table[column] = table[column].iloc[::-1].to_numpy()
        changed[str(column)] = replace(cohort, table=table).fingerprint
    table = cohort.table.copy()
    table.loc[1, "note"] = ""
    changed["empty is not missing"] = replace(cohort, table=table).fingerprint
    shifted = cohort.table.assign(patient=["p1s", None, "p1", None, None], study=["1", "s2", "s9", "s2", None])
    changed["cell borders"] = replace(cohort, table=shifted).fingerprint
    changed["labels"] = replace(cohort, labels=("edema",)).fingerprint
    assert len(set(changed.values())) == len(changed)
    assert cohort.select([0, 1, 2]).fingerprint != cohort.fingerprint


def test_rows_must_fit_images(cohort: Cohort) -> None:
    with pytest.raises(InputError, match="do not fit"):
        replace(cohort, table=cohort.table.iloc[:2])
