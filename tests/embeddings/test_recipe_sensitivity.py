"""How far recipes move embeddings: by hand from the embeddings themselves, on phantoms written as DICOM and PNG."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.phantom_export import export_phantoms
from medvlm_probe.embeddings.extract import embed
from medvlm_probe.embeddings.recipe_sensitivity import other_recipes, recipe_sensitivity
from medvlm_probe.errors import InputError
from medvlm_probe.models.zoo import load_model


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    folder = tmp_path_factory.mktemp("films")
    source = load_cohort("phantom:sites=reference+inverted_archive,n=8").source
    export_phantoms(source.cases, folder, format="dicom", size=224)  # type: ignore[attr-defined]
    return load_cohort(str(folder / "manifest.csv"))


def test_recipes_of_the_same_kind() -> None:
    assert "dicom/v1:full-range" in other_recipes("dicom/v1")
    assert "dicom/v1" in other_recipes("dicom/v1:full-range")
    assert all(name.startswith("png/v1") for name in other_recipes("png/v1"))


def test_effects_are_those_of_the_embeddings(films: Cohort, tmp_path: Path) -> None:
    model = load_model("phantom-clip")
    found = recipe_sensitivity(films, model, precision="float32", cache_dir=tmp_path)
    assert [effect.recipe for effect in found.effects] == list(other_recipes("dicom/v1"))

    def unit(recipe: str) -> np.ndarray:
        shown = replace(films, source=replace(films.source, recipe=recipe))  # type: ignore[type-var]
        vectors = embed(shown, model, precision="float32", cache_dir=tmp_path).vectors.astype(float)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    own = unit("dicom/v1")
    groups = films.groups()
    between = [np.linalg.norm(own[i] - own[groups != groups[i]], axis=1).mean() for i in range(len(own))]
    for effect in found.effects:
        moved = unit(effect.recipe)
        distances = np.linalg.norm(moved - own, axis=1)
        assert effect.displacement.value == pytest.approx(distances.mean() / np.mean(between), abs=1e-5)
        nearest = np.linalg.norm(moved[:, None] - own[None], axis=2).argmin(axis=1)
        assert effect.recognised.value == (nearest == np.arange(len(own))).mean()
        assert effect.n_unreadable == 0
    by_name = {effect.recipe: effect for effect in found.effects}
    assert (
        by_name["dicom/v1:full-range"].displacement.value > by_name["dicom/v1:percentile-0.5-99.5"].displacement.value
    )
    assert by_name["dicom/v1:full-range"].n_changed > 0
    assert len(found.table()) == len(found.effects)


def test_a_sample_depends_on_names_alone(films: Cohort, tmp_path: Path) -> None:
    model = load_model("phantom-clip")
    found = recipe_sensitivity(films, model, max_images=6, cache_dir=tmp_path)
    turned = recipe_sensitivity(films.select(np.arange(len(films))[::-1]), model, max_images=6, cache_dir=tmp_path)
    assert found.n_sampled == 6
    assert found.effects[1].recognised.value == turned.effects[1].recognised.value


def test_what_is_refused(films: Cohort, tmp_path: Path) -> None:
    model = load_model("phantom-clip")
    with pytest.raises(InputError, match="draws its images"):
        recipe_sensitivity(load_cohort("phantom:n=2"), model, cache_dir=tmp_path)
    with pytest.raises(InputError, match="Fewer than two"):
        recipe_sensitivity(films.select([0]), model, cache_dir=tmp_path)
