"""A cohort whose manifest and images lie in an object store: `s3://bucket/folder/manifest.csv`, a card, or a folder."""

from __future__ import annotations

from medvlm_probe.cohort.cohort import Cohort
from medvlm_probe.cohort.data_cards import CARD_FILE, MAX_CARD_BYTES, DataCard, parse_card
from medvlm_probe.cohort.images import recipe_for
from medvlm_probe.cohort.manifest import UncertaintyPolicy, read_manifest, refuse_several_labels
from medvlm_probe.cohort.manifest_columns import snake_case
from medvlm_probe.cohort.remote_images import RemoteImages
from medvlm_probe.cohort.storage import RemoteFile, RemoteFolder
from medvlm_probe.errors import DataCardError, InputError


def remote_cohort(address: str, uncertainty: UncertaintyPolicy | None, manifests: tuple[str, ...]) -> Cohort:
    """Return the cohort at an address; no image is fetched.

    Args:
        address: of a manifest (`.csv`, `.parquet`), whose folder's `DATA_CARD.md` is honoured, of a data card (`.md`),
            or of a folder that holds either.
        uncertainty: what -1 becomes; None takes the card's policy.
        manifests: what a folder's manifest may be called.

    Raises:
        UnknownNameError: a store that is not read.
        InputError, ManifestError, DataCardError: what was named cannot be read.
    """
    folder, name = _split(address)
    card = _card(folder, name, manifests)
    if card.importer != "manifest" or card.manifest is None:
        raise DataCardError(
            f"The card of '{card.name}' names no manifest. Of an object store, manifests and their images are read; "
            "write one with 'cohort import', and copy it there."
        )
    manifest = read_manifest(RemoteFile(folder, card.manifest), tuple(card.labels) or None)
    if card.task == "single_label":
        refuse_several_labels(manifest)
    images = tuple(manifest.table["image"])
    source = RemoteImages(folder.below(card.image_root), images, recipe=card.recipe or recipe_for(images))
    return Cohort(card.name, manifest.table, manifest.labels, uncertainty or card.uncertainty, source, card)


def _split(address: str) -> tuple[RemoteFolder, str]:
    """Return the folder, and the name of the file in it; "" where the address is that of a folder."""
    given = RemoteFolder(address)
    if not given.name.lower().endswith((".csv", ".parquet", ".md")):
        return given, ""
    return RemoteFolder(given.address.rpartition("/")[0]), given.name


def _card(folder: RemoteFolder, name: str, manifests: tuple[str, ...]) -> DataCard:
    if name.lower().endswith(".md"):
        return _read_card(RemoteFile(folder, name))
    beside = RemoteFile(folder, CARD_FILE)
    card = _read_card(beside) if beside.is_file() else None
    if not name:
        if card is not None:
            return card
        found = [each for each in manifests if RemoteFile(folder, each).is_file()]
        if not found:
            raise InputError(f"'{folder.address}' holds neither {CARD_FILE} nor {' nor '.join(manifests)}.")
        name = found[0]
    if card is not None and card.manifest in (None, name):
        return card.model_copy(update={"manifest": name, "importer": "manifest"})
    return DataCard(name=snake_case(folder.name) or "cohort", manifest=name)


def _read_card(file: RemoteFile) -> DataCard:
    if not file.is_file():
        raise DataCardError(f"There is no data card '{file}'. Check the address.")
    data = file.read_bytes()
    if len(data) > MAX_CARD_BYTES:
        raise DataCardError(f"'{file}' is larger than {MAX_CARD_BYTES:,} bytes, which is no data card.")
    try:
        return parse_card(data.decode("utf-8-sig"), file.name)
    except UnicodeDecodeError as error:
        raise DataCardError(f"Cannot read the data card '{file}' as UTF-8 text.") from error
