"""Targets give the scores that the rest of the toolkit gives, and their controls mean nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_towers import open_clip_tower, pixels_for, tower

from medvlm_probe.errors import InputError, ModelError, UnknownNameError
from medvlm_probe.models.contract import VisionLanguageModel
from medvlm_probe.saliency.targets import NONSENSE, NONSENSE_LABEL, head_target, prompt_target
from medvlm_probe.tuning.heads import LinearHead
from medvlm_probe.zero_shot.prompts import LabelPrompts, PromptSet, prompts_of_tuned
from medvlm_probe.zero_shot.scores import prompt_scores
from medvlm_probe.zero_shot.text_embeddings import embed_texts, label_directions, unit_rows
from medvlm_probe.zero_shot.tuned_prompts import TunedPrompts, tuned_embeddings

LABELS = ("edema", "fracture")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VisionLanguageModel:
    monkeypatch.setenv("MEDVLM_PROBE_CACHE", str(tmp_path))
    return tower("open_clip ViT")


def prompts(*, negatives: bool = True) -> PromptSet:
    texts = {name: LabelPrompts((name, f"a {name}"), (f"no {name}",) if negatives else ()) for name in LABELS}
    return PromptSet("mine", "", "", texts)


def tuned_for(model: VisionLanguageModel, *, negatives: bool, contexts: int) -> TunedPrompts:
    n_texts = len(LABELS) * (1 + negatives)
    rng = np.random.default_rng(0)
    return TunedPrompts(
        labels=LABELS,
        positive=tuple(f"{name}." for name in LABELS),
        negative=tuple(f"no {name}." for name in LABELS) if negatives else (),
        context=rng.normal(scale=0.02, size=(contexts, 2, 16)).astype(np.float32),
        context_of=tuple(number % contexts for number in range(n_texts)),
        place="end",
        model_name=model.name,
        model_fingerprint=model.fingerprint,
        logit_scale=17.0,
    )


def embedded(model: VisionLanguageModel) -> torch.Tensor:
    with torch.no_grad():
        return model.encode_images(pixels_for(model, 4))


@pytest.mark.parametrize("scale", [None, 3.0])
def test_prompts_give_zero_shot_logits(model: VisionLanguageModel, scale: float | None) -> None:
    vectors = embedded(model)
    target = prompt_target(model, prompts(), logit_scale=scale)
    expected = prompt_scores(
        vectors.numpy(),
        label_directions(model, prompts()),
        kind="logit",
        logit_scale=scale or model.logit_scale,
        ids=list("abcd"),
    )
    assert target.labels == LABELS
    np.testing.assert_allclose(target.logits(vectors), expected.values, rtol=1e-4, atol=1e-4)


def test_without_negatives_a_logit_is_the_scaled_cosine(model: VisionLanguageModel) -> None:
    vectors = embedded(model)
    target = prompt_target(model, prompts(negatives=False))
    cosines = unit_rows(vectors.numpy()) @ label_directions(model, prompts(negatives=False)).positive.T
    np.testing.assert_allclose(target.logits(vectors), model.logit_scale * cosines, rtol=1e-4, atol=1e-4)
    nonsense = unit_rows(embed_texts(model, [NONSENSE[0]]))
    expected = model.logit_scale * unit_rows(vectors.numpy()) @ nonsense.T
    np.testing.assert_allclose(target.nonsense_target().logits(vectors), expected, rtol=1e-4, atol=1e-4)


def test_nonsense_has_the_prompts_own_form(model: VisionLanguageModel) -> None:
    vectors = embedded(model)
    nonsense = prompt_target(model, prompts()).nonsense_target()
    assert nonsense.labels == (NONSENSE_LABEL,)
    present, absent = unit_rows(embed_texts(model, list(NONSENSE)))
    expected = model.logit_scale * unit_rows(vectors.numpy()) @ (present - absent)
    np.testing.assert_allclose(nonsense.logits(vectors)[:, 0], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("negatives", "contexts"), [(True, 1), (True, 4), (False, 2)])
def test_tuned_prompts_take_their_context_and_scale(model: VisionLanguageModel, negatives: bool, contexts: int) -> None:
    tuned, vectors = tuned_for(model, negatives=negatives, contexts=contexts), embedded(model)
    target = prompt_target(model, prompts_of_tuned(tuned))
    directions = unit_rows(tuned_embeddings(model, tuned))
    difference = directions[:2] - (directions[2:] if negatives else 0)
    expected = 17 * unit_rows(vectors.numpy()) @ difference.T
    np.testing.assert_allclose(target.logits(vectors), expected, rtol=1e-3, atol=1e-4)
    plain = prompt_target(model, prompts(negatives=negatives), logit_scale=17.0).nonsense_target()
    assert not np.allclose(target.nonsense_target().logits(vectors), plain.logits(vectors), rtol=1e-3)


@pytest.mark.parametrize("space", ["raw", "l2"])
def test_heads_give_their_own_logits(model: VisionLanguageModel, space: str) -> None:
    rng = np.random.default_rng(0)
    head = LinearHead(LABELS, rng.normal(size=(2, 16)), rng.normal(size=2), space, "linear_probe", model.fingerprint)
    vectors = embedded(model)
    target = head_target(head, model)
    np.testing.assert_allclose(target.logits(vectors), head.logits(vectors.numpy()), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        target.select(["fracture"]).logits(vectors)[:, 0], head.logits(vectors.numpy())[:, 1], rtol=1e-4, atol=1e-5
    )
    assert target.nonsense_target().logits(vectors).shape == (4, 1)
    with pytest.raises(UnknownNameError, match=r"Unknown label 'edma'\. Did you mean edema"):
        target.select(["edma"])
    other = open_clip_tower({"image_size": 48, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8})
    with pytest.raises(ModelError, match="fitted on embeddings of another model"):
        head_target(head, other)
    assert head_target(replace(head, model_fingerprint=""), other).labels == LABELS


def test_prompts_with_half_their_negatives_are_refused(model: VisionLanguageModel) -> None:
    mixed = PromptSet("mine", "", "", {"edema": LabelPrompts(("edema",), ("no",)), "mass": LabelPrompts(("mass",))})
    with pytest.raises(InputError, match="no negative prompts for mass"):
        prompt_target(model, mixed)
