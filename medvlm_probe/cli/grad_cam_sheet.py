"""`medvlm-probe grad-cam sample`: images for a radiologist to mark, with an empty annotation file and a key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medvlm_probe.cli.options import (
    DATA,
    CohortOption,
    JsonOption,
    LabelOption,
    NoColorOption,
    OutOption,
    QuietOption,
    SplitOption,
    SplitsOption,
    UncertaintyOption,
    VerboseOption,
)
from medvlm_probe.cli.output import Output, make_output
from medvlm_probe.errors import ImageError, InputError

if TYPE_CHECKING:
    from pathlib import Path

    import PIL.Image

    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.saliency.reader_sheet import Drawn

FOR_THE_READER = "for_the_reader"
SHEET_FILE, KEY_FILE, MANIFEST_FILE = "sheet.json", "key.csv", "manifest.csv"


def sample(
    context: typer.Context,
    n: Annotated[int, typer.Option("--n", min=1, help="How many images.", rich_help_panel=DATA)] = 15,
    stratify: Annotated[
        Literal["label", "none"],
        typer.Option(
            "--stratify", help="label: evenly over labels, images that have it; none: at random, all labels asked.",
            rich_help_panel=DATA,
        ),
    ] = "label",
    label: LabelOption = None,
    cohort: CohortOption = "phantom",
    split: SplitOption = None,
    splits: SplitsOption = None,
    uncertainty: UncertaintyOption = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the draw.", rich_help_panel=DATA)] = 0,
    out: OutOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
) -> None:  # fmt: skip
    """Draw images for a radiologist to mark: a sheet, the images, an empty annotation file, and how to fill it in.

    The folder OUT/for_the_reader holds patients' images under pseudonyms. OUT/key.csv tells whose they are, and stays.
    The filled file goes to 'grad-cam agree'.

    Example: medvlm-probe grad-cam sample --n 15 --stratify label --split test
    """
    from medvlm_probe.cli.steps import resolved_config
    from medvlm_probe.cohort.catalog import load_cohort
    from medvlm_probe.runs import open_run

    output = make_output(as_json=as_json, quiet=quiet, no_color=no_color)
    loaded = load_cohort(cohort, uncertainty=uncertainty, split=split, splits=splits)
    labels = asked_labels(loaded, label)
    drawn, images = _readable(output, loaded, labels, n, stratify == "label", seed)
    if len(drawn) < n:
        output.warn(f"Only {len(drawn)} different images can be drawn; {n} were asked for.")
    run = open_run("grad-cam-sample", resolved_config(context), out)
    if (run.path / MANIFEST_FILE).exists() and (run.path / FOR_THE_READER / "annotations.csv").exists():
        raise InputError(f"{run.path} holds a sheet already, perhaps a filled one. Name another folder with --out.")
    result, paths = _write(run.path, loaded, drawn, images, seed, stratify)
    run.write_provenance(
        {
            "cohort": {"name": loaded.name, "fingerprint": loaded.fingerprint, "recipe": loaded.source.recipe},
            "images": {"given": len(loaded), "used": len(drawn)},
            "seeds": {"draw": seed},
        }
    )
    if as_json:
        output.json(result)
    else:
        words = {name: loaded.card.words(name) for name in labels}
        counts = {name: sum(name in item.labels for item in drawn) for name in labels}
        output.table(
            f"{len(drawn)} images of {loaded.name} for a reader",
            ("Label", "Images that are asked about it"),
            [(words[name], str(count)) for name, count in counts.items() if count],
        )
        output.line(
            f"{run.path / FOR_THE_READER} holds patients' images: hand it over as you would the images themselves. "
            f"{KEY_FILE} tells whose they are, and stays here."
        )
        output.line(f"Afterwards: medvlm-probe grad-cam agree --sheet {run.path} --annotations FILLED.csv")
    output.wrote([*paths, run.path / "run.json"])


def asked_labels(cohort: Cohort, names: list[str] | None) -> tuple[str, ...]:
    """Return the named labels, else the findings of which the cohort has a positive. Raises InputError for none."""
    from medvlm_probe.cohort.cohort import resolve_labels
    from medvlm_probe.metrics.baselines import NO_FINDING

    if names:
        return resolve_labels(cohort, names)
    present = (cohort.targets() == 1).any(axis=0)
    found = tuple(name for name, some in zip(cohort.labels, present, strict=True) if some and name != NO_FINDING)
    if not found:
        raise InputError(f"Cohort '{cohort.name}' has no image with a finding. Name labels with --label.")
    return found


def _readable(
    output: Output, cohort: Cohort, labels: tuple[str, ...], n: int, stratify: bool, seed: int
) -> tuple[list[Drawn], dict[int, tuple[PIL.Image.Image, str]]]:
    """Return the images drawn and what was read of them, without copies and those that cannot be read."""
    import numpy as np

    from medvlm_probe.saliency.reader_sheet import Drawn, draw_images

    usable = np.ones(len(cohort), dtype=bool)
    images: dict[int, tuple[PIL.Image.Image, str]] = {}
    while True:
        rows = np.flatnonzero(usable)
        found = draw_images(cohort.select(usable), labels, n, stratify=stratify, seed=seed)
        drawn = [Drawn(int(rows[item.row]), item.labels) for item in found]
        seen: set[str] = set()
        for item in drawn:
            try:
                images[item.row] = images.get(item.row) or cohort.source.read_with_key(item.row)
            except ImageError as error:
                output.warn(f"An image cannot be used ({error.reason}); another one is drawn.")
                usable[item.row] = False
                continue
            usable[item.row] = images[item.row][1] not in seen
            seen.add(images[item.row][1])
        if all(usable[item.row] for item in drawn):
            return drawn, images


def _write(
    folder: Path,
    cohort: Cohort,
    drawn: list[Drawn],
    images: dict[int, tuple[PIL.Image.Image, str]],
    seed: int,
    stratify: str,
) -> tuple[dict[str, Any], list[Path]]:
    """Write the reader's folder, and beside it what scores the answers; returns the result and the files."""
    import io

    import numpy as np
    import pandas as pd

    from medvlm_probe.plots.reader_sheet import SheetPage, sheet_pdf
    from medvlm_probe.runs import write_bytes_atomically, write_csv, write_json
    from medvlm_probe.saliency.reader_sheet import INSTRUCTIONS, empty_annotations, pseudonyms

    rows = [item.row for item in drawn]
    names = dict(zip(rows, pseudonyms([images[row][1] for row in rows]), strict=True))
    phantoms = cohort.card.importer == "phantom"
    reader = folder / FOR_THE_READER
    pages = []
    for item in drawn:
        image = images[item.row][0]
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        write_bytes_atomically(reader / "images" / f"{names[item.row]}.png", buffer.getvalue())
        asked = ", ".join(cohort.card.words(label).lower() for label in item.labels)
        pages.append(SheetPage(names[item.row], np.asarray(image.convert("L")), f"Asked about: {asked}."))
    note = "A synthetic radiograph (phantom): not medicine." if phantoms else "This page holds a patient's image."
    files = {"sheet.pdf": sheet_pdf(pages, note=note), "instructions.txt": INSTRUCTIONS.encode()}
    for name, content in files.items():
        write_bytes_atomically(reader / name, content)
    write_csv(reader / "annotations.csv", empty_annotations(drawn, names))
    chosen = cohort.select(np.array(rows))
    key = chosen.table[[c for c in ("image", "patient", "study", "site", "view", "split") if c in chosen.table]]
    key = key.rename(columns={"image": "original_image"})
    key.insert(0, "image", [names[row] for row in rows])
    key["content_sha256"] = [images[row][1] for row in rows]
    write_csv(folder / KEY_FILE, key, exact=True)
    groups = chosen.groups()
    manifest = pd.DataFrame(
        {
            "image": [f"{FOR_THE_READER}/images/{names[row]}.png" for row in rows],
            "patient": [f"group-{group + 1}" for group in groups.tolist()],
            "site": chosen.sites(),
        }
    )
    labels = pd.DataFrame(chosen.targets(), columns=list(cohort.labels)).map(lambda v: "" if v != v else str(int(v)))
    write_csv(folder / MANIFEST_FILE, pd.concat([manifest, labels], axis=1), exact=True)
    result = {
        "cohort": cohort.name,
        "labels": {name: cohort.card.words(name) for name in cohort.labels},
        "same_as": list(cohort.card.same_as) or [cohort.card.name],
        "phantoms": phantoms,
        "stratify": stratify,
        "seed": seed,
        "asked": {names[item.row]: list(item.labels) for item in drawn},
    }
    write_json(folder / SHEET_FILE, result)
    beside = [folder / name for name in (KEY_FILE, MANIFEST_FILE, SHEET_FILE)]
    return result, [*(reader / name for name in (*files, "annotations.csv", "images")), *beside]
