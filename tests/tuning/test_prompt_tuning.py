"""Prompt tuning against a plain loop with autograd, one training at a time, and what may and may not change."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_prompts import CLASSES, LABELS, class_prompts, cohort_of, label_prompts, small_clip, vectors_of
from torch.nn import functional

from medvlm_probe.errors import InputError, ModelError
from medvlm_probe.tuning.few_shot import draw_few_shot
from medvlm_probe.tuning.losses import parse_losses
from medvlm_probe.tuning.prompt_learner import ContextSettings, prompt_learner
from medvlm_probe.tuning.prompt_tuning import EmbeddedViews, Schedule, Training, blocks, train_prompts
from medvlm_probe.zero_shot.prompts import LabelPrompts, PromptSet

SHORT = Schedule(epochs=4, batch_size=8, rate=0.5, warmup_rate=0.01)


@pytest.fixture(scope="module")
def model() -> Any:
    return small_clip()


def setting(model: Any, *, single: bool, **settings: Any) -> tuple[Any, Any, EmbeddedViews, Any]:
    names = CLASSES if single else LABELS
    cohort = cohort_of(names, single=single)
    vectors = torch.from_numpy(vectors_of(cohort, 3))
    images = EmbeddedViews(np.arange(len(cohort)), vectors, vectors[0])
    learner = prompt_learner(
        model, class_prompts() if single else label_prompts(), ContextSettings(**settings), single_label=single
    )

    def training(loss: str, seed: int, **draw: Any) -> Training:
        options = {"shots": 8, "seed": seed, **draw}
        return Training(parse_losses(loss), draw_few_shot(cohort, cohort.splits() == "train", names, **options), seed)

    return learner, training, images, cohort


def unit(x: torch.Tensor) -> torch.Tensor:
    return functional.normalize(x, dim=-1)


def smoothed_cross_entropy(logits: torch.Tensor, y: torch.Tensor, alpha: float) -> torch.Tensor:
    n_classes = logits.shape[1]
    target = torch.full_like(logits, alpha / (n_classes - 1))
    target[torch.arange(len(y)), y] = 1 - alpha
    return -(target * logits.log_softmax(1)).sum(1).mean()


def test_every_step_equals_a_plain_loop(model: Any) -> None:
    """LS + SMAC + 3 AS on three classes: prompts of whole texts, one image after the other, torch's own optimiser."""
    learner, training, images, _ = setting(model, single=True, n_context=4)
    run = training("ls+smac+3*as", seed=5)
    found = train_prompts(learner, [run], images, SHORT, logit_scale=20.0)[0]

    problem, alpha = run.few_shot.train[0], 0.05
    context = torch.tensor(np.random.default_rng([5, 0]).normal(0, 0.02, (1, 4, 32)), dtype=torch.float32)
    context.requires_grad_()
    optimizer = torch.optim.SGD([context], lr=1.0, momentum=0.9, weight_decay=5e-4)
    for epoch in range(4):
        optimizer.param_groups[0]["lr"] = 0.01 if epoch == 0 else 0.25 * (1 + math.cos(math.pi * (epoch - 1) / 4))
        rng = np.random.default_rng([5, 1, epoch])
        order, view = rng.permutation(24), rng.integers(3, size=24)
        epoch_losses = []
        for start in (0, 8, 16):
            chosen = order[start : start + 8]
            features = []
            for name in CLASSES:
                tokens = model.embed_tokens([f"{name}."], 4)
                features.append(unit(model.encode_prompts(tokens.with_context(context[0])))[0])
            t = torch.stack(features)
            x = torch.stack([images.views[view[i], problem.rows[i]] for i in chosen])
            y = torch.tensor(problem.truth[chosen])
            logits = 20.0 * x @ t.T
            frequency = torch.bincount(y, minlength=3) / 8
            wanted = (1 - alpha) * frequency + alpha * (1 - frequency) / 2
            smac = (logits.softmax(1).mean(0) - wanted).abs().mean()
            separation = torch.stack([t[0] @ t[1], t[0] @ t[2], t[1] @ t[2]]).mean()
            loss = smoothed_cross_entropy(logits, y, alpha) + smac + 3 * separation
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            epoch_losses.append(float(loss.detach()))
        assert found.losses[epoch] == pytest.approx(np.mean(epoch_losses), rel=1e-4)
    assert found.n_steps == 12
    np.testing.assert_allclose(found.context, context.detach().numpy(), atol=2e-5)


def test_several_labels_equal_a_plain_loop(model: Any) -> None:
    """Each label is a problem of its own images: two logits, its negative prompt's first."""
    learner, training, images, _ = setting(model, single=False, n_context=3, context_for="side")
    run = training("ce+smac(alpha=0.1)", seed=2)
    schedule = Schedule(epochs=3, batch_size=8, rate=0.3, warmup_epochs=0)
    found = train_prompts(learner, [run], images, schedule, logit_scale=10.0)[0]

    context = torch.tensor(np.random.default_rng([2, 0]).normal(0, 0.02, (2, 3, 32)), dtype=torch.float32)
    context.requires_grad_()
    optimizer = torch.optim.SGD([context], lr=1.0, momentum=0.9, weight_decay=5e-4)
    for epoch in range(3):
        optimizer.param_groups[0]["lr"] = 0.15 * (1 + math.cos(math.pi * epoch / 3))
        rng = np.random.default_rng([2, 1, epoch])
        drawn = [(rng.permutation(16), rng.integers(3, size=16)) for _ in LABELS]
        for start in (0, 8):
            entries, regularisers = [], []
            for label, problem, (order, view) in zip(LABELS, run.few_shot.train, drawn, strict=True):
                chosen = order[start : start + 8]
                t = torch.cat(
                    [
                        unit(model.encode_prompts(model.embed_tokens([text], 3).with_context(context[side])))
                        for side, text in ((1, f"no {label}."), (0, f"{label}."))
                    ]
                )
                x = torch.stack([images.views[view[i], problem.rows[i]] for i in chosen])
                y, logits = torch.tensor(problem.truth[chosen]), 10.0 * x @ t.T
                entries.append(functional.cross_entropy(logits, y))
                share = y.float().mean()
                wanted = torch.stack([0.9 * (1 - share) + 0.1 * share, 0.9 * share + 0.1 * (1 - share)])
                regularisers.append((logits.softmax(1).mean(0) - wanted).abs().mean())
            optimizer.zero_grad()
            (torch.stack(entries).mean() + torch.stack(regularisers).mean()).backward()
            optimizer.step()
    np.testing.assert_allclose(found.context, context.detach().numpy(), atol=2e-5)


@pytest.mark.parametrize(
    ("loss", "single"),
    [("ls+smac+as", True), ("ls+smac+as", False), ("zs-norm", True), ("fl+mdca", False), ("ce+penalty", False)],
)
def test_the_loss_falls_and_the_model_stays(model: Any, loss: str, single: bool) -> None:
    learner, training, images, _ = setting(model, single=single, n_context=4, context_for="text")
    before = {name: p.clone() for name, p in model.module.named_parameters()}
    with torch.no_grad():
        zero_shot = learner.features(torch.zeros(1, *learner.shape))[0]
    same_each_step = replace(images, views=images.views[:1])
    schedule = Schedule(epochs=12, batch_size=64, rate=0.2)
    found = train_prompts(learner, [training(loss, 0)], same_each_step, schedule, logit_scale=5.0, zero_shot=zero_shot)[
        0
    ]
    assert found.losses[-1] < found.losses[0] - 1e-3
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in model.module.named_parameters())


def test_together_equals_alone_and_repeats_to_the_bit(model: Any) -> None:
    learner, training, images, _ = setting(model, single=False, n_context=4, place="middle", context_for="text")
    runs = [training(loss, seed) for loss in ("ce", "ls+smac+as") for seed in (0, 1)]
    together, again = (train_prompts(learner, runs, images, SHORT, logit_scale=20.0) for _ in range(2))
    for run, one, other in zip(runs, together, again, strict=True):
        assert one.context.tobytes() == other.context.tobytes()
        alone = train_prompts(learner, [run], images, SHORT, logit_scale=20.0)[0]
        np.testing.assert_allclose(one.context, alone.context, atol=2e-5)
    assert not np.allclose(together[0].context, together[1].context)


def test_blocks_hold_trainings_of_equal_length(model: Any) -> None:
    learner, training, _, _ = setting(model, single=True)
    runs = [training("ce", 0), training("ce", 1), training("ce", 2, shots=3)] + [training("ce", s) for s in range(22)]
    assert [len(block) for block in blocks(learner, runs, Schedule(batch_size=8))] == [2, 1, 21, 1]


def test_validation_keeps_the_best_epoch_and_labels_without_shots_are_passed_over(model: Any) -> None:
    learner, training, images, _ = setting(model, single=False, n_context=2)
    run = training("ce", 0, validation_shots=4)
    schedule = Schedule(epochs=6, batch_size=16, rate=30.0, warmup_epochs=0)
    found = train_prompts(learner, [run], images, schedule, logit_scale=20.0)[0]
    assert len(found.validation) == 6
    assert found.kept_epoch == 1 + int(np.argmin(found.validation))
    until = train_prompts(learner, [training("ce", 0)], images, schedule, logit_scale=20.0)[0]
    assert until.kept_epoch == 6
    assert until.losses == found.losses


def test_the_schedule_is_the_published_one() -> None:
    rates = [Schedule().rate_at(epoch) for epoch in range(50)]
    assert rates[:2] == [1e-5, 0.002]
    assert sum(rates) == pytest.approx(0.051, abs=5e-5)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[1:]))
    # As torch steps it: constant first, then cosine annealing from the full rate.
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.002)
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)
    for rate in rates[1:]:
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        annealing.step()


def test_words_begin_the_context(model: Any) -> None:
    learner, _, _, _ = setting(model, single=True, words="a chest radiograph of")
    start = learner.start(seed=3)
    assert start.shape == (1, 5, 32)  # CLIP's tokenizer takes "radiograph" apart
    features = learner.features(start[None])[0]
    texts = unit(model.encode_texts([f"a chest radiograph of {name}." for name in CLASSES]))
    torch.testing.assert_close(features, texts, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_learned_is_refused(model: Any) -> None:
    with pytest.raises(InputError, match="no texts for absence"):
        prompt_learner(model, class_prompts(), ContextSettings(), single_label=False)
    with pytest.raises(InputError, match="there are no sides"):
        prompt_learner(model, class_prompts(), ContextSettings(context_for="side"), single_label=True)
    with pytest.raises(InputError, match="65 context vectors"):
        ContextSettings(65)
    with pytest.raises(InputError, match="has 5 tokens for 16 context vectors"):
        prompt_learner(model, class_prompts(), ContextSettings(16, words="a chest radiograph of"), single_label=True)
    wordy = PromptSet("wordy", "", "", {"covid": LabelPrompts(("covid" + " and more" * 40,))})
    with pytest.raises(ModelError, match="no text is cut"):
        prompt_learner(model, wordy, ContextSettings(), single_label=True)
    learner, training, images, _ = setting(model, single=True, n_context=2)
    with pytest.raises(InputError, match="is not finite in epoch"):
        train_prompts(learner, [training("ce", 0)], images, Schedule(rate=1e36), logit_scale=20.0)
    with pytest.raises(InputError, match="needs zero-shot logits"):
        train_prompts(learner, [training("zs-norm", 0)], images, SHORT, logit_scale=20.0)
    with pytest.raises(InputError, match="expected at least 1"):
        Schedule(epochs=0)
