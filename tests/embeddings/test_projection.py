"""Projections: axes against scikit-learn, the same picture each time, and what images are coloured by."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.data_cards import DataCard
from medvlm_probe.embeddings.projection import METHODS, principal_components, project
from medvlm_probe.embeddings.projection_groups import colouring
from medvlm_probe.errors import InputError, UnknownNameError


@pytest.mark.parametrize("shape", [(80, 7), (12, 40)])
def test_principal_components_are_those_of_scikit_learn(shape: tuple[int, int], rng: np.random.Generator) -> None:
    x = rng.normal(size=shape) * np.linspace(3, 1, shape[1])
    theirs = PCA(3).fit(x)
    coordinates, shares = principal_components(x - x.mean(axis=0), 3)
    np.testing.assert_allclose(np.abs(coordinates), np.abs(theirs.transform(x)), atol=1e-9)
    np.testing.assert_allclose(shares, theirs.explained_variance_ratio_, rtol=1e-9)


def test_pca_is_of_normalised_vectors_unless_raw_is_asked_for(rng: np.random.Generator) -> None:
    x = rng.normal(size=(60, 6)) * np.linspace(0.5, 9, 60)[:, None]
    units = x / np.linalg.norm(x, axis=1, keepdims=True)
    for space, expected in (("l2", units), ("raw", x)):
        found = project(x, space=space)
        theirs = PCA(2).fit(expected)
        np.testing.assert_allclose(np.abs(found.coordinates), np.abs(theirs.transform(expected)), atol=1e-4)
        assert found.variance_shares == pytest.approx(tuple(theirs.explained_variance_ratio_), rel=1e-4)
        assert found.axes_words[0] == f"PC 1 ({100 * theirs.explained_variance_ratio_[0]:.1f} %)"
        assert f"{found.trustworthiness.value:.2f}" in found.sentence


@pytest.mark.slow
@pytest.mark.parametrize("method", ["umap", "tsne"])
def test_illustrations_are_the_same_for_the_same_seed(method: str, rng: np.random.Generator) -> None:
    centres = 4 * rng.normal(size=(3, 20))
    cloud = rng.integers(0, 3, 120)
    x = centres[cloud] + rng.normal(size=(120, 20))
    first, again = project(x, method=method, seed=3), project(x, method=method, seed=3)
    assert np.array_equal(first.coordinates, again.coordinates)
    assert first.variance_shares is None
    assert first.trustworthiness.value > 0.85
    small = project(x[:6], method=method)
    assert small.coordinates.shape == (6, 2)
    assert np.isfinite(small.coordinates).all()


def test_what_cannot_be_projected_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean umap"):
        project(rng.normal(size=(9, 3)), method="umapp")
    with pytest.raises(InputError, match="at least 4"):
        project(rng.normal(size=(3, 3)))
    with pytest.raises(InputError, match="All embeddings are the same"):
        project(np.ones((9, 3)))
    assert not project(rng.normal(size=(9, 1)), space="raw").coordinates[:, 1].any()
    assert set(METHODS) == {"pca", "umap", "tsne"}


class _NoImages:
    recipe, settings = "none", ""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n


def _cohort(table: pd.DataFrame, labels: tuple[str, ...]) -> Cohort:
    card = DataCard(name="c", title="c", labels={label: label for label in labels})
    return Cohort("c", table.astype(dict.fromkeys(labels, "float32")), labels, "ignore", _NoImages(len(table)), card)


TABLE = pd.DataFrame(
    {
        "image": list("abcdef"),
        "site": ["p", "p", "q", "q", "q", None],
        "no_finding": [1, 0, np.nan, np.nan, 0, 1],
        "cardiomegaly": [0, 1, 1, np.nan, 0, 0],
        "edema": [0, 1, 0, 0, 0, np.nan],
        "support_devices": [1, 0, 0, 1, 0, 0],
    }
)
LABELS = ("no_finding", "cardiomegaly", "edema", "support_devices")


def test_abnormal_follows_no_finding_and_where_that_is_unknown_the_findings() -> None:
    found = colouring(_cohort(TABLE, LABELS), "abnormal")
    expected = ["no finding", "abnormal", "abnormal", "", "abnormal", "no finding"]
    assert found.table["abnormal"].tolist() == expected
    assert found.counts() == [
        {"group": "no finding", "n_images": 2, "n_unknown": 1},
        {"group": "abnormal", "n_images": 3, "n_unknown": 1},
    ]
    without = colouring(_cohort(TABLE, LABELS[1:]), "abnormal")
    assert without.table["abnormal"].tolist() == ["no finding", "abnormal", "abnormal", "", "no finding", ""]


def test_domains_are_present_where_any_member_is() -> None:
    found = colouring(_cohort(TABLE, LABELS), "domain")
    assert list(found.table.columns) == ["cardiovascular", "pulmonary", "device"]
    np.testing.assert_array_equal(found.table["cardiovascular"], [0, 1, 1, np.nan, 0, 0])
    assert found.counts()[1] == {"group": "pulmonary", "n_images": 1, "n_unknown": 1}


def test_labels_and_sites() -> None:
    cohort = _cohort(TABLE, LABELS)
    assert colouring(cohort, "site").counts()[0] == {"group": "p", "n_images": 2, "n_unknown": 1}
    assert list(colouring(cohort, "label").table.columns) == list(LABELS)
    assert colouring(cohort, "Support Devices").name == "support_devices"


@pytest.mark.parametrize(
    ("table", "labels", "by", "error", "says"),
    [
        (TABLE.drop(columns="site"), LABELS, "site", InputError, "names no sites"),
        (TABLE, (), "abnormal", InputError, "has no labels"),
        (TABLE, LABELS, "sites", UnknownNameError, "Did you mean site"),
        (TABLE, LABELS, "cardiomegali", UnknownNameError, "Did you mean cardiomegaly"),
        (TABLE.rename(columns={"edema": "gout"}), ("gout",), "domain", InputError, "no label of any domain"),
    ],
)
def test_what_cannot_be_coloured_is_refused(
    table: pd.DataFrame, labels: tuple[str, ...], by: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        colouring(_cohort(table, labels), by)
