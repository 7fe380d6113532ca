"""From what a user names to a cohort: the phantom, a manifest, a data card, a folder, a published data set."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.data_cards import CARD_FILE, DataCard, read_card
from medvlm_probe.cohort.folders import folder_cohort
from medvlm_probe.cohort.images import FileImages, recipe_for
from medvlm_probe.cohort.importers.calibprompt_folder import prepared_card
from medvlm_probe.cohort.importers.published import ImportOptions, Published, no_rows
from medvlm_probe.cohort.manifest import UNCERTAINTY_POLICIES, UncertaintyPolicy, read_manifest, refuse_several_labels
from medvlm_probe.cohort.manifest_columns import snake_case
from medvlm_probe.cohort.phantom_source import phantom_cohort, phantom_options
from medvlm_probe.cohort.remote_cohort import remote_cohort
from medvlm_probe.cohort.split_files import read_splits
from medvlm_probe.cohort.splits import with_splits
from medvlm_probe.cohort.storage import is_address
from medvlm_probe.errors import DataCardError, InputError, unknown_name

MANIFEST_SUFFIXES = (".csv", ".parquet")
MANIFEST_FILES = ("manifest.csv", "manifest.parquet")


BOXES_FILE = "boxes.csv"


@dataclass(frozen=True)
class Request:
    """What an importer is asked for: the card, the folder that it lies in, the text after `NAME:`, and the options."""

    card: DataCard
    folder: Path
    argument: str
    uncertainty: UncertaintyPolicy
    image_root: Path | None
    options: ImportOptions


@dataclass(frozen=True, eq=False)
class Loaded:
    """A cohort with what its source says besides.

    Attributes:
        boxes: columns `published.BOX_COLUMNS`; None where there are none, or where they lie in a file.
        boxes_file: a manifest's `boxes.csv`, not read yet.
        skipped: what of the source was left out and why, columns `published.SKIPPED_COLUMNS`.
        notes: what people should know, a sentence each.
    """

    cohort: Cohort
    boxes: pd.DataFrame | None = None
    boxes_file: Path | None = None
    skipped: pd.DataFrame = field(default_factory=no_rows)
    notes: tuple[str, ...] = ()


def _from_phantom(request: Request) -> Loaded:
    if request.image_root is not None:
        raise InputError("The phantom cohort draws its images; leave the image folder out.")
    _no_labels_file(request)
    return Loaded(phantom_cohort(phantom_options(request.argument), request.card, request.uncertainty))


def _from_folder(request: Request) -> Loaded:
    given = Path(request.argument) if request.argument else request.folder / request.card.image_root
    labels_file = request.options.labels_file
    found = folder_cohort(request.image_root or given, request.card, request.uncertainty, labels_file)
    return Loaded(found.cohort, skipped=found.skipped, notes=found.notes)


def _from_calibprompt(request: Request) -> Loaded:
    folder = request.image_root or Path(request.argument)
    _no_labels_file(request)
    card = prepared_card(folder, request.card, shipped_cards())
    return Loaded(folder_cohort(folder, card, request.uncertainty).cohort)


def _from_manifest(request: Request) -> Loaded:
    card = request.card
    _no_labels_file(request)
    if card.manifest is None:
        raise DataCardError(
            f"Data card '{card.name}' names no manifest. Add the field 'manifest', a path beside the card."
        )
    path = request.folder / card.manifest
    manifest = read_manifest(path, tuple(card.labels) or None)
    if card.task == "single_label":
        refuse_several_labels(manifest)
    root = request.image_root or _inside(request.folder, card.image_root)
    cohort = Cohort(
        name=card.name,
        table=manifest.table,
        labels=manifest.labels,
        uncertainty=request.uncertainty,
        source=_files(root, tuple(manifest.table["image"]), card),
        card=card,
    )
    beside = path.parent / BOXES_FILE
    return Loaded(cohort, boxes_file=beside if beside.is_file() else None)


def _files(root: Path, images: tuple[str, ...], card: DataCard) -> FileImages:
    return FileImages(root, images, recipe=card.recipe or recipe_for(images))


def _published(module: str) -> Callable[[Request], Loaded]:
    """Return the reader of a published data set; its module is imported when it is first asked for."""

    def read(request: Request) -> Loaded:
        card = request.card
        if request.image_root is not None:
            raise InputError(f"'{card.name}' finds its images itself; leave the image folder out.")
        folder = Path(request.argument) if request.argument else request.folder / card.image_root
        if folder.is_file():
            raise InputError(
                f"'{folder}' is a file; '{card.importer}' reads a folder. Name the folder that it lies in."
            )
        if not folder.is_dir():
            raise InputError(f"There is no folder '{folder}' for '{card.importer}'. Check the path.")
        reader = importlib.import_module(f"medvlm_probe.cohort.importers.{module}")
        found: Published = reader.read(folder, request.options)
        if request.options.legacy_split:
            card = card.model_copy(
                update={"split": dict.fromkeys(("train", "test"), "as in published results; it leaks")}
            )
        cohort = Cohort(
            name=card.name,
            table=found.table,
            labels=found.labels,
            uncertainty=request.uncertainty,
            source=_files(found.image_root, tuple(found.table["image"]), card),
            card=card,
        )
        return Loaded(cohort, found.boxes, skipped=found.skipped, notes=found.notes)

    return read


PUBLISHED: dict[str, str] = {
    "iu_xray": "iu_xray",
    "nih_cxr14": "nih_cxr14",
    "chexpert": "chexpert",
    "mimic_cxr": "mimic_cxr",
    "padchest": "padchest",
    "vindr_cxr": "vindr_cxr",
    "rsna_pneumonia": "rsna_pneumonia",
    "covidx": "covidx",
    "rsna18": "rsna18",
    "kather_colon": "kather_colon",
    "pannuke": "pannuke",
    "digestpath": "digestpath",
    "dicom": "dicom_folder",
}
"""Published data sets: the name, and the module of `cohort.importers` whose `read` turns its folder into a manifest."""

LEGACY_SPLITS = ("covidx", "rsna18", "pannuke", "digestpath")
"""Published data sets with two splits: one of their own and, as `ImportOptions.legacy_split`, that of past results."""

IMPORTERS: dict[str, Callable[[Request], Loaded]] = {
    "phantom": _from_phantom,
    "generic_folder": _from_folder,
    "calibprompt": _from_calibprompt,
    "manifest": _from_manifest,
    **{name: _published(module) for name, module in PUBLISHED.items()},
}
"""How a card's files are read, by the card's field `importer`."""

OF_A_FOLDER = ("generic_folder", "calibprompt", *PUBLISHED)
"""Importers that are asked for as `NAME:FOLDER`."""

_NAMED_BY_FOLDER = ("generic_folder", "calibprompt", "dicom")
_NO_OPTIONS = ImportOptions()


def load_cohort(
    spec: str = "phantom",
    *,
    uncertainty: UncertaintyPolicy | None = None,
    split: str | None = None,
    image_root: Path | None = None,
    labels_file: Path | None = None,
    splits: Path | None = None,
) -> Cohort:
    """Return a cohort; no image is decoded.

    A published data set is read as it lies (`iu_xray:FOLDER`). What is left out of it then is told by
    `load_with_notes`, and by `medvlm-probe cohort import`, which writes a manifest.

    Args:
        spec: one of
            `phantom` or `phantom:OPTIONS` (see `phantom_source.phantom_options`);
            a manifest (`.csv`, `.parquet`), whose folder's `DATA_CARD.md` is honoured;
            a data card (`.md`);
            a folder: of a `DATA_CARD.md`, else of a `manifest.csv` or `manifest.parquet`, else of images;
            `generic_folder:FOLDER`, which takes the images and passes over cards and manifests;
            `NAME:FOLDER` for a published data set, NAME being a key of `PUBLISHED`;
            the address of a manifest, card or folder in an object store (`s3://bucket/manifest.csv`, see `storage`).
        uncertainty: what -1 becomes in `Cohort.targets`; None takes the card's policy, `ignore` without one.
        split: keep only this split.
        image_root: the folder that image paths start from; None takes the card's, else the manifest's own folder.
        labels_file: a CSV of labels made elsewhere, for data sets that take one; None takes the publisher's labels.
        splits: a split file that takes the place of the manifest's splits (see `split_files`); every image is hashed.

    Raises:
        UnknownNameError: a cohort, split, option or importer that does not exist.
        ManifestError, DataCardError, InputError: what was named cannot be read.
    """
    options = ImportOptions(labels_file=labels_file)
    cohort = load_with_notes(spec, options, uncertainty=uncertainty, image_root=image_root).cohort
    if splits is not None:
        cohort = with_splits(cohort, read_splits(splits))
    return cohort if split is None else cohort.select_split(split)


def load_with_notes(
    spec: str,
    options: ImportOptions = _NO_OPTIONS,
    *,
    uncertainty: UncertaintyPolicy | None = None,
    image_root: Path | None = None,
) -> Loaded:
    """Return a cohort as `load_cohort` does, with its boxes, what was left out of it, and notes; the same errors."""
    if uncertainty is not None and uncertainty not in UNCERTAINTY_POLICIES:
        raise unknown_name("uncertainty policy", uncertainty, UNCERTAINTY_POLICIES)
    if image_root is not None and not image_root.is_dir():
        raise InputError(f"There is no image folder '{image_root}'. Check the path.")
    if is_address(spec):
        if image_root is not None or options != _NO_OPTIONS:
            raise InputError("A cohort of an object store takes no options; its card says how it is read.")
        return Loaded(remote_cohort(spec, uncertainty, MANIFEST_FILES))
    card, folder, argument = _resolved(spec)
    if card.importer not in IMPORTERS:
        raise unknown_name("importer", card.importer, IMPORTERS)
    if options.legacy_split and card.importer not in LEGACY_SPLITS:
        raise InputError(f"'{card.name}' has no legacy split; those that have one: {', '.join(LEGACY_SPLITS)}.")
    return IMPORTERS[card.importer](
        Request(card, folder, argument, uncertainty or card.uncertainty, image_root, options)
    )


def card_of(spec: str) -> DataCard:
    """Return the data card of a spec as `load_cohort` takes it, without reading the cohort; the same errors.

    A shipped card that needs a folder can be had without one.
    """
    cards = shipped_cards()
    return read_card(cards[spec]) if spec in cards else _resolved(spec)[0]


def shipped_cards() -> dict[str, Path]:
    """Return the package's data cards by name: from inside it as a wheel has them, else beside it as the sources do."""
    package = Path(__file__).resolve().parents[1]
    folder = next((f for f in (package / "data_cards", package.parent / "data_cards") if f.is_dir()), None)
    if folder is None:
        raise DataCardError("The package's data cards are missing. Install medvlm-probe again.")
    return {path.stem: path for path in sorted(folder.glob("*.md"))}


def _resolved(spec: str) -> tuple[DataCard, Path, str]:
    """Return the card, the folder that its paths start from, and the text after `NAME:`."""
    name, _, argument = spec.partition(":")
    cards = shipped_cards()
    if name in cards:
        return _shipped(cards[name], argument)
    path = Path(spec)
    if path.suffix.lower() == ".md":
        return read_card(path), path.parent, ""
    if path.suffix.lower() in MANIFEST_SUFFIXES:
        return _manifest_card(path), path.parent, ""
    if path.is_dir():
        return _folder_card(path, cards)
    if path.suffix or len(path.parts) > 1:
        raise InputError(
            f"There is no cohort, file or folder '{spec}'. Give a manifest (.csv or .parquet), a data card (.md), a "
            f"folder, or one of: {', '.join(cards)}."
        )
    raise unknown_name("cohort", spec, cards)


def _shipped(path: Path, argument: str) -> tuple[DataCard, Path, str]:
    card = read_card(path)
    if card.importer in OF_A_FOLDER:
        if not argument:
            raise InputError(f"'{card.name}' needs a folder: {card.name}:FOLDER.")
        if card.importer in _NAMED_BY_FOLDER:
            card = card.model_copy(update={"name": _name_of(Path(argument))})
    elif argument and card.importer != "phantom":
        raise InputError(f"Cohort '{card.name}' takes nothing after the colon; '{argument}' was given.")
    return card, path.parent, argument


def _manifest_card(manifest: Path) -> DataCard:
    """Return the card beside a manifest where it speaks of this manifest, else a card that says nothing."""
    beside = manifest.parent / CARD_FILE
    if beside.is_file():
        card = read_card(beside)
        if card.manifest is None or (manifest.parent / card.manifest).resolve() == manifest.resolve():
            return card.model_copy(update={"manifest": manifest.name, "importer": "manifest"})
    return DataCard(name=_name_of(manifest.parent), manifest=manifest.name)


def _folder_card(folder: Path, cards: dict[str, Path]) -> tuple[DataCard, Path, str]:
    if (folder / CARD_FILE).is_file():
        return read_card(folder / CARD_FILE), folder, ""
    for name in MANIFEST_FILES:
        if (folder / name).is_file():
            return _manifest_card(folder / name), folder, ""
    return _shipped(cards["generic_folder"], str(folder))


def _no_labels_file(request: Request) -> None:
    if request.options.labels_file is not None:
        raise InputError(f"'{request.card.name}' takes no labels file: its labels are its own.")


def _name_of(folder: Path) -> str:
    return snake_case(folder.resolve().name) or "cohort"


def _inside(folder: Path, image_root: str) -> Path:
    root = (folder / image_root).resolve()
    if not root.is_relative_to(folder.resolve()):
        raise DataCardError(
            f"The card's image_root '{image_root}' leaves its folder. Give the folder as an option instead."
        )
    if not root.is_dir():
        raise DataCardError(f"The card's image_root '{image_root}' is no folder beside the card.")
    return root
