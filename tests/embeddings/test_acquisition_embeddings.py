"""Transformed images through the store: each under its own key, paired with the untouched ones, sampled by patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_embedding_model import cohort_of, make_model, pixels_of, write_images

from medvlm_probe.cohort.acquisition import acquire, parse_steps
from medvlm_probe.embeddings.acquisition_embeddings import acquisition_embeddings, sample_of_groups
from medvlm_probe.embeddings.acquisition_words import attribution_sentence, family_words, words_of
from medvlm_probe.errors import InputError, UnknownNameError
from medvlm_probe.shift.attribution import Attribution, Parts, TransformShare, Verdict
from medvlm_probe.types import Estimate

NAMES = ("gamma/v1@2", "noise/v1@500", "blur/v1@1+gamma/v1@2")


def test_every_transform_is_embedded_once_and_as_it_should(tmp_path: Path) -> None:
    contents = [0, 1, 2, 1, 3]
    cohort = cohort_of(tmp_path / "films", write_images(tmp_path / "films", contents))
    (tmp_path / "films" / "image-002.png").write_bytes(b"no image")
    model = make_model()
    said: list[str] = []
    found = acquisition_embeddings(
        cohort, model, NAMES, precision="float32", workers=1, cache_dir=tmp_path / "cache", say=said.append
    )
    assert found.cohort.table["image"].tolist() == [f"image-00{k}.png" for k in (0, 1, 3, 4)]
    assert found.n_computed == 3 * (1 + len(NAMES))
    assert len(said) == 1 + len(NAMES)
    for name, vectors in {"": found.untouched, **found.transformed}.items():
        for row, content in enumerate((0, 1, 1, 3)):
            key = cohort.source.content_key(contents.index(content))
            shown = acquire(Image.fromarray(pixels_of(content)), parse_steps(name) if name else (), key)
            direct = model.module(model.preprocess(shown)[None]).numpy()[0]
            assert vectors[row] == pytest.approx(direct, abs=1e-5)
    again = acquisition_embeddings(cohort, model, NAMES, precision="float32", workers=1, cache_dir=tmp_path / "cache")
    assert again.n_computed == 0
    assert all((again.transformed[name] == found.transformed[name]).all() for name in NAMES)


def test_a_wrong_transform_stops_before_any_work(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path, write_images(tmp_path, [0, 1]))
    model = make_model()
    with pytest.raises(UnknownNameError, match="acquisition transform"):
        acquisition_embeddings(cohort, model, ["blur/v1@1", "fog/v1@1"], cache_dir=tmp_path / "cache")
    assert model.batches == []
    (tmp_path / "image-000.png").write_bytes(b"")
    with pytest.raises(InputError, match="None of the 1 images"):
        acquisition_embeddings(cohort.select([0]), model, NAMES, cache_dir=tmp_path / "cache")


def test_samples_are_whole_patients_and_nest(tmp_path: Path) -> None:
    names = [f"{k}.png" for k in range(40)]
    cohort = cohort_of(tmp_path, names, patient=[f"p{k // 3}" for k in range(40)])
    part, larger = sample_of_groups(cohort, 10), sample_of_groups(cohort, 20)
    for sample, most in ((part, 10), (larger, 20)):
        assert most - 3 < len(sample) <= most
        kept = set(sample.table["patient"])
        assert len(sample) == sum(patient in kept for patient in cohort.table["patient"])
    assert set(part.table["image"]) < set(larger.table["image"])
    turned = sample_of_groups(cohort.select(np.arange(40)[::-1]), 10)
    assert set(turned.table["image"]) == set(part.table["image"])
    assert sample_of_groups(cohort, 40) is cohort
    assert len(sample_of_groups(cohort, 1)) in (1, 3)


def test_words_of_transforms() -> None:
    assert words_of("resolution/v1@96+blur/v1@1") == "lower resolution (96 px), then more blur (1 px)"
    assert words_of("window/v1@-10") == "another window (centre \u221210 %)"
    assert family_words("resolution + jpeg") == "lower resolution and stronger JPEG"


@pytest.mark.parametrize(
    ("verdict", "begin", "share"),
    [
        ("acquisition", "Most of the distance is lower resolution: it explains 62 % [55, 69]", 0.62),
        ("acquisition", "Part of the distance is lower resolution: it explains 32 % [25, 39]", 0.32),
        ("acquisition and other patients", "Acquisition and other patients: beyond another mix", 0.62),
        ("other patients", "Not acquisition: other patients.", 0.1),
        ("not these transforms", "Not acquisition, as far as these transforms go", 0.1),
        ("no distance", "The site cannot be told from the reference", 0.0),
        ("not enough evidence", "Not enough evidence", 0.1),
    ],
)
def test_sentences(verdict: Verdict, begin: str, share: float) -> None:
    best, other = Estimate(share, share - 0.07, share + 0.07, 9, 9, ""), Estimate(-0.02, -0.1, 0.06, 9, 9, "")
    name = "resolution/v1@96"

    def found(families: dict[str, float]) -> Attribution:
        entry = TransformShare(name, best, best)
        parts = Parts(best, other, best, best, other, best)
        return Attribution(best, (entry,), name, families, families, parts, 0.02, None, 1.0, verdict)

    sentence = attribution_sentence(found({"resolution": 0.9, "blur": 0.1}))
    assert sentence.startswith(begin)
    if verdict == "acquisition":
        unsure = attribution_sentence(found({"resolution": 0.6, "blur": 0.4}))
        assert "is lower resolution or more blur: it" in unsure
