"""Splits by group, stratified over labels and sites, and the files that keep them."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.data_cards import DataCard
from medvlm_probe.cohort.split_files import read_splits, splits_json, write_splits
from medvlm_probe.cohort.splits import GIVEN_SPLIT, make_splits, parse_shares, with_splits
from medvlm_probe.cohort.stratify import stratified_parts
from medvlm_probe.errors import ImageError, InputError, UnknownNameError
from medvlm_probe.runs import sha256_json

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}


@dataclass(frozen=True)
class NamedImages:
    """Images whose content is a name; "" cannot be read."""

    names: tuple[str, ...]
    recipe: str = "test/v1"
    settings: str = ""

    def __len__(self) -> int:
        return len(self.names)

    def content_key(self, row: int) -> str:
        import hashlib

        if not self.names[row]:
            raise ImageError("missing_file", "There is no such file.")
        return hashlib.sha256(self.names[row].encode()).hexdigest()

    def rows(self, index: list[int]) -> NamedImages:
        return replace(self, names=tuple(self.names[i] for i in index))


def cohort_of(table: pd.DataFrame, labels: tuple[str, ...]) -> Cohort:
    source = NamedImages(tuple(table["image"].where(~table["image"].str.startswith("missing"), "")))
    return Cohort("made", table, labels, "ignore", source, DataCard(name="made"))  # type: ignore[arg-type]


def random_cohort(n: int, seed: int, n_patients: int | None = None) -> Cohort:
    rng = np.random.default_rng(seed)
    prevalences = {"common": 0.4, "some": 0.1, "rare": 0.02}
    table = pd.DataFrame({"image": [f"{i}.png" for i in range(n)]})
    if n_patients:
        table["patient"] = [f"p{k}" for k in rng.integers(0, n_patients, n)]
    table["site"] = rng.choice(["north", "south"], n, p=[0.8, 0.2])
    for label, prevalence in prevalences.items():
        table[label] = np.where(rng.random(n) < 0.05, np.nan, rng.random(n) < prevalence).astype(np.float32)
    return cohort_of(table, tuple(prevalences))


def parts_of(cohort: Cohort, seed: int = 0, shares: dict[str, float] = SHARES) -> np.ndarray:
    assigned = make_splits(cohort, shares, seed).assigned
    return np.array([assigned[cohort.source.content_key(row)] for row in range(len(cohort))])


@settings(max_examples=40, deadline=None)
@given(n=st.integers(12, 150), seed=st.integers(0, 10**6), per_patient=st.sampled_from([None, 1, 3]))
def test_properties(n: int, seed: int, per_patient: int | None) -> None:
    cohort = random_cohort(n, seed, None if per_patient is None else max(4, n // per_patient))
    parts, groups = parts_of(cohort, seed), cohort.groups()
    # No group in two parts.
    assert (pd.Series(parts).groupby(groups).nunique() == 1).all()
    # The shares lie within one group of the wanted ones.
    largest = np.bincount(groups).max()
    for part, share in SHARES.items():
        assert abs((parts == part).sum() - share * n) <= largest
    # The order of the rows changes nothing.
    order = np.random.default_rng(seed).permutation(n)
    assert (parts_of(cohort.select(order), seed) == parts[order]).all()


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    shares=st.sampled_from([[0.5, 0.5], [0.7, 0.15, 0.15], [0.1, 0.2, 0.3, 0.4], [0.96, 0.02, 0.02]]),
)
def test_parts_lie_within_one_group_whatever_the_traits(data: st.DataObject, shares: list[float]) -> None:
    sizes = np.array(data.draw(st.lists(st.integers(1, 9), min_size=len(shares), max_size=60)), np.int64)
    traits = sizes[:, None] * np.array(
        data.draw(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=len(sizes), max_size=len(sizes)))
    )
    parts = stratified_parts(sizes, traits.astype(np.int64), np.array(shares))
    images = np.bincount(parts, weights=sizes, minlength=len(shares))
    assert np.abs(images - np.array(shares) * sizes.sum()).max() <= sizes.max()


@pytest.mark.parametrize("n_positive", [3, 4, 7])
def test_rare_labels_reach_every_part(n_positive: int) -> None:
    n = 300
    table = pd.DataFrame({"image": [f"{i}.png" for i in range(n)], "patient": [f"p{i // 2}" for i in range(n)]})
    for number, label in enumerate(("first", "second", "third")):
        positive = np.zeros(n, np.float32)
        positive[20 * number : 20 * number + 2 * n_positive : 2] = 1
        table[label] = positive
    cohort = cohort_of(table, ("first", "second", "third"))
    parts = parts_of(cohort)
    for label in cohort.labels:
        assert set(parts[table[label] == 1]) == set(SHARES)


def test_labels_that_always_come_together_reach_every_part() -> None:
    traits = np.zeros((200, 3), np.int64)
    traits[:5] = 1
    parts = stratified_parts(np.ones(200, np.int64), traits, np.array([0.8, 0.1, 0.1]))
    assert set(parts[:5].tolist()) == {0, 1, 2}


def test_labels_follow_the_shares_at_every_site() -> None:
    cohort = random_cohort(3000, 1, 1200)
    splits = make_splits(cohort, SHARES, 3)
    counts = splits.counts.assign(total=splits.counts.groupby("trait")["n_images"].transform("sum"))
    off = (counts["n_images"] - counts["wanted"] * counts["total"]).abs()
    # A group has up to eight images here; parts are off by less than that wherever they are counted.
    assert off.max() <= 8
    assert set(counts["trait"]) >= {"images", "common", "site: north", "rare at south"}
    again = make_splits(cohort, SHARES, 4)
    assert again.assigned != splits.assigned
    assert splits.counts["n_images"].sum() == again.counts["n_images"].sum()


def test_it_keeps_the_shares_closer_than_a_random_split_by_group() -> None:
    from sklearn.model_selection import GroupShuffleSplit

    cohort = random_cohort(2000, 2, 900)
    positive, groups = cohort.targets() == 1, cohort.groups()

    def deviation(train: np.ndarray) -> float:
        return float(np.abs(positive[train].sum(axis=0) / positive.sum(axis=0) - 0.7).mean())

    ours = [deviation(parts_of(cohort, seed) == "train") for seed in range(3)]
    theirs = []
    for seed in range(20):
        rows, _ = next(GroupShuffleSplit(1, train_size=0.7, random_state=seed).split(positive, groups=groups))
        theirs.append(deviation(np.isin(np.arange(len(cohort)), rows)))
    assert max(ours) < min(theirs)


def test_the_same_content_keeps_together() -> None:
    n = 60
    table = pd.DataFrame({"image": [f"{i}.png" for i in range(n)], "patient": [f"p{i}" for i in range(n)]})
    table.loc[[1, 2], "image"] = "0.png"
    cohort = cohort_of(table, ())
    splits = make_splits(cohort, SHARES)
    assert len(splits.assigned) == n - 2
    assert any("2 groups were joined" in note for note in splits.notes)


def test_what_cannot_be_met_is_said() -> None:
    table = pd.DataFrame({"image": [f"{i}.png" for i in range(40)] + ["missing.png"]})
    table["edema"] = np.array([1, 1] + [0] * 39, np.float32)
    splits = make_splits(cohort_of(table, ("edema",)), SHARES)
    notes = " ".join(splits.notes)
    assert "No patient or study is given" in notes
    assert "1 images cannot be read" in notes
    assert "edema: none of its 2 positive group(s) could be put into" in notes
    with pytest.raises(InputError, match="2 groups of images cannot be divided into 3 parts"):
        make_splits(cohort_of(table.iloc[:2].reset_index(drop=True), ()), SHARES)


def test_one_split_divided_alone() -> None:
    cohort = random_cohort(300, 5, 150)
    given_splits = np.where(cohort.groups() % 3 == 0, "test", "train")
    cohort = replace(cohort, table=cohort.table.assign(split=given_splits))
    assigned = make_splits(cohort, {"val": 0.5, "audit": 0.5}, within="test").assigned
    after = with_splits(cohort, assigned)
    assert (after.splits()[given_splits == "train"] == "train").all()
    assert set(after.splits()[given_splits == "test"]) == {"val", "audit"}
    with pytest.raises(InputError, match="'train' is a split of the cohort's other images already"):
        make_splits(cohort, {"train": 0.5, "val": 0.5}, within="test")
    with pytest.raises(UnknownNameError, match="Did you mean test"):
        make_splits(cohort, SHARES, within="tset")


@pytest.mark.parametrize("text", ["", "train", "train=1", "train=.5,train=.5", "a=.5,b=.6", "a=.5,b=x", "a b=.5,c=.5"])
def test_shares_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="Parts"):
        parse_shares(text)


def test_shares_are_read() -> None:
    assert parse_shares("train=.7, val=0.15,test=15e-2") == pytest.approx(SHARES)


def test_a_file_is_read_back(tmp_path: Path) -> None:
    cohort = random_cohort(80, 7, 40)
    splits = make_splits(cohort, SHARES, 9)
    digest = write_splits(tmp_path / "s.json", splits)
    assert read_splits(tmp_path / "s.json") == dict(splits.assigned)
    content = json.loads((tmp_path / "s.json").read_text())
    assert content == json.loads(json.dumps(splits_json(splits)))
    assert content["assignments_sha256"] == digest == sha256_json(content["assignments"])
    assert content["cohort"]["fingerprint"] == cohort.fingerprint
    text = json.dumps(content)
    assert ".png" not in text
    assert '"p1' not in text
    write_splits(tmp_path / "again.json", make_splits(cohort.select(np.arange(79, -1, -1)), SHARES, 9))
    assert json.loads((tmp_path / "again.json").read_text())["assignments"] == content["assignments"]


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    splits = splits_json(make_splits(random_cohort(80, 7, 40), SHARES))
    path = tmp_path / "s.json"

    def refused(content: object, words: str) -> None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(InputError, match=words):
            read_splits(path)

    with pytest.raises(InputError, match="There is no split file"):
        read_splits(path)
    refused("{", "cannot be read as JSON")
    refused([], "is no split file")
    refused(splits | {"format": "other"}, "is no split file")
    refused(splits | {"assignments": []}, "a list of image hashes for each part")
    moved = {part: keys[1:] for part, keys in splits["assignments"].items()}
    refused(splits | {"assignments": moved}, "was changed since it was written")
    for assignments, words in (
        ({"train": ["a.png"]}, "no sha256 of an image"),
        ({"train": ["0" * 64], "test": ["0" * 64]}, "in two parts, 'train' and 'test'"),
    ):
        refused(splits | {"assignments": assignments, "assignments_sha256": sha256_json(assignments)}, words)


def test_splits_take_the_place_of_the_manifests(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    from PIL import Image

    for number in range(8):
        Image.fromarray(rng.integers(0, 256, (20, 20), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    rows = [(f"{number}.png", f"p{number}", "old") for number in range(8)] + [("gone.png", "p8", "old")]
    pd.DataFrame(rows, columns=["image", "patient", "split"]).to_csv(tmp_path / "manifest.csv", index=False)
    cohort = load_cohort(str(tmp_path))
    path = tmp_path / "s.json"
    write_splits(path, make_splits(cohort, {"a": 0.5, "b": 0.5}))
    loaded = load_cohort(str(tmp_path), splits=path)
    assert sorted(loaded.splits().tolist()) == [""] + ["a"] * 4 + ["b"] * 4
    assert set(loaded.table[GIVEN_SPLIT]) == {"old"}
    assert loaded.fingerprint != cohort.fingerprint
    assert len(load_cohort(str(tmp_path), splits=path, split="a")) == 4
    assert set(load_cohort(str(tmp_path)).splits()) == {"old"}
    Image.fromarray(rng.integers(0, 256, (20, 20), dtype=np.uint8)).save(tmp_path / "0.png")
    with pytest.raises(InputError, match=r"1 of 9 images are not in the split file, the first is 0\.png"):
        load_cohort(str(tmp_path), splits=path)


def test_real_radiographs(shared_dir: Path) -> None:
    cohort = load_cohort(str(shared_dir / "real_cxr/iu_xray"))
    splits = make_splits(cohort, SHARES)
    counts = splits.counts[splits.counts["trait"].isin(["images", *cohort.labels])]
    assert (counts["share"] - counts["wanted"]).abs().max() < 0.04
    assert counts["n_images"].min() >= 3
