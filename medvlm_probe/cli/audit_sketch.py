"""`audit --reference X.sketch`: what an audit is made of where a hospital sent its sketch instead of images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm_probe.errors import InputError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from medvlm_probe.audit.examine import Settings
    from medvlm_probe.audit.inputs import AuditInputs
    from medvlm_probe.audit.sketch_answers import AgainstSketch
    from medvlm_probe.audit.verdicts import Explanation
    from medvlm_probe.cli.output import Output
    from medvlm_probe.cli.steps import EmbeddedCohort
    from medvlm_probe.shift.sketch import Sketch
    from medvlm_probe.shift.sketch_plan import SketchPlan
    from medvlm_probe.types import ScoreKind, Scores
    from medvlm_probe.zero_shot.predict import Task

SUFFIX = ".sketch"
"""What the name of a reference ends in that is read as a sketch."""

NEED_IMAGES = ("reference_site", "reference_split", "ages_from", "reread")
"""Options that choose among the reference's images, or need them."""


@dataclass(frozen=True, eq=False)
class GivenSketch:
    """A sketch as it was given, and the sha256 of its file."""

    sketch: Sketch
    fingerprint: str

    def provenance(self) -> dict[str, Any]:
        """Return what `run.json` and the page say of it."""
        import math

        plan, images = self.sketch.plan, float(self.sketch.images[0])
        return {
            "sha256": self.fingerprint,
            "kind": self.sketch.kind,
            "patients": round(self.sketch.n_patients),
            "images": round(images) if math.isfinite(images) else None,
            "model": plan.model,
            "prompts": plan.prompts or None,
            "labels": len(plan.labels),
            "random_features": plan.features.n_features,
            "bandwidth": plan.features.bandwidth,
            "privacy": dict(self.sketch.privacy) or None,
        }


def given_sketch(options: Mapping[str, Any]) -> GivenSketch | None:
    """Return the sketch that the reference names; None where it names images.

    Args:
        options: of `audit`, by their names with underscores.

    Raises:
        InputError: it is no sketch, an option needs the reference's images, or the cohort is a sketch.
        StoreError: it cannot be read.
    """
    if options["cohort"].endswith(SUFFIX):
        raise InputError(
            "The audited cohort is read image by image: its subgroups and unusual images are not in a sketch. Two "
            "sketches are held against each other by 'sketch compare'."
        )
    if not options["reference"].endswith(SUFFIX):
        return None
    from medvlm_probe.audit.sketch_files import read_sketch
    from medvlm_probe.runs import sha256_file

    for name in NEED_IMAGES:
        if options[name] is not None:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option} needs the reference's images, and a sketch holds none. Leave {option} out.")
    path = Path(options["reference"])
    return GivenSketch(read_sketch(path), sha256_file(path))


@dataclass(frozen=True, eq=False)
class Case:
    """What is audited: both sides, how thoroughly, where the numbers come from, and the small print of figures."""

    inputs: AuditInputs
    settings: Settings
    provenance: dict[str, Any]
    note: str


def sketch_case(
    output: Output,
    here: EmbeddedCohort,
    given: GivenSketch,
    prompts: str,
    label: list[str] | None,
    explanations: Mapping[str, Explanation] | None,
    seed: int,
) -> Case:
    """Return an audit against a sketch; `explanations` are those of `audit.examine.Settings`.

    Raises:
        InputError: another model or other prompts than the sketch's, or a site of fewer than three patients.
        UnknownNameError: a label that the sketch does not have.
    """
    from medvlm_probe.audit.examine import Settings

    found = _against_sketch(output, here, given, prompts, label, seed)
    settings = Settings(
        logit_scale=here.model.logit_scale,
        seen=[f"New site: {here.seen.reason}"] if here.seen.n_seen or here.seen.n_possible else [],
        explanations=explanations,
        instead=found.instead(),
        counts=_counts(given, found.inputs),
    )
    return Case(found.inputs, settings, _provenance(here, given, found.inputs, prompts), here.note)


def _against_sketch(
    output: Output, here: EmbeddedCohort, given: GivenSketch, prompts: str, label: list[str] | None, seed: int
) -> AgainstSketch:
    """Return the site's images, and the sketch read by the same model and prompts."""
    from medvlm_probe.audit.cohort_sketch import patient_names, score_cohort, sketch_cohort
    from medvlm_probe.audit.reference_sketch import (
        refuse_other_model,
        site_of_images,
        sketched_inputs,
        sketched_side,
    )
    from medvlm_probe.audit.sketch_answers import AgainstSketch

    plan, vectors = given.sketch.plan, here.embedded.vectors
    task, described = _task(here, plan, prompts)
    refuse_other_model(plan, here.model, described)
    labels = _labels(plan, label)
    if not labels:
        output.warn("The sketch holds no labels: the data are audited, not the model.")
    scored = score_cohort(here.cohort, vectors, here.model, prompts if task else "none", plan.labels)
    names = patient_names(here.cohort, here.embedded.keys)
    site_sketch = sketch_cohort(plan, here.model, vectors, names, scored, chosen_here=False)
    scores = _scores(here, task, labels)
    kind: ScoreKind = scores.kind if scores is not None else "logit"
    reference = sketched_side(given.sketch, labels, kind, seed=seed)
    site = site_of_images(here.cohort, vectors, scores, labels, len(reference.side))
    return AgainstSketch(reference, site_sketch, sketched_inputs(reference, site, labels, seed=seed), scored.outliers)


def _provenance(here: EmbeddedCohort, given: GivenSketch, inputs: AuditInputs, prompts: str) -> dict[str, Any]:
    """Return the facts of the audit's `run.json` and page, without paths."""
    own = here.provenance()
    facts = {key: value for key, value in own.items() if key not in ("cohort", "images", "seen_in_training")}
    facts["site"] = {key: own[key] for key in ("cohort", "images", "seen_in_training")}
    kind = "An exported" if given.sketch.kind == "export" else "A working"
    facts["reference"] = f"{kind} sketch of {round(given.sketch.n_patients):,} patients"
    facts["reference_sketch"] = given.provenance()
    name = Path(prompts.replace("\\", "/")).name
    facts["prompts"] = {"set": name, "score": inputs.site.scores.kind} if inputs.site.scores is not None else None
    return facts | {"seed": inputs.seed}


def _counts(given: GivenSketch, inputs: AuditInputs) -> dict[str, int | str]:
    """Return how many images and people were looked at, as far as the sketch tells."""
    from medvlm_probe.audit.inputs import people

    told = given.provenance()
    images = {} if told["images"] is None else {"reference_images": told["images"]}
    return {
        "group": inputs.site.cohort.group_kind,
        **images,
        "reference_people": told["patients"],
        "compared_patients": len(inputs.reference),
        "chosen_on_patients": len(inputs.chosen_on),
        "site_images": len(inputs.site),
        "site_people": people(inputs.site.groups),
    }


def _task(here: EmbeddedCohort, plan: SketchPlan, prompts: str) -> tuple[Task | None, str]:
    """Return what is scored for the sketch's labels, and how its prompts are described; None without labels."""
    from medvlm_probe.audit.cohort_sketch import task_of, words_of_prompts

    if not plan.labels:
        return None, ""
    try:
        task = task_of(here.cohort, prompts, plan.labels)
    except InputError as error:
        raise InputError(f"The prompts do not fit the sketch's labels. {error}") from error
    return task, words_of_prompts(task)


def _labels(plan: SketchPlan, label: list[str] | None) -> tuple[str, ...]:
    from medvlm_probe.cohort.manifest_columns import snake_case

    if not label:
        return plan.labels
    chosen = list(dict.fromkeys(snake_case(name) for name in label))
    for name in chosen:
        if name not in plan.labels:
            raise unknown_name("label of the sketch", name, plan.labels)
    return tuple(chosen)


def _scores(here: EmbeddedCohort, task: Task | None, labels: tuple[str, ...]) -> Scores | None:
    """Return the site's scores of the labels audited; None without any."""
    from medvlm_probe.types import Scores
    from medvlm_probe.zero_shot.predict import zero_shot_scores

    if task is None:
        return None
    found = zero_shot_scores(here.embedded.vectors, here.cohort, here.model, task)
    columns = [task.labels.index(label) for label in labels]
    return Scores(found.values[:, columns], found.kind, labels, found.ids)
