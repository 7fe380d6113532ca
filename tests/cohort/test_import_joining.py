"""Cohorts joined as sites: ids, sites, labels, policies and columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.data_cards import DataCard
from medvlm_probe.cohort.images import FileImages
from medvlm_probe.cohort.joining import join_cohorts
from medvlm_probe.errors import InputError


def cohort(name: str, rows: dict[str, list[Any]], of: tuple[str, ...] = (), **card: Any) -> Cohort:
    n = len(next(iter(rows.values()))) if rows else 2
    table = pd.DataFrame({"image": [f"{name}{i}.png" for i in range(n)], **rows})
    for label in of:
        table[label] = table[label].astype(np.float32)
    source = FileImages(Path(), tuple(table["image"]))
    policy = card.pop("uncertainty", "ignore")
    return Cohort(name, table, of, policy, source, DataCard(name=name, uncertainty=policy, **card))


def test_one_cohort_passes_through() -> None:
    one = cohort("a", {"patient": ["1", None], "edema": [1, -1], "note": ["x", None]}, ("edema",))
    joined = join_cohorts([one])
    pd.testing.assert_frame_equal(joined.table, one.table, check_dtype=False)
    assert joined.notes == ()
    assert joined.words == {"edema": "Edema"}
    assert join_cohorts([one], sites=["north"]).table["site"].tolist() == ["north", "north"]


def test_sites() -> None:
    a = cohort("a", {"patient": ["1", "2"]})
    b = cohort("b", {"site": ["x", None]})
    assert join_cohorts([a, b]).table["site"].fillna("").tolist() == ["a", "a", "x", ""]
    assert join_cohorts([a, b], sites=["north", "-"]).table["site"].fillna("").tolist() == ["north", "north", "x", ""]
    assert join_cohorts([a, b], sites=["-", "south"]).table["site"].tolist() == ["a", "a", "south", "south"]
    with pytest.raises(InputError, match="1 sites were named for 2 cohorts"):
        join_cohorts([a, b], sites=["north"])
    with pytest.raises(InputError, match="both called 'a'"):
        join_cohorts([a, cohort("a", {"patient": ["9", "8"]})])


def test_ids_of_different_sites_are_told_apart_and_those_of_one_site_are_not() -> None:
    a = cohort("a", {"patient": ["1", "2", None], "study": ["s", None, "t"]})
    b = cohort("b", {"patient": ["1", "3"], "study": ["u", "s"]})
    joined = join_cohorts([a, b])
    assert joined.table["patient"].fillna("").tolist() == ["a-1", "2", "", "b-1", "3"]
    assert joined.table["study"].fillna("").tolist() == ["a-s", "", "t", "u", "b-s"]
    assert any("1 patient id occurred at different sites" in note for note in joined.notes)
    same = join_cohorts([a, b], sites=["x", "x"])
    assert same.table["patient"].fillna("").tolist() == ["1", "2", "", "1", "3"]
    assert any("1 patient in several cohorts at the same site" in note for note in same.notes)


def test_a_patient_of_two_sites_within_a_cohort_stays_one() -> None:
    a = cohort("a", {"patient": ["1", "1"], "site": ["x", "y"]})
    b = cohort("b", {"patient": ["1"]})
    assert join_cohorts([a, b]).table["patient"].tolist() == ["a-1", "a-1", "b-1"]
    taken = cohort("b", {"patient": ["1", "a-1"]})
    with pytest.raises(InputError, match="Cannot tell patient ids"):
        join_cohorts([a, taken])


def test_labels_are_the_union_and_what_a_source_lacks_is_unknown() -> None:
    a = cohort("a", {"mass": [1, 0], "edema": [1, -1]}, ("mass", "edema"), labels={"edema": "Oedema", "mass": "Mass"})
    b = cohort("b", {"no_finding": [0, 1], "edema": [0, np.nan]}, ("no_finding", "edema"), labels={"edema": "Edema!"})
    joined = join_cohorts([a, b])
    assert joined.labels == ("no_finding", "edema", "mass")
    assert joined.words == {"no_finding": "No finding", "edema": "Oedema", "mass": "Mass"}
    expected = [[np.nan, 1, 1], [np.nan, -1, 0], [0, 0, np.nan], [1, np.nan, np.nan]]
    np.testing.assert_array_equal(joined.table[list(joined.labels)].to_numpy(), expected)
    assert "b has no labels for mass: unknown there, not absent." in joined.notes
    none = join_cohorts([a, cohort("c", {"patient": ["7", "8"]})])
    assert "c has no labels: unknown there, not absent." in none.notes


def test_policies_that_differ_are_refused_unless_one_is_chosen() -> None:
    a, b = (
        cohort(name, {"edema": [1]}, ("edema",), uncertainty=policy)
        for name, policy in zip("ab", ("ones", "zeros"), strict=True)
    )
    with pytest.raises(InputError, match="a ones, b zeros"):
        join_cohorts([a, b])
    assert join_cohorts([a, b], uncertainty="ignore").uncertainty == "ignore"
    assert join_cohorts([a, a], sites=["x", "y"]).uncertainty == "ones"


def test_extra_columns_are_kept_where_they_exist() -> None:
    a = cohort("a", {"scanner": ["p", "q"], "mass": [1, 0]}, ("mass",))
    b = cohort("b", {"mass": ["large", None], "age": [30.0, np.nan]})
    joined = join_cohorts([a, b])
    assert joined.table["scanner"].fillna("").tolist() == ["p", "q", "", ""]
    assert joined.table["b_mass"].fillna("").tolist() == ["", "", "large", ""]
    assert joined.table["mass"].fillna(-9).tolist() == [1, 0, -9, -9]
    assert joined.table["age"].fillna(-9).tolist() == [-9, -9, 30, -9]
    assert any("kept as 'b_mass'" in note for note in joined.notes)


def test_a_patient_in_two_splits_is_said() -> None:
    a = cohort("a", {"patient": ["1", "2"], "split": ["train", "train"]})
    b = cohort("b", {"patient": ["1", "3"], "split": ["test", "test"]})
    assert not any("leak" in note for note in join_cohorts([a, b]).notes)
    joined = join_cohorts([a, b], sites=["x", "x"])
    assert any(note.startswith("1 patient in more than one split") for note in joined.notes)


ids = st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(first=ids, second=ids, third=ids)
def test_joining_neither_merges_nor_splits_people(
    first: list[str | None], second: list[str | None], third: list[str | None]
) -> None:
    given_ids = [first, second, third]
    parts = [cohort(name, {"patient": patients}) for name, patients in zip("abc", given_ids, strict=True)]
    joined = join_cohorts(parts).table
    # Three cohorts without sites are three sites, so the truth is one person per cohort and id.
    truth = [(name, patient) for name, patients in zip("abc", given_ids, strict=True) for patient in patients]
    ours = joined["patient"].where(joined["patient"].notna(), None).tolist()
    assert [patient is None for patient in ours] == [patient is None for _, patient in truth]
    pairs = {(true, got) for true, got in zip(truth, ours, strict=True) if got is not None}
    assert len(pairs) == len({true for true, _ in pairs}) == len({got for _, got in pairs})
