"""Data sets as CalibPrompt's scripts leave them: class folders of a known data set, with that data set's card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medvlm_probe.cohort.data_cards import DataCard, read_card
from medvlm_probe.errors import ManifestError

DATA_SETS = {
    "covid": "covidx",
    "rsna18": "rsna18",
    "kather": "kather_colon",
    "pannuke": "pannuke",
    "digestpath": "digestpath",
}
"""The folder's name to the data card of what it was made from."""

PREPARED = "Split by the published scripts: rsna18 has images, and digestpath slides, in both parts."


def prepared_card(folder: Path, card: DataCard, cards: Mapping[str, Path]) -> DataCard:
    """Return the card of a folder `images/{train,test}/CLASS/*`: that of its data set, where its name tells it.

    Labels are left to the folder; name and importer are those of `card`.

    Args:
        folder: the data set's folder.
        card: what is known without its name.
        cards: the shipped data cards.

    Raises:
        ManifestError: it has neither `images/train` nor `images/test`.
    """
    if not any((folder / "images" / split).is_dir() for split in ("train", "test")):
        raise ManifestError(
            f"'{folder}' is no folder that CalibPrompt's scripts made: it has no images/train or images/test."
        )
    name = DATA_SETS.get(folder.resolve().name.lower())
    if name is None:
        return card
    known = read_card(cards[name])
    return known.model_copy(
        update={
            "name": card.name,
            "title": f"{known.title}, as CalibPrompt's scripts prepare it",
            "importer": card.importer,
            "labels": {},
            "recipe": None,
            "split": card.split,
            "same_as": [name, *known.same_as],
            "known_traps": [PREPARED, *known.known_traps],
            "body": card.body,
        }
    )
