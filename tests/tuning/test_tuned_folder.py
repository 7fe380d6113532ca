"""A fine-tuned model in its folder: loaded like any other, declared, locked, never written over."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_tuning import LABELS, QUICK, prepared

from medvlm_probe.embeddings.seen import seen_in_training
from medvlm_probe.errors import ModelError
from medvlm_probe.models.training_data import declared_training_data
from medvlm_probe.models.zoo import load_model
from medvlm_probe.tuning.heads import LinearHead, read_head
from medvlm_probe.tuning.make_tuned import base_of, make_tuned
from medvlm_probe.tuning.roles import Roles, assign_roles

SETTINGS = replace(QUICK, epochs=1, least_gain=-1e9)


def roles_of(home: Path) -> Roles:
    _, material = prepared(home)
    return assign_roles(material.cohort, train_from="train", validation_from="val", split="test", stops=True)


def make(home: Path, folder: Path, **changes: object) -> LinearHead:
    loaded, material = prepared(home)
    settings = replace(SETTINGS, **changes)
    base = base_of(f"local:{home / 'model'}")
    return make_tuned(folder, loaded, base, material, roles_of(home), settings, workers=1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def run(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    make(home, folder)
    return folder


def test_it_loads_as_another_model_with_the_same_texts(home: Path, run: Path) -> None:
    base, tuned = load_model(f"local:{home / 'model'}"), load_model(f"local:{run / 'model'}")
    assert tuned.name == "local:model fine-tuned on halves"
    assert tuned.fingerprint != base.fingerprint
    texts = ["edema", "no finding"]
    assert torch.equal(tuned.encode_texts(texts), base.encode_texts(texts))
    pixels = torch.rand(2, 3, 32, 32)
    assert not torch.allclose(tuned.encode_images(pixels), base.encode_images(pixels), atol=1e-3)
    assert not (run / "checkpoint").exists()


def test_the_head_beside_it_judges_as_the_training_did(home: Path, run: Path) -> None:
    tuned, head = load_model(f"local:{run / 'model'}"), read_head(run / "model")
    _, material = prepared(home)
    rows = np.flatnonzero(material.validation).tolist()
    pixels = torch.stack([tuned.preprocess(material.cohort.source.read(row)) for row in rows])
    logits = head.logits(tuned.encode_images(pixels).numpy())
    y = material.cohort.targets()[rows]
    loss = np.nanmean(np.logaddexp(0, logits) - y * logits)
    assert loss == pytest.approx(head.about["epochs"][-1]["validation_loss"], rel=1e-4)
    assert head.labels == LABELS
    assert head.kind == "fine_tune"


def test_its_training_images_are_seen_and_others_are_not(home: Path, run: Path) -> None:
    trained_on = declared_training_data(f"local:{run / 'model'}")
    assert [entry.dataset for entry in trained_on] == ["undeclared data of local:model", "halves"]
    _, material = prepared(home)
    seen = seen_in_training(material.cohort, "tuned", trained_on, material.keys)
    assert seen.status == "seen in training"
    assert seen.n_seen == int((material.train | material.validation).sum())
    test = material.cohort.splits() == "test"
    keys = [key for key, here in zip(material.keys, test, strict=True) if here]
    assert seen_in_training(material.cohort.select(test), "tuned", trained_on, keys).status == "same source"


def test_the_card_says_what_it_is(run: Path) -> None:
    card = (run / "model" / "model_card.md").read_text()
    for words in ("Not a medical device", "cohort `halves`, split `train`", "rate: 0.001", "| 1 |", "text prompts"):
        assert words in card


def test_every_file_is_locked(run: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(run / "model", tmp_path / "copy")
    facts = json.loads((copy / "head.json").read_text())
    (copy / "head.json").write_text(json.dumps(facts | {"labels": ["a", "b", "c"]}))
    with pytest.raises(ModelError, match=r"head\.json has SHA-256"):
        load_model(f"local:{copy}")


def test_the_same_training_is_taken_as_it_lies_and_another_is_refused(home: Path, run: Path) -> None:
    before = (run / "model" / "open_clip_model.safetensors").stat().st_mtime_ns
    head = make(home, run)
    assert (run / "model" / "open_clip_model.safetensors").stat().st_mtime_ns == before
    assert (head.weight == read_head(run / "model").weight).all()
    with pytest.raises(ModelError, match="something else"):
        make(home, run, seed=5)


def test_a_tuned_model_can_be_tuned_again(home: Path, run: Path, tmp_path: Path) -> None:
    _, material = prepared(home)
    name = f"local:{run / 'model'}"
    head = make_tuned(
        tmp_path, load_model(name), base_of(name), material, roles_of(home), replace(SETTINGS, last_blocks=1), workers=1
    )
    assert head.about["settings"]["last_blocks"] == 1
    trained_on = declared_training_data(f"local:{tmp_path / 'model'}")
    assert [entry.dataset for entry in trained_on] == ["undeclared data of local:model", "halves", "halves"]
    assert len(trained_on[1].image_keys()) == int((material.train | material.validation).sum())
