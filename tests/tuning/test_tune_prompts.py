"""Tuned prompts on disk: resumed to the same bytes, tied to their model and settings, and read by every command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_prompts import LABELS, cohort_of, label_prompts, small_clip, vectors_of

from medvlm_probe.errors import InputError, ModelError
from medvlm_probe.tuning.few_shot import draw_few_shot
from medvlm_probe.tuning.losses import parse_losses
from medvlm_probe.tuning.prompt_learner import ContextSettings, prompt_learner
from medvlm_probe.tuning.prompt_recipes import prompt_recipe, prompt_recipes
from medvlm_probe.tuning.prompt_tuning import EmbeddedViews, Schedule, Training
from medvlm_probe.tuning.tune_prompts import Material, tune_prompts
from medvlm_probe.tuning.views import Views
from medvlm_probe.zero_shot.predict import Task, zero_shot_scores
from medvlm_probe.zero_shot.prompts import load_prompts
from medvlm_probe.zero_shot.text_embeddings import label_directions
from medvlm_probe.zero_shot.tuned_prompts import FACTS_FILE, TENSORS_FILE, read_tuned_prompts


@pytest.fixture(scope="module")
def model() -> Any:
    return small_clip()


def prepared(model: Any, **changes: Any) -> tuple[Material, dict[str, Training]]:
    cohort = cohort_of(LABELS, single=False)
    vectors = torch.from_numpy(vectors_of(cohort, 2))
    options: dict[str, Any] = {
        "learner": prompt_learner(model, label_prompts(), ContextSettings(3, "side", "middle"), single_label=False),
        "labels": LABELS,
        "images": EmbeddedViews(np.arange(len(cohort)), vectors, vectors[0]),
        "keys": [f"key {name}" for name in cohort.table["image"]],
        "views": Views(2, "light"),
        "schedule": Schedule(epochs=2, batch_size=8, rate=0.1),
        "logit_scale": 12.0,
        "zero_shot": None,
        "facts": {"cohort": "mine", "recipe": "png/v1", "precision": "float32"},
    }
    pool = cohort.splits() == "train"
    trainings = {
        f"seed-{seed:02d}": Training(
            parse_losses("ls+smac+as"), draw_few_shot(cohort, pool, LABELS, shots=4, seed=seed), seed
        )
        for seed in range(2)
    }
    return Material(**(options | changes)), trainings


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_rerun_goes_on_to_the_same_bytes(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    material, trainings = prepared(model)
    tune_prompts(material, trainings, tmp_path / "whole")
    whole = files(tmp_path / "whole")
    assert set(whole) == {f"seed-0{k}/{name}" for k in (0, 1) for name in (TENSORS_FILE, FACTS_FILE, "prompt_card.md")}

    # Killed between two files: the JSON that completes the second draw was not written yet.
    tune_prompts(material, trainings, tmp_path / "killed")
    (tmp_path / "killed" / "seed-01" / FACTS_FILE).unlink()
    tune_prompts(material, trainings, tmp_path / "killed")
    assert files(tmp_path / "killed") == whole

    monkeypatch.setattr("medvlm_probe.tuning.tune_prompts.train_prompts", None)
    again = tune_prompts(material, trainings, tmp_path / "whole")
    assert list(again) == ["seed-00", "seed-01"]
    assert files(tmp_path / "whole") == whole


@pytest.mark.parametrize(
    "changes",
    [
        {"logit_scale": 13.0},
        {"schedule": Schedule(epochs=2, batch_size=8, rate=0.2)},
        {"views": Views(2, "light", seed=1)},
        {"keys": [f"other {row}" for row in range(120)]},
    ],
    ids=["logit scale", "rate", "views", "images"],
)
def test_other_settings_never_take_old_results(model: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    tune_prompts(*prepared(model), tmp_path)
    before = files(tmp_path)
    with pytest.raises(InputError, match="tuned with other settings or images"):
        tune_prompts(*prepared(model, **changes), tmp_path)
    assert files(tmp_path) == before


def test_prompts_come_back_and_give_the_directions_that_training_ended_with(model: Any, tmp_path: Path) -> None:
    material, trainings = prepared(model)
    tuned = tune_prompts(material, trainings, tmp_path)["seed-01"]
    found = load_prompts(f"tuned:{tmp_path / 'seed-01'}")
    assert found.tuned is not None
    assert found.tuned.context.tobytes() == tuned.context.tobytes()
    assert found.labels["edema"].positive == ("edema.",)
    assert found.labels["edema"].negative == ("no edema.",)
    features = material.learner.features(torch.from_numpy(tuned.context)[None])[0].numpy()
    directions = label_directions(model, found)
    assert directions.negative is not None
    np.testing.assert_allclose(directions.positive, features[:, 1], atol=1e-6)
    np.testing.assert_allclose(directions.negative, features[:, 0], atol=1e-6)
    one = label_directions(model, found.select(["fracture"]))
    np.testing.assert_array_equal(one.positive, directions.positive[1:])

    cohort = cohort_of(LABELS, single=False)
    vectors = vectors_of(cohort, 1)[0]
    scores = zero_shot_scores(vectors, cohort, model, Task(found, "logit"))
    difference = vectors @ (directions.positive - directions.negative).T
    np.testing.assert_allclose(scores.values, 12.0 * difference, atol=1e-4)


def test_the_folder_says_what_taught_the_prompts_and_no_path(model: Any, tmp_path: Path) -> None:
    material, trainings = prepared(model)
    tuned = tune_prompts(material, trainings, tmp_path)["seed-00"]
    few_shot = trainings["seed-00"].few_shot
    assert tuned.training_images == {material.keys[row] for row in few_shot.rows}
    assert tuned.about["labels_used"] == 16
    assert tuned.about["parameters"] == 2 * 3 * 32
    assert tuned.about["losses"][0] > 0
    card = (tmp_path / "seed-00" / "prompt_card.md").read_text()
    assert "ls+smac+as" in card
    assert "Not a medical device" in card
    assert str(tmp_path) not in card + (tmp_path / "seed-00" / FACTS_FILE).read_text()


def test_another_model_is_refused(model: Any, tmp_path: Path) -> None:
    tune_prompts(*prepared(model), tmp_path)
    other = replace(model, fingerprint="f" * 64)
    with pytest.raises(ModelError, match="were tuned for tiny"):
        label_directions(other, load_prompts(f"tuned:{tmp_path / 'seed-00'}"))


def test_damaged_and_absent_folders_say_so(model: Any, tmp_path: Path) -> None:
    tune_prompts(*prepared(model), tmp_path)
    with pytest.raises(InputError, match="name one: seed-00, seed-01"):
        load_prompts(f"tuned:{tmp_path}")
    with pytest.raises(InputError, match="is no folder of tuned prompts"):
        load_prompts(f"tuned:{tmp_path / 'nowhere'}")
    folder = tmp_path / "seed-00"
    facts, tensors = json.loads((folder / FACTS_FILE).read_text()), (folder / TENSORS_FILE).read_bytes()
    (folder / TENSORS_FILE).write_bytes((tmp_path / "seed-01" / TENSORS_FILE).read_bytes())
    with pytest.raises(ModelError, match="not the one"):
        read_tuned_prompts(folder)
    (folder / TENSORS_FILE).write_bytes(tensors)
    for change in ({"format": "x"}, {"context_of": [0, 0, 1]}, {"context_of": [0, 0, 1, 9]}, {"labels": [1, 2]}):
        (folder / FACTS_FILE).write_text(json.dumps(facts | change))
        with pytest.raises(ModelError, match="no whole tuned prompts"):
            read_tuned_prompts(folder)


def test_the_published_recipes() -> None:
    assert len(prompt_recipes()) == 10
    found = prompt_recipe("biomedclip-covidx")
    assert found.loss == "ls(alpha=0.1)+smac(alpha=0.1)+3.0*as"
    assert (found.context, found.shots, found.schedule) == (16, 8, Schedule())
    assert prompt_recipe("medclip-rsna18").schedule.warmup_rate == 1e-3
    for recipe in prompt_recipes().values():
        assert str(parse_losses(recipe.loss)).startswith("ls(")
