"""What is said of a cohort that a model may have seen in training."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.data_cards import DataCard
from medvlm_probe.cohort.phantom_export import export_phantoms
from medvlm_probe.cohort.phantom_source import PhantomImages
from medvlm_probe.cohort.splits import content_keys, make_splits, with_splits
from medvlm_probe.embeddings.same_data import ALIASES, PART_OF, canonical_name
from medvlm_probe.embeddings.seen import SeenInTraining, seen_in_training
from medvlm_probe.errors import InputError
from medvlm_probe.models.training_data import TrainingData, declared_training_data

ROWS = [("train", "a"), ("train", "b"), ("test", "c"), ("test", "d"), ("", "e")]


def cohort_named(
    folder: Path, name: str, *, site: str = "", splits: bool = True, same_as: tuple[str, ...] = ()
) -> Cohort:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"image": [f"{image}.png" for _, image in ROWS]})
    for image in table["image"]:
        Image.fromarray(rng.integers(0, 256, (20, 20), dtype=np.uint8)).save(folder / image)
    if splits:
        table["split"] = [split for split, _ in ROWS]
    if site:
        table["site"] = site
    table.to_csv(folder / "manifest.csv", index=False)
    cohort = load_cohort(str(folder / "manifest.csv"))
    return replace(cohort, card=DataCard(name=name, manifest="manifest.csv", same_as=list(same_as)))


def look(cohort: Cohort, *trained_on: TrainingData) -> SeenInTraining:
    return seen_in_training(cohort, "model-x", trained_on, content_keys(cohort.source))


def counts(seen: SeenInTraining) -> tuple[int, int, int]:
    return seen.n_seen, seen.n_possible, seen.n_same_source


def test_a_data_set_of_the_same_name(tmp_path: Path) -> None:
    cohort = cohort_named(tmp_path, "openi")
    part = look(cohort, TrainingData("iu_xray", splits=("train",)))
    assert part.status == "seen in training"
    assert counts(part) == (2, 1, 2)
    assert part.reason == "Seen in training: model-x was trained on 2 of 5 images, as it declares for iu_xray (train)."
    whole = look(cohort, TrainingData("Open-i"))
    assert counts(whole) == (5, 0, 0)
    named_twice = look(cohort_named(tmp_path, "iu_xray", site="indiana"), TrainingData("iu_xray", splits=("train",)))
    assert counts(named_twice) == (2, 1, 2)
    test = look(cohort.select_split("test"), TrainingData("iu_xray", splits=("train",)))
    assert test.status == "same source"
    assert counts(test) == (0, 0, 2)
    assert "none of them is declared as a training image" in test.reason


def test_other_data_and_silence(tmp_path: Path) -> None:
    cohort = cohort_named(tmp_path, "my_hospital")
    other = look(cohort, TrainingData("mimic_cxr"), TrainingData("chexpert"))
    assert other.status == "none declared here"
    assert counts(other) == (0, 0, 0)
    assert "mimic_cxr; chexpert" in other.reason
    silent = look(cohort)
    assert silent.status == "training data not declared"
    assert "not declared by model-x" in silent.reason
    assert silent.to_json()["declared"] == []


def test_a_sites_name_tells_the_source_and_not_the_part(tmp_path: Path) -> None:
    cohort = cohort_named(tmp_path, "joined", site="indiana")
    seen = look(cohort, TrainingData("iu_xray", splits=("train",)))
    assert seen.status == "may be seen in training"
    assert counts(seen) == (0, 5, 0)
    assert "nothing tells which part" in seen.reason


def test_a_list_of_images_decides(tmp_path: Path) -> None:
    cohort = cohort_named(tmp_path, "joined", site="indiana")
    keys = content_keys(cohort.source)
    path = tmp_path / "list.txt"
    path.write_text("\n".join(keys[:3]))
    seen = look(cohort, TrainingData("iu_xray", splits=("train",), images=path))
    assert counts(seen) == (3, 0, 2)
    elsewhere = look(replace(cohort, card=DataCard(name="x")), TrainingData("unheard_of", images=path))
    assert counts(elsewhere) == (3, 0, 0)
    with pytest.raises(InputError, match="give 5 content keys"):
        seen_in_training(cohort, "model-x", [TrainingData("iu_xray", images=path)])


def test_a_card_says_what_its_images_are_copies_of(tmp_path: Path) -> None:
    trained = TrainingData("mimic_cxr", splits=("train",))
    assert counts(look(cohort_named(tmp_path, "ours", same_as=("mimic_cxr_jpg/train",)), trained)) == (5, 0, 0)
    assert counts(look(cohort_named(tmp_path, "ours", same_as=("mimic_cxr/test",)), trained)) == (0, 0, 5)
    assert counts(look(cohort_named(tmp_path, "ours", same_as=("mimic_cxr",)), trained)) == (2, 1, 2)


def test_data_sets_that_share_images(tmp_path: Path) -> None:
    rsna = cohort_named(tmp_path, "rsna_pneumonia")
    assert counts(look(rsna, TrainingData("nih_cxr14"))) == (5, 0, 0)
    assert counts(look(rsna, TrainingData("nih_cxr14", splits=("train",)))) == (0, 5, 0)
    # As its card says it: under its own splits it is all of itself, and a part of the other that nothing tells.
    rsna = cohort_named(tmp_path, "rsna_pneumonia", same_as=("nih_cxr14",))
    assert counts(look(rsna, TrainingData("nih_cxr14"))) == (5, 0, 0)
    assert counts(look(rsna, TrainingData("nih_cxr14", splits=("train",)))) == (0, 5, 0)
    assert counts(look(rsna, TrainingData("rsna_pneumonia", splits=("train",)))) == (2, 1, 2)
    nih = cohort_named(tmp_path, "nih_cxr14")
    assert counts(look(nih, TrainingData("rsna_pneumonia"))) == (0, 5, 0)


def test_declared_sites_decide(tmp_path: Path) -> None:
    trained = TrainingData("ours", sites=("North",), splits=("train",))
    assert counts(look(cohort_named(tmp_path, "ours", site="north"), trained)) == (2, 1, 2)
    assert look(cohort_named(tmp_path, "ours", site="south"), trained).status == "none declared here"
    assert counts(look(cohort_named(tmp_path, "ours"), trained)) == (0, 5, 0)


def test_splits_made_here_are_not_the_data_sets_own(tmp_path: Path) -> None:
    cohort = cohort_named(tmp_path, "iu_xray")
    again = with_splits(cohort, make_splits(cohort, {"train": 0.5, "test": 0.5}, 1).assigned)
    trained = TrainingData("iu_xray", splits=("train",))
    assert counts(look(again, trained)) == counts(look(cohort, trained)) == (2, 1, 2)
    bare = cohort_named(tmp_path, "iu_xray", splits=False)
    split = with_splits(bare, make_splits(bare, {"train": 0.5, "test": 0.5}, 1).assigned)
    assert look(split, trained).status == "may be seen in training"


@pytest.mark.parametrize(
    ("spec", "status", "expected"),
    [
        ("phantom", "same source", (0, 0, 600)),
        ("phantom:sites=portable,n=5", "none declared here", (0, 0, 0)),
        ("phantom:sites=reference+community,n=5,seed=1000,prevalence=balanced", "seen in training", (5, 0, 0)),
        ("phantom:sites=reference,n=5,seed=1000", "same source", (0, 0, 5)),
        ("phantom:sites=reference,n=5,seed=2000,prevalence=balanced", "same source", (0, 0, 5)),
    ],
)
def test_phantoms_are_told_apart_by_seed(spec: str, status: str, expected: tuple[int, int, int]) -> None:
    cohort = load_cohort(spec)
    seen = seen_in_training(cohort, "phantom-clip", declared_training_data("phantom-clip"))
    assert seen.status == status
    assert counts(seen) == expected


@pytest.mark.parametrize(("seed", "expected"), [(1000, (3, 0, 0)), (5, (0, 0, 3))])
def test_phantoms_as_files_too(tmp_path: Path, seed: int, expected: tuple[int, int, int]) -> None:
    drawn = load_cohort(f"phantom:sites=reference,n=3,prevalence=balanced,seed={seed},size=32")
    assert isinstance(drawn.source, PhantomImages)
    export_phantoms(drawn.source.cases, tmp_path / "files", size=32)
    cohort = load_cohort(str(tmp_path / "files"))
    assert counts(seen_in_training(cohort, "phantom-clip", declared_training_data("phantom-clip"))) == expected
    bare = replace(cohort, card=DataCard(name="phantom-export"))
    assert seen_in_training(bare, "x", declared_training_data("phantom-clip")).status == "may be seen in training"


def test_names_of_models_lead_to_their_declarations(tmp_path: Path) -> None:
    assert declared_training_data("biomedclip")[0].dataset == "PMC-15M"
    assert declared_training_data("hf:vinid/plip") == declared_training_data("plip") != ()
    assert declared_training_data(f"local:{tmp_path}") == declared_training_data("open_clip:ViT-L-14/openai") == ()


def test_the_table_of_names_is_sound() -> None:
    spellings = [alias.replace("_", "") for name, aliases in ALIASES.items() for alias in (name, *aliases)]
    assert len(set(spellings)) == len(spellings)
    assert all(canonical_name(alias) == name for name, aliases in ALIASES.items() for alias in (name, *aliases))
    assert set(PART_OF) | set(PART_OF.values()) <= set(ALIASES)
    assert canonical_name("IU X-Ray ") == canonical_name("NLMCXR") == "iu_xray"


def test_copies_at_another_site_are_found(shared_dir: Path, tmp_path: Path) -> None:
    """The images of `indiana` among several sites, against a model trained on iu_xray's split `train`."""
    iu = load_cohort(str(shared_dir / "real_cxr/iu_xray"), split="train")
    path = tmp_path / "training_images.sha256"
    path.write_text(
        "\n".join(f"{key}  {image}" for key, image in zip(content_keys(iu.source), iu.table["image"], strict=True))
    )
    sites = load_cohort(str(shared_dir / "real_cxr/multisite"))
    trained = TrainingData("iu_xray", splits=("train",), images=path)

    def of(split: str) -> SeenInTraining:
        part = sites.select_split(split)
        return seen_in_training(part, "dino-minilm", [trained], content_keys(part.source))

    # Read by hand: uid % 5 in {0, 1} is train here, 2 calib, 3 test; the model saw 0, 1 and 2.
    assert counts(of("train")) == (275, 0, 0)
    assert counts(of("calib")) == (137, 0, 0)
    assert counts(of("test")) == (0, 0, 130)
    unlisted = replace(trained, images=None)
    assert counts(seen_in_training(iu, "dino-minilm", [unlisted])) == (len(iu), 0, 0)
    held_out = load_cohort(str(shared_dir / "real_cxr/iu_xray"), split="test")
    assert counts(seen_in_training(held_out, "dino-minilm", [unlisted])) == (0, 0, len(held_out))
    assert counts(seen_in_training(sites, "dino-minilm", [unlisted])) == (0, 542, 0)
    assert (
        hashlib.sha256((shared_dir / "real_cxr/iu_xray" / iu.table["image"][0]).read_bytes()).hexdigest()
        in path.read_text()
    )
