"""The steps of `tune`: draw and embed the few-shot images, tune, and see what the prompts are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medvlm_probe.cli.output import Output
    from medvlm_probe.cli.steps import Compute, EmbeddedCohort
    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.tuning.few_shot import FewShotSet
    from medvlm_probe.tuning.losses import LossMix
    from medvlm_probe.tuning.prompt_learner import ContextSettings, PromptLearner
    from medvlm_probe.tuning.prompt_tuning import EmbeddedViews, Schedule
    from medvlm_probe.tuning.roles import Roles
    from medvlm_probe.tuning.tune_prompts import Material
    from medvlm_probe.tuning.tuned_worth import Worth
    from medvlm_probe.tuning.views import Views
    from medvlm_probe.types import Scores
    from medvlm_probe.zero_shot.predict import Task
    from medvlm_probe.zero_shot.tuned_prompts import TunedPrompts


@dataclass(frozen=True)
class Asked:
    """What the options ask for."""

    shots: int
    validation_shots: int
    seeds: tuple[int, ...]
    context: ContextSettings
    views: Views
    schedule: Schedule
    logit_scale: float | None


@dataclass(frozen=True, eq=False)
class Prepared:
    """The images that have a part, embedded; rows of `few_shot` and of `roles` are those of `done.cohort`."""

    done: EmbeddedCohort
    roles: Roles
    few_shot: tuple[FewShotSet, ...]

    @property
    def keys(self) -> Sequence[str]:
        """The content key of each row."""
        return self.done.embedded.keys


def prepare(
    output: Output,
    loaded: Cohort,
    task: Task,
    model: str,
    compute: Compute,
    asked: Asked,
    train_from: str | None,
    split: str | None,
    *,
    fit_from: str | None = None,
    train_site: str | None = None,
    shots: Sequence[int] = (),
) -> Prepared:
    """Draw the few-shot sets, and embed their images and those shown.

    A drawn image that cannot be used, or whose content is shown, is left out of the pool, and the sets drawn again.

    Args:
        output: says what is done.
        loaded: all images.
        task: its labels are drawn for.
        model, compute: see `embed_cohort`.
        asked: how many images, and which seeds.
        train_from, split: see `assign_roles`.
        fit_from: a split for other fits, embedded too: the role `thresholds`.
        train_site: draw and fit on this site's images alone.
        shots: draw every seed's set of each of these sizes, in their order, in place of `asked.shots`.
    """
    import numpy as np

    from medvlm_probe.cli.steps import embed_cohort
    from medvlm_probe.errors import unknown_name
    from medvlm_probe.tuning.few_shot import draw_few_shot
    from medvlm_probe.tuning.roles import assign_roles

    roles = assign_roles(loaded, train_from=train_from, threshold_from=fit_from, split=split)
    at_site = np.ones(len(loaded), dtype=bool)
    if train_site is not None:
        at_site = loaded.sites() == train_site
        if not (roles.train & at_site).any():
            raise unknown_name("site to train on", train_site, sorted(set(loaded.sites()[roles.train].tolist())))
    pool = roles.train & at_site
    while True:
        drawn = [
            draw_few_shot(loaded, pool, task.labels, shots=size, seed=seed, validation_shots=asked.validation_shots)
            for size in shots or (asked.shots,)
            for seed in asked.seeds
        ]
        chosen = np.zeros(len(loaded), dtype=bool)
        for few_shot in drawn:
            chosen[few_shot.rows] = True
        needed = np.flatnonzero(chosen | roles.shown | (roles.thresholds & at_site))
        done = embed_cohort(output, loaded.select(needed), model, compute)
        of_rows = assign_roles(
            done.cohort, train_from=train_from, threshold_from=fit_from, split=split, keys=done.embedded.keys
        )
        usable = np.zeros(len(loaded), dtype=bool)
        usable[needed[done.embedded.rows[of_rows.train]]] = True
        if usable[chosen].all():
            break
        output.warn(f"{int((chosen & ~usable).sum()):,} drawn images cannot be used or are shown too; drawing again.")
        pool &= usable | ~chosen
    for note in dict.fromkeys((*roles.notes, *of_rows.notes)):
        output.warn(note)
    place = np.full(len(loaded), -1)
    place[needed[done.embedded.rows]] = np.arange(len(done.cohort))
    return Prepared(done, of_rows, tuple(few_shot.moved(place) for few_shot in drawn))


def tuned_prompts(
    output: Output, prepared: Prepared, task: Task, compute: Compute, asked: Asked, mix: LossMix, folder: Path
) -> tuple[dict[str, TunedPrompts], PromptLearner]:
    """Embed the views, and tune the prompts of every draw that do not lie in the folder yet."""
    from medvlm_probe.tuning.prompt_tuning import Training
    from medvlm_probe.tuning.tune_prompts import tune_prompts

    material = tuning_material(prepared, task, embedded_views(output, prepared, compute, asked), asked)
    trainings = {f"seed-{few_shot.seed:02d}": Training(mix, few_shot, few_shot.seed) for few_shot in prepared.few_shot}
    output.say(f"Tuning {len(trainings)} draws for {asked.schedule.epochs} epochs ...")
    return tune_prompts(material, trainings, folder), material.learner


def tuning_material(prepared: Prepared, task: Task, images: EmbeddedViews, asked: Asked) -> Material:
    """Return what trainings of the asked context and schedule share."""
    import torch

    from medvlm_probe.tuning.prompt_learner import prompt_learner
    from medvlm_probe.tuning.tune_prompts import Material
    from medvlm_probe.zero_shot.predict import NAMES
    from medvlm_probe.zero_shot.prompts import prompts_of_names
    from medvlm_probe.zero_shot.text_embeddings import label_directions

    done = prepared.done
    model, cohort = done.model, done.cohort
    single = cohort.card.task == "single_label"
    # Beside a learned context stands the bare name, not the card's sentence around it.
    words = {name: cohort.card.words(name) for name in task.labels}
    texts = prompts_of_names(words) if task.prompts.name == NAMES else task.prompts
    learner = prompt_learner(model, texts, asked.context, single_label=single)
    directions = label_directions(model, task.prompts)
    sides = [directions.positive] if directions.negative is None else [directions.negative, directions.positive]
    stacked = torch.stack([torch.from_numpy(side) for side in sides], dim=1)
    zero_shot = (stacked[:, -1] if single else stacked).to(learner.tokens.embeddings.device)
    return Material(
        learner=learner,
        labels=task.labels,
        images=images,
        keys=prepared.keys,
        views=asked.views,
        schedule=asked.schedule,
        logit_scale=asked.logit_scale or model.logit_scale,
        zero_shot=zero_shot,
        facts={
            "cohort": cohort.name,
            "recipe": cohort.source.recipe,
            "precision": done.embedded.precision,
            "train_from": prepared.roles.train_from,
        },
    )


def embedded_views(output: Output, prepared: Prepared, compute: Compute, asked: Asked) -> EmbeddedViews:
    """Return the views of all few-shot images, through the model once."""
    import numpy as np
    import torch

    from medvlm_probe.embeddings.precision import device_of
    from medvlm_probe.tuning.prompt_tuning import EmbeddedViews
    from medvlm_probe.tuning.views import embed_views
    from medvlm_probe.zero_shot.text_embeddings import unit_rows

    done = prepared.done
    rows = np.unique(np.concatenate([few_shot.rows for few_shot in prepared.few_shot]))
    clean = unit_rows(done.embedded.vectors[rows])
    views = clean[None]
    if asked.views.kind != "clean":
        with output.progress("Embedding views") as progress:
            found = embed_views(
                done.cohort.select(rows),
                done.model,
                asked.views,
                precision=done.embedded.precision,
                batch_size=compute.batch_size,
                workers=compute.workers,
                progress=progress,
            )
        views = np.stack([unit_rows(view) for view in found])
    device = device_of(done.model)
    return EmbeddedViews(rows, torch.from_numpy(views).to(device), torch.from_numpy(clean).to(device))


def worth_before_and_after(
    prepared: Prepared, task: Task, found: Mapping[str, TunedPrompts], asked: Asked
) -> dict[str, Worth]:
    """Return what the untuned prompts and each draw's are worth on the images shown."""
    from medvlm_probe.tuning.tuned_worth import worth_of
    from medvlm_probe.zero_shot.prompts import prompts_of_tuned
    from medvlm_probe.zero_shot.scores import prompt_scores
    from medvlm_probe.zero_shot.text_embeddings import label_directions

    done, shown = prepared.done, prepared.roles.shown
    cohort = done.cohort.select(shown)
    sets = {"zero-shot": task.prompts} | {name: prompts_of_tuned(tuned) for name, tuned in found.items()}

    def scores(name: str) -> Scores:
        return prompt_scores(
            done.embedded.vectors[shown],
            label_directions(done.model, sets[name]),
            kind=task.kind,
            logit_scale=asked.logit_scale or done.model.logit_scale,
            ids=cohort.table["image"].astype(str).tolist(),
        )

    return {name: worth_of(scores(name), cohort) for name in sets}
