"""What moved, asked of two hospitals: by the site's labels where there are any, else by scores, and said so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medvlm_probe.audit.what_moved import identify
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.errors import InputError

from .two_hospitals import hospital, inputs_of


@pytest.fixture
def reference(tmp_path: Path) -> tuple[Cohort, np.ndarray]:
    return hospital(tmp_path / "reference", 300, 1)


def test_labels_of_the_site_are_the_evidence(tmp_path: Path, reference: tuple[Cohort, np.ndarray]) -> None:
    cohort, vectors = hospital(tmp_path / "site", 200, 2, prefix="s", start=9000)
    vectors[:, 3:6] += 1.0
    found = identify(inputs_of(reference, (cohort, vectors)))
    assert found.found.shift == "covariate"
    assert found.look_moved
    assert found.truth == found.found.site_prevalence
    assert "by the site's own labels" in found.sentence
    assert "scores alone would have told" in found.sentence
    assert found.to_json()["evidence"] == "labels"
    assert found.to_json()["truth"] == found.to_json()["site_prevalence"]


def test_without_labels_scores_are_the_evidence(tmp_path: Path, reference: tuple[Cohort, np.ndarray]) -> None:
    cohort, _ = hospital(tmp_path / "site", 200, 2, prefix="s", start=9000, cardiomegaly=np.nan, edema=np.nan)
    _, vectors = hospital(tmp_path / "twin", 200, 2)
    for moved, name, said in ((0.0, "none", "Neither the frequency"), (1.0, "covariate", "no further than the rest")):
        vectors[:, 3:6] += moved
        found = identify(inputs_of(reference, (cohort, vectors)))
        assert found.found.shift == name
        assert found.truth is None
        assert found.to_json()["truth"] is None
        assert said in found.sentence
        assert "by the model's scores alone" in found.sentence
        assert found.sentence.count(". ") == 0


def test_a_reference_of_one_kind_is_refused(tmp_path: Path) -> None:
    sides = [
        hospital(tmp_path / name, 60, seed, prefix=name, start=seed * 1000, cardiomegaly=1)
        for seed, name in enumerate(("reference", "site"), 1)
    ]
    with pytest.raises(InputError, match="both kinds"):
        identify(inputs_of(*sides))
