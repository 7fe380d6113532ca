"""Fine-tuning goes through every family of models: trained, saved in the family's own layout, loaded again."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from tiny_tuning import QUICK, material_of, write_cohort

from medvlm_probe.models.zoo import load_model
from medvlm_probe.tuning.heads import read_head
from medvlm_probe.tuning.make_tuned import base_of, make_tuned
from medvlm_probe.tuning.roles import assign_roles
from medvlm_probe.tuning.towers import trainable_model, trainable_tower


def family_folders() -> ModuleType:
    """Return the module of the models' tests that writes folders as the families' authors do."""
    path = Path(__file__).parents[1] / "models" / "hugging_face_folders.py"
    spec = importlib.util.spec_from_file_location("hugging_face_folders_for_tuning", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FOLDERS = family_folders()
FAMILIES: dict[str, Callable[[Path], object]] = {
    "hugging_face_clip": FOLDERS.write_clip_folder,
    "medclip": FOLDERS.write_medclip_folder,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tuned_model_comes_back(family: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    folder = tmp_path / "base"
    FAMILIES[family](folder)
    name = f"local:{folder}"
    model = load_model(name)
    material = material_of(write_cohort(tmp_path / "images", n=24), model, tmp_path / "cache")
    roles = assign_roles(material.cohort, train_from="train", validation_from="val", split="test", stops=True)
    settings = replace(QUICK, epochs=1, least_gain=-1e9)
    make_tuned(tmp_path, model, base_of(name), material, roles, settings, workers=1)
    tuned, head = load_model(f"local:{tmp_path / 'model'}"), read_head(tmp_path / "model")
    assert tuned.fingerprint != model.fingerprint
    assert torch.equal(tuned.encode_texts(["no pneumonia"]), model.encode_texts(["no pneumonia"]))
    rows = np.flatnonzero(material.validation).tolist()
    pixels = torch.stack([tuned.preprocess(material.cohort.source.read(row)) for row in rows])
    with torch.no_grad():
        logits = head.logits(tuned.encode_images(pixels).numpy())
    y = material.cohort.targets()[rows]
    loss = np.nanmean(np.logaddexp(0, logits) - y * logits)
    assert loss == pytest.approx(head.about["epochs"][-1]["validation_loss"], rel=1e-3)


def test_last_blocks_of_a_clip_tower(tmp_path: Path) -> None:
    FOLDERS.write_clip_folder(tmp_path / "base")
    tower = trainable_tower(load_model(f"local:{tmp_path / 'base'}"), last_blocks=1)
    names = {name.split(".weight")[0].split(".bias")[0] for name in tower.parameters}
    assert any(name.startswith("vision_model.encoder.layers.1.") for name in names)
    others = {name for name in names if "encoder.layers" not in name}
    assert others == {"vision_model.post_layernorm", "visual_projection"}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_copy_has_towers_of_its_own(family: str, tmp_path: Path) -> None:
    """Both encoders of the copy run on the tensors that are trained, and the given model on none of them."""
    FAMILIES[family](tmp_path / "base")
    model = load_model(f"local:{tmp_path / 'base'}")
    tower = trainable_model(model)
    pixels, texts = torch.rand(2, 3, model.image_size, model.image_size), ["no pneumonia"]
    with torch.no_grad():
        before = model.encode_images(pixels), model.encode_texts(texts)
        assert torch.equal(tower.model.encode_images(pixels), before[0])
        assert torch.equal(tower.model.encode_texts(texts), before[1])
    torch.autograd.backward(tower.model.encode_images(pixels).square().sum() + tower.model.encode_texts(texts).sum())
    with torch.no_grad():
        for parameter in tower.parameters.values():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad.sign()
        assert not torch.allclose(tower.model.encode_images(pixels), before[0], atol=1e-3)
        assert not torch.allclose(tower.model.encode_texts(texts), before[1], atol=1e-3)
        assert torch.equal(model.encode_images(pixels), before[0])
        assert torch.equal(model.encode_texts(texts), before[1])
    assert not any(parameter.requires_grad for parameter in model.module.parameters())
    assert "logit_scale" not in tower.parameters
    assert tower.n_frozen == 1
