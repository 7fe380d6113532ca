"""The steps of `grad-cam`: choose images, embed them, make and measure the maps, write and print what was found."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm_probe.cli.output import Output
from medvlm_probe.errors import InputError

if TYPE_CHECKING:
    from medvlm_probe.cli.grad_cam_settings import AskedSetting, ScoredSetting
    from medvlm_probe.cli.steps import Compute, EmbeddedCohort
    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.cohort.regions import Regions
    from medvlm_probe.runs import RunFolder
    from medvlm_probe.saliency.comparable_scores import ComparableScores
    from medvlm_probe.saliency.heat_map_study import Chosen, LabelMaps, MapOptions, StudyImages
    from medvlm_probe.saliency.image_choice import Rows
    from medvlm_probe.types import BoolArray

SAMPLE, SAMPLE_UNASKED = 20, 4
"""Most images of each label where labels are named, and where all of them are looked at."""

DRAWN_UNASKED = 2
"""Panels are drawn for so many labels where none is named; the numbers are shown for all."""


@dataclass(frozen=True, eq=False)
class MapRequest:
    """What is asked for; `labels` empty asks for all that can be had."""

    cohort: Cohort
    regions: Regions | None
    model: str
    asked: tuple[AskedSetting, ...]
    prompts: str
    labels: tuple[str, ...]
    split: str | None
    train_from: str | None
    threshold_from: str | None
    sample: int | None
    reference: int
    options: MapOptions
    compute: Compute
    panels: int
    note: str | None = None

    @property
    def at_most(self) -> int:
        """Most images of each label."""
        return self.sample or (SAMPLE if self.labels else SAMPLE_UNASKED)


@dataclass(frozen=True, eq=False)
class Material:
    """The images that take part, embedded, and which of them do what; rows are those of `done.cohort`."""

    done: EmbeddedCohort
    images: StudyImages
    names: tuple[str, ...]
    rows_of: Mapping[str, Rows]
    chosen_on: Mapping[str, Rows]
    reference: BoolArray
    train: BoolArray


@dataclass(frozen=True, eq=False)
class MapResult:
    """What was found, for people, for machines and on disk."""

    material: Material
    settings: tuple[ScoredSetting, ...]
    scores: Mapping[tuple[str, str], ComparableScores]
    found: tuple[LabelMaps, ...]
    json: dict[str, Any]
    paths: list[Path]
    note: str


def run_maps(output: Output, request: MapRequest, run: RunFolder) -> MapResult:
    """Do all that `grad-cam` does but print.

    Raises:
        ProbeError: of the cohort, the model, the settings or the method.
    """
    from medvlm_probe.cli.grad_cam_files import write_maps
    from medvlm_probe.cli.grad_cam_settings import make_settings
    from medvlm_probe.cli.steps import write_quarantine
    from medvlm_probe.saliency.comparable_scores import comparable_scores
    from medvlm_probe.saliency.heat_map_study import study
    from medvlm_probe.saliency.heat_map_tables import label_json

    started = time.monotonic()
    material = _material(output, request)
    done = material.done
    settings = tuple(
        make_settings(
            output, request.asked, done, request.prompts, request.compute, material.train, request.options.seed
        )
    )
    known = {label for one in settings for label in one.setting.target.labels}
    missing = [label for label in material.rows_of if label not in known]
    rows_of = {label: rows for label, rows in material.rows_of.items() if label in known}
    if missing:
        output.warn(f"No setting knows {', '.join(missing)}: left out.")
    if not rows_of:
        raise InputError(f"No setting knows any of {', '.join(missing)}. Take other labels, or another --prompts.")
    scores = {
        (one.setting.name, label): comparable_scores(one.of(label), done.cohort.targets([label]), material.reference)
        for one in settings
        for label in rows_of
        if label in one.setting.target.labels
    }
    n_maps = sum(len(rows_of[label]) for _, label in scores)
    output.say(
        f"{_counted(n_maps, 'map')} by {request.options.method} for {_counted(len(rows_of), 'label')} in "
        f"{_counted(len(settings), 'setting')}, each with its controls ..."
    )
    mapping = time.monotonic()
    with output.progress("Maps") as progress:
        found = tuple(
            study(
                material.images,
                [one.setting for one in settings],
                rows_of,
                request.options,
                scores=scores,
                chosen=_choices(request, material, settings, rows_of),
                progress=lambda n, total: progress(n, total, time.monotonic() - mapping),
            )
        )
    seconds = {"maps": round(time.monotonic() - mapping, 3)}
    note = done.note if request.note is None else request.note
    by_setting = {one.setting.name: [e for e in found if e.setting == one.setting.name] for one in settings}
    json = {
        "labels": [label_json(entry) for entry in by_setting[settings[0].setting.name]],
        "settings": [
            {
                "setting": name,
                "labels": [label_json(entry) for entry in entries],
                "seen_in_training": next(one.seen.to_json() for one in settings if one.setting.name == name),
            }
            for name, entries in by_setting.items()
        ],
        "method": request.options.method,
        "regions": request.regions.source if request.regions is not None else None,
        "sampled_at_most": request.at_most,
    }
    result = MapResult(material, settings, scores, found, json, write_quarantine(run, done.embedded), note)
    result.paths.extend(write_maps(output, run.path, result, request))
    seconds["all"] = round(time.monotonic() - started, 3)
    facts = {"seeds": {"images and controls": request.options.seed}, "seconds": seconds, "layer": found[0].layer}
    counts = {"n_maps": n_maps, "n_reference": int(material.reference.sum())}
    run.write_provenance(done.provenance() | facts | counts)
    return result


def _material(output: Output, request: MapRequest) -> Material:
    import numpy as np

    from medvlm_probe.cli.steps import embed_cohort, evaluated_rows
    from medvlm_probe.saliency.heat_map_study import StudyImages
    from medvlm_probe.saliency.image_choice import choose_images, in_selection, reference_images
    from medvlm_probe.saliency.reader_sheet import pseudonyms

    cohort, seed = request.cohort, request.options.seed
    parts = {}
    for name, split in (("train", request.train_from), ("threshold", request.threshold_from)):
        parts[name] = evaluated_rows(cohort, request.split, split)
        parts[name].warn(output, cohort.group_kind)
    shown = np.flatnonzero(parts["train"].shown & parts["threshold"].shown)
    fitted_on = np.flatnonzero(parts["train"].chosen_on)
    tuned_on = np.flatnonzero(parts["threshold"].chosen_on)
    if request.train_from is not None and request.train_from == request.threshold_from:
        raise InputError(
            f"Split '{request.train_from}' is used for --train-from and --threshold-from. Name two splits."
        )
    labels = _labels(request)
    if len(cohort) == 1:
        chosen = {label: np.zeros(1, dtype=np.int64) for label in labels}
    else:
        within = choose_images(cohort.select(shown), labels, request.regions, request.at_most, seed)
        chosen = {label: shown[rows] for label, rows in within.items()}
    chosen_on = {}
    if len(tuned_on) and request.regions is not None:
        within = choose_images(cohort.select(tuned_on), labels, request.regions, request.at_most, seed)
        chosen_on = {label: tuned_on[rows] for label, rows in within.items()}
    reference = shown[reference_images(len(shown), request.reference, seed)]
    taking_part = [*chosen.values(), *chosen_on.values(), reference]
    taking_part += (
        [fitted_on] if any(one.folder is None and one.kind == "linear-probe" for one in request.asked) else []
    )
    needed = np.unique(np.concatenate(taking_part))
    done = embed_cohort(output, cohort.select(needed), request.model, request.compute)
    kept = needed[done.embedded.rows]
    rows_of = {label: rows for label, rows in in_selection(chosen, kept).items() if len(rows)}
    if not rows_of:
        raise InputError("None of the images chosen can be read. See quarantine.csv, or draw others with --seed.")
    return Material(
        done,
        StudyImages(done.cohort, request.regions),
        tuple(pseudonyms(done.embedded.keys)),
        rows_of,
        in_selection(chosen_on, kept),
        np.isin(kept, reference),
        np.isin(kept, fitted_on),
    )


def _labels(request: MapRequest) -> tuple[str, ...]:
    """Return the labels asked for; else the findings that have regions; else those that any image has."""
    from medvlm_probe.cohort.cohort import resolve_labels
    from medvlm_probe.metrics.baselines import NO_FINDING

    cohort = request.cohort
    if request.labels:
        return resolve_labels(cohort, request.labels)
    with_region = request.regions.labels if request.regions is not None else ()
    present = (cohort.targets() == 1).any(axis=0)
    named = [label for label in cohort.labels if label in with_region]
    named = named or [label for label, some in zip(cohort.labels, present, strict=True) if some or len(cohort) == 1]
    found = tuple(label for label in named if label != NO_FINDING)
    if not found:
        raise InputError(f"Cohort '{cohort.name}' has no image with a finding. Name labels with --label.")
    return found


def _choices(
    request: MapRequest, material: Material, settings: tuple[ScoredSetting, ...], rows_of: Mapping[str, Rows]
) -> dict[tuple[str, str], Chosen]:
    from medvlm_probe.saliency.heat_map_study import choose_on_split

    return {
        (one.setting.name, label): choose_on_split(
            material.images,
            one.setting,
            label,
            material.chosen_on[label],
            request.options,
            request.threshold_from or "",
        )
        for one in settings
        for label in rows_of
        if len(material.chosen_on.get(label, ())) and label in one.setting.target.labels
    }


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
