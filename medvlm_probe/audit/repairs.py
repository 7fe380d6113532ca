"""The registry of repairs: what each is called, what fits it, how many labelled images it is given, what it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from medvlm_probe.audit import repair_fine_tune, repair_probes, repair_prompts, repair_scores
from medvlm_probe.audit.repair_bench import Answer, Bench, Draws, Tools

Fit = Callable[[Bench, Draws], list[Answer]]
Family = Literal["scores", "probe", "prompts", "tower"]

FAMILIES: Mapping[Family, str] = {
    "scores": "The model's scores, corrected",
    "probe": "A linear probe on its embeddings",
    "prompts": "Its prompts, tuned (CalibPrompt)",
    "tower": "Its last block, fine-tuned",
}
SIZES = (25, 50, 100, 200, 400)
"""Images of the site that are labelled; those above what the site has are left out, and all that it has are added."""

SHOTS: Mapping[int, int] = {8: 100, 16: 200, 32: 400}
"""Shots of each class to the labelled images that they are taken from, at most: a reader must find them first."""

FINE_TUNED = (100, 400)

_ASK = "ask for it with --fine-tune"


@dataclass(frozen=True)
class Remedy:
    """One repair.

    Attributes:
        words: as people read it.
        family: what it changes.
        fit: from draws of labelled images to what it says of the held-out ones, an answer a draw.
        sizes: labelled images of a draw; empty needs no label of the site.
        draws: how many different sets of labelled images.
        missing: why it cannot be fitted with these tools, "" where it can.
        unit: measures what a unit of it takes in seconds; None for what takes next to nothing.
        units: of one draw, from the labelled images and the held-out ones.
    """

    words: str
    family: Family
    fit: Fit
    sizes: tuple[int, ...] = SIZES
    draws: int = 5
    missing: Callable[[Tools], str] = lambda tools: ""
    unit: Callable[[Bench], float] | None = None
    units: Callable[[int, int], float] = lambda n, n_held_out: 1.0


def _no_prompts(tools: Tools) -> str:
    if not tools.train:
        return _ASK
    if tools.model is None or tools.prompts is None or tools.prompts.tuned is not None:
        return "it needs a model and plain texts as prompts"
    return "" if tools.prompts.has_negatives else "it needs prompts for absence too"


def _no_copies(tools: Tools) -> str:
    return "" if tools.augmented is not None else "transformed images of the reference come with --why"


def _no_training(tools: Tools) -> str:
    return "" if tools.train and tools.model is not None else _ASK


def _prompts(shots: int, words: str, fit: Fit, unit: Callable[[Bench], float] | None) -> Remedy:
    steps = float(repair_prompts.steps_of(shots))
    return Remedy(
        words.format(shots),
        "prompts",
        fit,
        (SHOTS[shots],),
        3,
        _no_prompts,
        unit,
        lambda n, n_held_out: steps,
    )


_PROBE, _STEP = repair_probes.seconds_of_a_probe, repair_prompts.seconds_of_a_prompt_step

REMEDIES: Mapping[str, Remedy] = {
    "label shift": Remedy("probabilities for the estimated frequencies", "scores", repair_scores.label_shift, ()),
    "alignment": Remedy("embeddings aligned in mean and covariance", "scores", repair_scores.alignment, ()),
    "temperature": Remedy("one temperature", "scores", repair_scores.temperature),
    "platt": Remedy("a logistic curve for each label", "scores", repair_scores.platt),
    "thresholds": Remedy("thresholds chosen anew", "scores", repair_scores.thresholds),
    "reference probe": Remedy(
        "a linear probe on the reference's labels", "probe", repair_probes.reference_alone, (), unit=_PROBE
    ),
    "reference probe, augmented": Remedy(
        "a linear probe on the reference's labels, its images in other acquisitions too",
        "probe",
        repair_probes.augmented_reference,
        (),
        missing=_no_copies,
        unit=_PROBE,
    ),
    "site probe": Remedy("a linear probe on the site's labels alone", "probe", repair_probes.site_alone, unit=_PROBE),
    "linear probe": Remedy(
        "a linear probe on the reference's and the site's labels",
        "probe",
        repair_probes.reference_and_site,
        unit=_PROBE,
    ),
    "linear probe, augmented": Remedy(
        "a linear probe on the reference's and the site's labels, the reference in other acquisitions too",
        "probe",
        repair_probes.augmented_both,
        missing=_no_copies,
        unit=_PROBE,
        units=lambda n, n_held_out: 1.5,
    ),
    **{
        f"prompts {k}": _prompts(k, "CalibPrompt on {} shots, as tuned", repair_prompts.as_tuned(k), _STEP)
        for k in SHOTS
    },
    # The same training: it takes no time of its own.
    **{
        f"prompts {k}, prevalence": _prompts(
            k, "CalibPrompt on {} shots, moved to the site's frequencies", repair_prompts.at_site_prevalence(k), None
        )
        for k in SHOTS
    },
    "last block": Remedy(
        "the last block fine-tuned on the site's labels",
        "tower",
        repair_fine_tune.last_block,
        FINE_TUNED,
        2,
        _no_training,
        repair_fine_tune.seconds_of_a_pass,
        repair_fine_tune.passes_of,
    ),
    "last block, augmented": Remedy(
        "the last block fine-tuned on the site's labels, its images in other acquisitions too",
        "tower",
        repair_fine_tune.last_block_augmented,
        FINE_TUNED,
        2,
        _no_training,
        repair_fine_tune.seconds_of_a_pass,
        repair_fine_tune.passes_with_copies,
    ),
}
"""Every repair, in the order in which they are shown."""
