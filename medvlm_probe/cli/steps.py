"""The steps that commands share: load a cohort and a model, say what will happen, embed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import typer

from medvlm_probe.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from medvlm_probe.cli.output import Output
    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.embeddings.engines import Engine
    from medvlm_probe.embeddings.extract import Embedded
    from medvlm_probe.embeddings.seen import SeenInTraining
    from medvlm_probe.models.contract import VisionLanguageModel
    from medvlm_probe.runs import RunFolder
    from medvlm_probe.types import BoolArray


@dataclass(frozen=True)
class Compute:
    """How images go through a model, as given on the command line."""

    device: str
    precision: str
    batch_size: int | Literal["auto"]
    workers: int | None
    max_failures: int | float

    @classmethod
    def parse(cls, device: str, precision: str, batch_size: str, workers: int | None, max_failures: str) -> Compute:
        """Return the options with their numbers read. Raises InputError."""
        return cls(device, precision, parse_batch_size(batch_size), workers, parse_max_failures(max_failures))


@dataclass(frozen=True)
class EmbeddedCohort:
    """A cohort whose images went through a model; `cohort` holds the usable images, in the order of the vectors."""

    given: Cohort
    cohort: Cohort
    model: VisionLanguageModel
    embedded: Embedded
    seen: SeenInTraining

    @property
    def note(self) -> str:
        """The small print of every figure: what phantoms and phantom-clip are, and what was seen in training."""
        words = [self._not_medicine()]
        if self.seen.n_seen:
            words.append(f"{self.seen.n_seen:,} of {self.seen.n_images:,} images were seen in training.")
        elif self.seen.n_possible:
            words.append(f"{self.seen.n_possible:,} of {self.seen.n_images:,} images may have been seen in training.")
        return " ".join(filter(None, words))

    def _not_medicine(self) -> str:
        phantoms, phantom_clip = self.given.card.importer == "phantom", self.model.name == "phantom-clip"
        if phantoms:
            return f"Synthetic radiographs (phantoms) seen through {self.model.name}: not medicine."
        if phantom_clip:
            return "phantom-clip was trained on synthetic radiographs alone: its numbers on real ones mean nothing."
        return ""

    def provenance(self) -> dict[str, Any]:
        """Return the facts of `run.json` that every command with embeddings records."""
        done = self.embedded
        return {
            "model": {"name": self.model.name, "fingerprint": self.model.fingerprint},
            "cohort": {
                "name": self.given.name,
                "fingerprint": self.given.fingerprint,
                "recipe": self.given.source.recipe,
                "uncertainty": self.given.uncertainty,
                "group": self.given.group_kind,
            },
            "images": {
                "given": done.n_given,
                "used": done.n_used,
                "different": done.n_unique,
                "quarantined": len(done.quarantine),
                "computed_now": done.n_computed,
            },
            "seen_in_training": self.seen.to_json(),
            "device": done.device,
            "precision": done.precision,
            "min_cosine_to_float32": done.min_cosine,
            "batch_size": done.batch_size,
            "threads": done.threads,
            "workers": done.workers,
            "engine": done.engine,
            "model_workers": done.model_workers,
            "embed_seconds": dict(done.seconds),
        }


def parse_batch_size(text: str) -> int | Literal["auto"]:
    """Return the batch size, or `auto` as it is. Raises InputError."""
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) == 0:
        raise InputError(f"--batch-size {text}: expected a whole number of at least 1, or auto.")
    return int(text)


def parse_max_failures(text: str) -> int | float:
    """Return a count (int), or for text with a percent sign a share in [0, 1] (float). Raises InputError."""
    share = text.removesuffix("%")
    try:
        value = float(share) / 100 if share != text else int(text)
    except ValueError:
        value = -1
    if not 0 <= value <= (1 if isinstance(value, float) else value):
        raise InputError(f"--max-failures {text}: expected a count such as 10, or a share such as 5%.")
    return value


def embed_cohort(
    output: Output,
    cohort: Cohort,
    model_name: str,
    compute: Compute,
    engine: Engine | None = None,
    image_cache: Path | None = None,
) -> EmbeddedCohort:
    """Load the model, say what will be done, and return the cohort's embeddings, computing what the cache lacks.

    Images go through the model on `engine`; None: in this process. `image_cache` keeps them at the model's size.

    Raises:
        ProbeError: of the model, the images or the cache.
    """
    if len(cohort) == 0:
        raise InputError(f"Cohort '{cohort.name}' has no images. Check the manifest and --split.")
    output.say(f"Cohort {cohort.name}: {len(cohort):,} images. Loading {model_name} ...")
    from medvlm_probe.embeddings.engines import LocalEngine
    from medvlm_probe.embeddings.extract import embed
    from medvlm_probe.embeddings.image_cache import cached_images
    from medvlm_probe.embeddings.precision import device_of
    from medvlm_probe.embeddings.seen import seen_in_training
    from medvlm_probe.models.training_data import declared_training_data
    from medvlm_probe.models.zoo import load_model

    trained_on = declared_training_data(model_name)
    model = load_model(model_name, device=compute.device)
    output.say(
        f"Model {model.name}: {model.image_size} px, {model.embedding_dim} dimensions, on {device_of(model)}. "
        "What the cache holds is not computed again; the time left follows the first batch."
    )
    with output.progress("Embedding") as progress:
        embedded = embed(
            cohort if image_cache is None else replace(cohort, source=cached_images(cohort.source, model, image_cache)),
            model,
            precision=compute.precision,
            batch_size=compute.batch_size,
            workers=compute.workers,
            max_failures=compute.max_failures,
            progress=progress,
            engine=engine or LocalEngine(),
        )
    for note in embedded.notes:
        output.warn(note)
    if len(embedded.quarantine):
        reasons = embedded.quarantine["reason"].value_counts()
        listed = ", ".join(f"{reason} {count:,}" for reason, count in reasons.items())
        output.warn(f"{len(embedded.quarantine):,} of {embedded.n_given:,} images cannot be used ({listed}).")
    output.say(
        f"Embeddings: {embedded.n_used:,} used, {embedded.n_computed:,} computed now, on {embedded.device} in "
        f"{embedded.precision}, {embedded.seconds['total']:.1f} s."
    )
    used = cohort.select(embedded.rows)
    seen = seen_in_training(used, model.name, trained_on, embedded.keys)
    return EmbeddedCohort(cohort, used, model, embedded, seen)


@dataclass(frozen=True)
class EvaluatedRows:
    """Masks over a cohort: the images that results are shown for, and those that choices are made on.

    `n_left_out` images of the split that choices are made on take no part: their patient is among those shown.
    """

    shown: BoolArray
    chosen_on: BoolArray
    n_left_out: int = 0

    def warn(self, output: Output, kind: str) -> None:
        """Say how many images were left out, where there are some; `kind` is what a group is."""
        if self.n_left_out:
            output.warn(
                f"{self.n_left_out:,} images were not used for choices: their {kind} is among those shown. The splits "
                "share patients; 'cohort check' lists them."
            )


def evaluated_rows(cohort: Cohort, split: str | None, chosen_on: str | None) -> EvaluatedRows:
    """Return which images results are shown for: the named split, else all but those that choices are made on.

    Nothing is chosen on images whose patient is shown, whatever the splits say.

    Raises:
        UnknownNameError: no such split.
        InputError: both are the same split, the cohort has no splits, or nothing is left to show or to choose on.
    """
    import numpy as np

    from medvlm_probe.errors import unknown_name

    splits = cohort.splits()
    known = sorted(set(splits.tolist()) - {""})
    for name in (split, chosen_on):
        if name is not None and not known:
            raise InputError(f"Cohort '{cohort.name}' has no splits. Make some: medvlm-probe cohort split.")
        if name is not None and name not in known:
            raise unknown_name("split", name, known)
    if split is not None and split == chosen_on:
        raise InputError(f"Split '{split}' is both shown and used for choices. Name two different splits.")
    nothing = np.zeros(len(cohort), dtype=bool)
    choices = nothing if chosen_on is None else splits == chosen_on
    shown = ~choices if split is None else splits == split
    if not shown.any():
        raise InputError(f"All images are in split '{chosen_on}', so none is left to show results for.")
    groups = cohort.groups()
    leaking = choices & np.isin(groups, groups[shown])
    if chosen_on is not None and not (choices & ~leaking).any():
        raise InputError(
            f"Every {cohort.group_kind} of split '{chosen_on}' is among those shown, so nothing can be chosen on it. "
            "Make splits that share none: medvlm-probe cohort split."
        )
    return EvaluatedRows(shown, choices & ~leaking, int(leaking.sum()))


def largest_site(cohort: Cohort) -> str | None:
    """Return the site with most images (the first by name among equals), or None with fewer than two sites."""
    from collections import Counter

    counts = Counter(site for site in cohort.sites().tolist() if site)
    return min(counts, key=lambda site: (-counts[site], site)) if len(counts) > 1 else None


def write_quarantine(run: RunFolder, embedded: Embedded) -> list[Path]:
    """Write the table of images that cannot be used, where there are any; returns the files written."""
    from medvlm_probe.runs import write_csv

    path = run.path / "quarantine.csv"
    if not len(embedded.quarantine):
        path.unlink(missing_ok=True)
        return []
    write_csv(path, embedded.quarantine)
    return [path]


def resolved_config(context: typer.Context) -> dict[str, Any]:
    """Return what decides a command's results: its options less those that only say where and how to print them.

    A file that is given stands there by the sha256 of its bytes.
    """
    from pathlib import Path

    from medvlm_probe.runs import sha256_file

    presentation = {"out", "as_json", "quiet", "verbose", "no_color"}
    presentation |= {"workers", "engine", "address", "model_workers", "image_cache"}

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return sha256_file(value)
        return list(value) if isinstance(value, tuple | list) else value

    return {name: plain(value) for name, value in sorted(context.params.items()) if name not in presentation}
