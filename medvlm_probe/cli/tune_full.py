"""`medvlm-probe tune --regime full`: tune every weight of a model on few-shot sets, and show what that is worth."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medvlm_probe.errors import InputError

if TYPE_CHECKING:
    import typer

    from medvlm_probe.cli.output import Output
    from medvlm_probe.cli.steps import Compute, EmbeddedCohort
    from medvlm_probe.cli.tune_steps import Asked, Prepared
    from medvlm_probe.runs import RunFolder
    from medvlm_probe.tuning.full_fine_tuning import FullSettings
    from medvlm_probe.tuning.losses import LossMix
    from medvlm_probe.tuning.tuned_worth import Worth
    from medvlm_probe.types import FloatArray
    from medvlm_probe.zero_shot.predict import Task

OF_PROMPTS = {
    "n_context": "--context",
    "context_for": "--context-for",
    "words": "--words",
    "place": "--place",
    "recipe": "--recipe",
}
"""Options that have no meaning where no context is learned."""


def tune_and_show(
    output: Output,
    prepared: Prepared,
    task: Task,
    model: str,
    compute: Compute,
    asked: Asked,
    mix: LossMix,
    settings: FullSettings,
    run: RunFolder,
) -> None:
    """Tune every draw's model, write what they are worth, and print it."""
    from medvlm_probe.cli.steps import write_quarantine
    from medvlm_probe.cli.tune import loss_table, print_worth
    from medvlm_probe.runs import write_csv, write_json

    done, schedule = prepared.done, settings.schedule
    output.say(
        f"Training every weight of {done.model.name} on {len(prepared.few_shot)} draws: '{mix}', {settings.optimizer} "
        f"at rate {schedule.rate:g}, {schedule.epochs} epochs. A draw cut off begins anew; whole ones are kept."
    )
    for name, count in prepared.few_shot[0].short.items():
        output.warn(f"{name}: {count} images of different patients, {asked.shots} asked for.")
    found = fully_tuned_draws(output, prepared, task, model, compute, asked, mix, settings, run)
    first = next(iter(found.facts.values()))
    result = {
        "regime": "full",
        "loss": str(mix),
        "logit_scale": first["logit_scale"],
        "optimizer": settings.optimizer,
        "rate": schedule.rate,
        "shots": asked.shots,
        "views": asked.views.words,
        "labels": list(task.labels),
        "labels_used": first["labels_used"],
        "parameters": first["parameters"],
        "roles": prepared.roles.to_json(),
        "zero_shot": found.worth["zero-shot"].to_json(),
        "draws": found.to_json(),
        "seen_in_training": done.seen.to_json(),
    }
    paths = write_quarantine(run, done.embedded)
    for few_shot in prepared.few_shot:
        paths.append(run.path / "few_shot" / f"seed-{few_shot.seed:02d}.json")
        write_json(paths[-1], few_shot.to_json(prepared.keys))
    write_csv(run.path / "losses.csv", loss_table(found.facts, "model"))
    write_json(run.path / "tune.json", result)
    paths += [run.path / "losses.csv", run.path / "tune.json"]
    seeds = {"draws": list(found.facts)}
    about = {"tuning_seconds": round(found.seconds, 3), "roles": result["roles"], "seeds": seeds}
    run.write_provenance(done.provenance() | about)
    if output.as_json:
        output.json(result)
    else:
        title = f"All weights of {done.model.name} tuned with '{mix}' at rate {schedule.rate:g}, {asked.shots} shots"
        print_worth(output, found.worth, title=f"{title} a class", what="Model")
        moved = max(facts["weight_change"] for facts in found.facts.values())
        output.line(
            f"Each draw used {result['labels_used']:,} labels and trained {result['parameters']:,} numbers. They moved "
            f"by at most {moved:.2g} of their length; image embeddings keep a mean cosine of at least "
            f"{min(found.image_cosine.values()):.6f} to the untuned model's in {done.embedded.precision}. Draws share "
            "the images shown, so their spread is that of few-shot sets alone."
        )
        if done.note:
            output.line(done.note)
    output.wrote([*paths, *(run.path / name for name in found.facts), run.path / "run.json"])


@dataclass(frozen=True, eq=False)
class FullyTunedDraws:
    """What the draws gave, by name.

    Attributes:
        facts: of each model, as its folder has them.
        worth: before, under `zero-shot`, and of each draw.
        image_cosine: mean cosine between the shown images' embeddings before and after, 1 for no change.
        seconds: of training.
    """

    facts: Mapping[str, Mapping[str, Any]]
    worth: Mapping[str, Worth]
    image_cosine: Mapping[str, float]
    seconds: float

    def to_json(self) -> list[dict[str, Any]]:
        """Return the draws."""
        return [
            {
                "model": name,
                "kept_epoch": facts["kept_epoch"],
                "steps": facts["steps"],
                "weight_change": facts["weight_change"],
                "image_cosine_to_base": round(self.image_cosine[name], 6),
            }
            | self.worth[name].to_json()
            for name, facts in self.facts.items()
        ]


def refuse_options_of_prompts(context: typer.Context) -> None:
    """Refuse options that a full fine-tuning would pass over in silence."""
    for name, option in OF_PROMPTS.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            raise InputError(f"{option} is for prompts. With --regime full the texts stay plain; leave it out.")


def fully_tuned_draws(
    output: Output,
    prepared: Prepared,
    task: Task,
    model: str,
    compute: Compute,
    asked: Asked,
    mix: LossMix,
    settings: FullSettings,
    run: RunFolder,
) -> FullyTunedDraws:
    """Tune the draws whose models do not lie in the run's folder yet, and score the images shown by each."""
    from medvlm_probe.cli.tune_steps import worth_before_and_after
    from medvlm_probe.tuning.full_folder import FullMaterial, make_fully_tuned
    from medvlm_probe.tuning.make_tuned import base_of
    from medvlm_probe.tuning.prompt_tuning import Training

    done = prepared.done
    material = FullMaterial(
        done.model, base_of(model), task.prompts, done.cohort, prepared.keys, prepared.roles.train_from, settings
    )
    facts, cosines = {}, {}
    worth, seconds = worth_before_and_after(prepared, task, {}, asked), 0.0
    for few_shot in prepared.few_shot:
        name, started = f"seed-{few_shot.seed:02d}", time.monotonic()
        with output.progress(f"Training {name}") as bar:

            def progress(n_done: int, n_all: int, since: float = started, show: Any = bar) -> None:
                show(n_done, n_all, time.monotonic() - since)

            training = Training(mix, few_shot, few_shot.seed)
            facts[name] = make_fully_tuned(run.path / name, material, training, progress=progress)
        seconds += time.monotonic() - started
        worth[name], cosines[name] = _shown_by(output, prepared, task, f"local:{run.path / name}", compute)
    return FullyTunedDraws(facts, worth, cosines, seconds)


def _shown_by(output: Output, prepared: Prepared, task: Task, model: str, compute: Compute) -> tuple[Worth, float]:
    """Return what a tuned model's scores are worth, and how near its image embeddings are to the base's."""
    from medvlm_probe.cli.steps import embed_cohort
    from medvlm_probe.tuning.tuned_worth import worth_of
    from medvlm_probe.zero_shot.predict import zero_shot_scores

    shown = prepared.roles.shown
    after: EmbeddedCohort = embed_cohort(output, prepared.done.cohort.select(shown), model, compute)
    if after.embedded.n_used != int(shown.sum()):
        raise InputError(
            f"{int(shown.sum()) - after.embedded.n_used} images that the base can embed give no numbers after "
            "training. Lower --rate."
        )
    scores = zero_shot_scores(after.embedded.vectors, after.cohort, after.model, task)
    cosine = _mean_cosine(prepared.done.embedded.vectors[shown], after.embedded.vectors)
    return worth_of(scores, after.cohort), cosine


def _mean_cosine(before: FloatArray, after: FloatArray) -> float:
    from medvlm_probe.zero_shot.text_embeddings import unit_rows

    return float((unit_rows(before) * unit_rows(after)).sum(axis=1).mean())
