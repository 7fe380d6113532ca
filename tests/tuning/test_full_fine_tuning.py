"""Full fine-tuning on few-shot sets: against a loop by hand, without touching the base, and back from its folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_tuning import write_cohort, write_model
from torch.nn import functional

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.data_cards import DataCard
from medvlm_probe.errors import InputError, ModelError, UnknownNameError
from medvlm_probe.models.checkpoint import hash_tensors
from medvlm_probe.models.training_data import declared_training_data
from medvlm_probe.models.zoo import load_model
from medvlm_probe.tuning import full_fine_tuning
from medvlm_probe.tuning.few_shot import draw_few_shot
from medvlm_probe.tuning.full_fine_tuning import FullSettings, full_schedule, text_features, tune_fully
from medvlm_probe.tuning.full_folder import FACTS_FILE, FullMaterial, make_fully_tuned
from medvlm_probe.tuning.losses import parse_losses
from medvlm_probe.tuning.make_tuned import base_of
from medvlm_probe.tuning.prompt_tuning import Training
from medvlm_probe.tuning.views import Views
from medvlm_probe.zero_shot.predict import Task, zero_shot_scores
from medvlm_probe.zero_shot.prompts import LabelPrompts, PromptSet
from medvlm_probe.zero_shot.text_embeddings import label_directions

PAIRS = PromptSet(
    "pairs",
    "",
    "",
    {
        "edema": LabelPrompts(("edema", "wet lungs"), ("no edema",)),
        "fracture": LabelPrompts(("fracture",), ("no fracture",)),
    },
)
CLASSES = PromptSet("classes", "", "", {"left": LabelPrompts(("left",)), "right": LabelPrompts(("right",))})
CLEAN = FullSettings(replace(full_schedule(3, 4, 0.05), warmup_epochs=0), "sgd", Views(1, "clean"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("home")
    write_model(folder / "model")
    return folder


@pytest.fixture(scope="module")
def model(home: Path) -> Any:
    return load_model(f"local:{home / 'model'}")


@pytest.fixture(scope="module")
def pairs(home: Path) -> Cohort:
    return write_cohort(home / "images")


@pytest.fixture(scope="module")
def classes(pairs: Cohort) -> Cohort:
    """The same images, one label each: which half is bright, where exactly one is."""
    table = pairs.table.copy()
    left, right = table["edema"] == 1, table["fracture"] == 1
    table["left"], table["right"] = (left & ~right).astype("float32"), (right & ~left).astype("float32")
    card = DataCard(name="halves", task="single_label")
    return Cohort("halves", table, ("left", "right"), "ignore", pairs.source, card)


def training_of(cohort: Cohort, prompts: PromptSet, loss: str = "ls+smac+as", **options: Any) -> Training:
    options = {"shots": 2, "seed": 3, **options}
    few_shot = draw_few_shot(cohort, cohort.splits() == "train", tuple(prompts.labels), **options)
    return Training(parse_losses(loss), few_shot, options["seed"])


def pixels_of(model: Any, cohort: Cohort, rows: Any) -> torch.Tensor:
    return torch.stack([model.preprocess(cohort.source.read(int(row))) for row in rows])


def weights(model: Any) -> str:
    return hash_tensors(model.module.state_dict())


def test_equals_a_loop_by_hand_and_leaves_the_base_alone(model: Any, home: Path, classes: Cohort) -> None:
    before, training = weights(model), training_of(classes, CLASSES, "ce")
    tuned = tune_fully(model, CLASSES, training, classes, CLEAN)
    assert weights(model) == before
    assert not any(parameter.requires_grad for parameter in tuned.model.module.parameters())

    own: Any = load_model(f"local:{home / 'model'}").module.requires_grad_(True)
    own.logit_scale.requires_grad_(False)
    problem = training.few_shot.train[0]
    ids = model.tokenizer(["left", "right"])
    parameters = [parameter for parameter in own.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1.0, momentum=0.9, weight_decay=5e-4)
    losses = []
    for epoch in range(3):
        order = np.random.default_rng([3, 1, epoch]).permutation(4)
        optimizer.param_groups[0]["lr"] = 0.5 * 0.05 * (1 + np.cos(np.pi * epoch / 3))
        images = functional.normalize(own.encode_image(pixels_of(model, classes, problem.rows[order])), dim=1)
        logits = own.logit_scale.exp() * images @ functional.normalize(own.encode_text(ids), dim=1).T
        loss = functional.cross_entropy(logits, torch.from_numpy(problem.truth[order]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert tuned.losses == pytest.approx(losses, rel=1e-4)
    found = tuned.model.module.state_dict()
    for name, value in own.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5)
    assert torch.equal(found["logit_scale"], model.module.logit_scale)
    assert tuned.n_trained == sum(parameter.numel() for parameter in parameters)
    old = {name: value for name, value in model.module.named_parameters() if name != "logit_scale"}
    distance, length = (
        sum(float(part.square().sum()) for part in parts) ** 0.5
        for parts in ([found[name] - value for name, value in old.items()], old.values())
    )
    assert tuned.weight_change == pytest.approx(distance / length, rel=1e-4)
    assert not torch.equal(found["visual.proj"], model.module.state_dict()["visual.proj"])
    assert not torch.equal(found["text_projection"], model.module.state_dict()["text_projection"])


def test_equal_bytes_again_and_steps_in_parts(model: Any, pairs: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(CLEAN, views=Views(2, "light"), schedule=full_schedule(2, 8, 1e-1))
    training = training_of(pairs, PAIRS)
    one, again = (tune_fully(model, PAIRS, training, pairs, settings) for _ in range(2))
    assert weights(one.model) == weights(again.model)
    assert weights(one.model) != weights(model)
    others = (replace(settings, optimizer="adamw"), training), (settings, training_of(pairs, PAIRS, "ls+penalty"))
    for changed, other in others:
        assert weights(tune_fully(model, PAIRS, other, pairs, changed).model) != weights(one.model)
    monkeypatch.setattr(full_fine_tuning, "IMAGES_AT_ONCE", 3)
    parts = tune_fully(model, PAIRS, training, pairs, settings)
    assert parts.losses == pytest.approx(one.losses, rel=1e-5)
    pixels = pixels_of(model, pairs, range(4))
    with torch.no_grad():
        torch.testing.assert_close(
            parts.model.encode_images(pixels), one.model.encode_images(pixels), rtol=1e-3, atol=1e-4
        )


def test_texts_stand_where_zero_shot_scores_have_them(model: Any, tmp_path: Path) -> None:
    directions = label_directions(model, PAIRS, cache_dir=tmp_path)
    with torch.no_grad():
        features = text_features(model, PAIRS, single_label=False).numpy()
        of_classes = text_features(model, CLASSES, single_label=True).numpy()
    np.testing.assert_allclose(features[:, 0], directions.negative, atol=1e-6)
    np.testing.assert_allclose(features[:, 1], directions.positive, atol=1e-6)
    np.testing.assert_allclose(of_classes, label_directions(model, CLASSES, cache_dir=tmp_path).positive, atol=1e-6)


def test_validation_images_choose_the_epoch(model: Any, classes: Cohort) -> None:
    training = training_of(classes, CLASSES, "ce", validation_shots=2)
    settings = replace(CLEAN, schedule=replace(CLEAN.schedule, epochs=4, rate=0.5))
    tuned = tune_fully(model, CLASSES, training, classes, settings)
    assert tuned.kept_epoch == int(np.argmin(tuned.validation)) + 1
    held_out = training.few_shot.validation[0]
    with torch.no_grad():
        units = functional.normalize(tuned.model.encode_images(pixels_of(model, classes, held_out.rows)), dim=1)
        logits = model.logit_scale * units @ text_features(tuned.model, CLASSES, single_label=True).T
        loss = functional.cross_entropy(logits, torch.from_numpy(held_out.truth)).item()
    assert loss == pytest.approx(min(tuned.validation), rel=1e-5)


def test_what_cannot_be_trained_says_why(model: Any, pairs: Cohort, classes: Cohort) -> None:
    with pytest.raises(InputError, match="no texts for absence"):
        tune_fully(model, CLASSES, training_of(pairs, PAIRS), pairs, CLEAN)
    wild = replace(CLEAN, schedule=replace(CLEAN.schedule, rate=1e30))
    with pytest.raises(InputError, match="not finite in epoch"):
        tune_fully(model, CLASSES, training_of(classes, CLASSES, "ce"), classes, wild)
    with pytest.raises(UnknownNameError, match="adamw"):
        replace(CLEAN, optimizer="adam")


def test_the_published_course_of_the_rate_shrinks_with_the_rate() -> None:
    schedule = full_schedule(50, 16)
    assert schedule.rate_at(0) == pytest.approx(1e-9)
    assert schedule.rate_at(1) == pytest.approx(2e-7)


def material_of(home: Path, model: Any, cohort: Cohort, settings: FullSettings) -> FullMaterial:
    keys = [cohort.source.content_key(row) for row in range(len(cohort))]
    return FullMaterial(model, base_of(f"local:{home / 'model'}"), CLASSES, cohort, keys, "train", settings)


def test_a_folder_that_every_command_loads(model: Any, home: Path, classes: Cohort, tmp_path: Path) -> None:
    training = training_of(classes, CLASSES, "ce")
    material = material_of(home, model, classes, replace(CLEAN, logit_scale=20.0))
    facts = make_fully_tuned(tmp_path / "tuned", material, training)
    tuned: Any = load_model(f"local:{tmp_path / 'tuned'}")
    assert tuned.name == "local:model fully fine-tuned on halves, seed 3"
    assert tuned.fingerprint != model.fingerprint
    assert tuned.logit_scale == pytest.approx(20.0)
    expected = tune_fully(model, CLASSES, training, classes, material.settings).model
    pixels = pixels_of(model, classes, range(5))
    with torch.no_grad():
        assert torch.equal(tuned.encode_images(pixels), expected.encode_images(pixels))
        assert torch.equal(tuned.encode_texts(["left"]), expected.encode_texts(["left"]))
        vectors = tuned.encode_images(pixels).numpy()
        logits = (
            20.0
            * functional.normalize(expected.encode_images(pixels), dim=1)
            @ text_features(expected, CLASSES, single_label=True).T
        )
    few = classes.select(np.arange(5))
    scores = zero_shot_scores(vectors, few, tuned, Task(CLASSES, "softmax"), cache_dir=tmp_path / "cache")
    np.testing.assert_allclose(scores.values, logits.softmax(dim=1).numpy(), atol=1e-5)

    declared = declared_training_data(f"local:{tmp_path / 'tuned'}")
    assert [data.dataset for data in declared] == ["undeclared data of local:model", "halves"]
    assert declared[1].image_keys() == {material.keys[row] for row in training.few_shot.rows.tolist()}
    assert json.loads((tmp_path / "tuned" / FACTS_FILE).read_text()) == facts
    card = (tmp_path / "tuned" / "model_card.md").read_text()
    assert "| logit scale | 20, not trained |" in card
    assert "- `left`: left" in card

    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "tuned").rglob("*")}
    assert make_fully_tuned(tmp_path / "tuned", material, training) == facts
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "tuned").rglob("*")} == files
    with pytest.raises(ModelError, match="another folder to --out"):
        make_fully_tuned(tmp_path / "tuned", replace(material, settings=CLEAN), training)
