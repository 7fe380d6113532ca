"""Repair by CalibPrompt: prompts tuned on a few of the labelled images of each class, on the cached embeddings."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.audit.repair_bench import Answer, Bench, Draws, logistic
from medvlm_probe.audit.repair_scores import with_prevalence
from medvlm_probe.errors import InputError
from medvlm_probe.tuning.few_shot import FewShotSet, Problem

if TYPE_CHECKING:
    from medvlm_probe.tuning.prompt_learner import PromptLearner
    from medvlm_probe.tuning.prompt_tuning import EmbeddedViews
    from medvlm_probe.types import IntArray

RECIPE = "biomedclip-rsna18"
"""The published recipe of a chest radiograph model; nothing of it is chosen here."""

CLASSES = ("absent", "present")


def as_tuned(shots: int) -> Callable[[Bench, Draws], list[Answer]]:
    """Return the repair that takes the tuned prompts' probabilities as they are, as published."""

    def fit(bench: Bench, draws: Draws) -> list[Answer]:
        return [raw for raw, _ in _tuned(bench, shots, draws)]

    return fit


def at_site_prevalence(shots: int) -> Callable[[Bench, Draws], list[Answer]]:
    """Return the repair that moves them from the shots' share of positives to that of the images read."""

    def fit(bench: Bench, draws: Draws) -> list[Answer]:
        return [moved for _, moved in _tuned(bench, shots, draws)]

    return fit


def few_shots(
    rows: IntArray, taught: NDArray[np.float64], groups: IntArray, shots: int, labels: list[str]
) -> list[Problem]:
    """Return for each label the first `shots` images with and without it, each of another patient, as read.

    Args:
        rows: of the pool, in the order in which they are read.
        taught: 1, 0 or NaN of the pool, (m, L).
        groups: of the pool, (m,).
        shots: at most, of each class.
        labels: L names.
    """
    found = []
    for k, label in enumerate(labels):
        used: set[int] = set()
        chosen: list[int] = []
        left = {0: shots, 1: shots}
        for row in rows.tolist():
            value, group = taught[row, k], int(groups[row])
            if not np.isnan(value) and left[int(value)] and group not in used:
                left[int(value)] -= 1
                used.add(group)
                chosen.append(row)
        kept = np.array(sorted(chosen), dtype=np.int64)
        found.append(
            Problem(CLASSES, label, kept, taught[kept, k].astype(np.int64), int((~np.isnan(taught[rows, k])).sum()))
        )
    return found


def seconds_of_a_prompt_step(bench: Bench) -> float:
    """Return what one step of tuning takes here."""
    import torch

    learner = _learner(bench, list(bench.labels))
    context = learner.start(0)[None].to(learner.tokens.embeddings.device).requires_grad_()
    started = time.perf_counter()
    torch.autograd.backward(learner.features(context).square().sum())
    return time.perf_counter() - started


def steps_of(shots: int) -> int:
    """Return the steps of one training on so many shots of two classes."""
    from medvlm_probe.tuning.prompt_recipes import prompt_recipe

    schedule = prompt_recipe(RECIPE).schedule
    return schedule.epochs * max(1, 2 * shots // schedule.batch_size)


def _tuned(bench: Bench, shots: int, draws: Draws) -> list[tuple[Answer, Answer]]:
    """Return for each draw the answers of tuned prompts, as they are and at the prevalence of the images read.

    A label without either class in some draw is not tuned: it keeps the model's answer.

    Raises:
        InputError: there is no label that could be tuned.
    """
    from medvlm_probe.tuning.loss_mix import parse_losses
    from medvlm_probe.tuning.prompt_recipes import prompt_recipe
    from medvlm_probe.tuning.prompt_tuning import Training, train_prompts

    key = f"prompts {shots}"
    if key in bench.shared:
        kept: list[tuple[Answer, Answer]] = bench.shared[key]
        return kept
    problems = [few_shots(rows, bench.taught, bench.pool.groups, shots, list(bench.labels)) for rows in draws]
    whole = [k for k in range(len(bench.labels)) if all(drawn[k].count(0) and drawn[k].count(1) for drawn in problems)]
    if not whole:
        raise InputError("No label has images with and without it among those read.")
    labels = [bench.labels[k] for k in whole]
    recipe = prompt_recipe(RECIPE)
    learner = _learner(bench, labels)
    sets = []
    for seed, drawn in enumerate(problems):
        mine = tuple(drawn[k] for k in whole)
        nothing = np.zeros(0, dtype=np.int64)
        none = tuple(Problem(CLASSES, part.label, nothing, nothing, part.n_labelled) for part in mine)
        sets.append(FewShotSet(mine, none, tuple(labels), shots, 0, seed))
    images = _images(bench, learner, sets)
    scale = _scale(bench)
    trainings = [Training(parse_losses(recipe.loss), drawn, seed) for seed, drawn in enumerate(sets)]
    trained = train_prompts(learner, trainings, images, recipe.schedule, logit_scale=scale)
    found = []
    for rows, few_shot, result in zip(draws, sets, trained, strict=True):
        logits = _logits(bench, learner, result.context, scale)
        base = bench.as_it_is()
        raw, moved, called = base.p.copy(), base.p.copy(), base.called.copy()
        for place, k in enumerate(whole):
            p, problem = logistic(logits[:, place]), few_shot.train[place]
            known = bench.taught[rows, k]
            share = (np.nansum(known) + 0.5) / ((~np.isnan(known)).sum() + 1)
            raw[:, k], called[:, k] = p, p > 0.5
            moved[:, k] = with_prevalence(p, problem.count(1) / len(problem.rows), float(share))
        found.append((Answer(raw, called), Answer(moved, called)))
    bench.shared[key] = found
    return found


def _learner(bench: Bench, labels: list[str]) -> PromptLearner:
    from medvlm_probe.tuning.prompt_learner import ContextSettings, prompt_learner

    if bench.tools.model is None or bench.tools.prompts is None:
        raise InputError("A model and texts for presence and absence are needed.")
    prompts = bench.tools.prompts.select(labels)
    return prompt_learner(bench.tools.model, prompts, ContextSettings(), single_label=False)


def _scale(bench: Bench) -> float:
    return 1.0 if bench.tools.model is None else bench.tools.model.logit_scale


def _images(bench: Bench, learner: PromptLearner, sets: list[FewShotSet]) -> EmbeddedViews:
    import torch

    from medvlm_probe.tuning.prompt_tuning import EmbeddedViews
    from medvlm_probe.zero_shot.text_embeddings import unit_rows

    rows = np.unique(np.concatenate([drawn.rows for drawn in sets]))
    clean = torch.from_numpy(unit_rows(bench.pool.vectors[rows])).to(learner.tokens.embeddings.device)
    return EmbeddedViews(rows, clean[None], clean)


def _logits(bench: Bench, learner: PromptLearner, context: NDArray[np.float32], scale: float) -> NDArray[np.float64]:
    """Return the held-out images' logits by tuned prompts, present less absent, (n, L)."""
    import torch

    from medvlm_probe.zero_shot.text_embeddings import unit_rows

    with torch.no_grad():
        features = learner.features(torch.from_numpy(context)[None].to(learner.tokens.embeddings.device))[0]
    sides = features.cpu().double().numpy()
    units = unit_rows(bench.held_out.vectors).astype(np.float64)
    return np.asarray(scale * units @ (sides[:, 1] - sides[:, 0]).T)
