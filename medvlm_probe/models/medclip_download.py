"""MedCLIP's published checkpoint: a zip outside the hub, made into a vendored folder of its own on first use."""

from __future__ import annotations

import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from medvlm_probe.errors import ModelError
from medvlm_probe.models.assemble import Piece, assemble
from medvlm_probe.models.hub import hub_folder, hub_is_off
from medvlm_probe.models.lock import LOCK_NAME, Origin
from medvlm_probe.runs import cache_dir, write_atomically

if TYPE_CHECKING:
    from medvlm_probe.models.spec import LoadOptions

NAME = "medclip"
LICENCE = "BSD (declared)"
WEIGHTS = "pytorch_model.bin"
TEXT_REPOSITORY = "emilyalsentzer/Bio_ClinicalBERT"
TIMEOUT_SECONDS = 30.0
MOST_BYTES = 2 << 30
"""No more is taken out of the archive: a checkpoint of MedCLIP's towers has about 0.6 GB."""


def downloaded() -> Path | None:
    """Return the folder in our cache where MedCLIP was put; None where it was not."""
    folder = cache_dir() / "models" / NAME
    return folder if (folder / LOCK_NAME).is_file() else None


def medclip_folder(address: str, options: LoadOptions) -> Path:
    """Return the folder with MedCLIP's weights, as safetensors, and BERT's vocabulary, made once in our cache.

    Args:
        address: of the zip that holds `pytorch_model.bin`.
        options: the hub's cache for the vocabulary, and whether the network may be used.

    Raises:
        ModelError: the files are not on this machine and cannot be fetched, or hold more than tensors.
        StoreError: the cache cannot be written.
    """
    found = downloaded()
    if found is not None:
        return found
    folder = cache_dir() / "models" / NAME
    if options.offline or hub_is_off():
        raise ModelError(
            f"MedCLIP is not on this machine ({folder}) and the network is switched off. Run 'medvlm-probe models "
            "vendor medclip --to FOLDER' where there is a network, copy the folder, and use --model local:FOLDER."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    vocabulary = hub_folder(TEXT_REPOSITORY, (("vocab.txt",),), cache_dir=options.cache_dir) / "vocab.txt"
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{NAME}.") as aside:
        archive, weights = Path(aside) / "weights.zip", Path(aside) / WEIGHTS
        download(address, archive)
        take_out(archive, WEIGHTS, weights)
        origin = Origin(address, "", WEIGHTS)
        pieces = [
            Piece("model.safetensors", weights, origin=origin, weights=True),
            Piece("text/vocab.txt", vocabulary),
        ]
        assemble(pieces, folder, model=NAME, family="medclip", licence=LICENCE)
    return folder


def download(address: str, target: Path) -> None:
    """Write what lies at an address to a file, whole or not at all.

    Raises:
        ModelError: it cannot be fetched, or came in part.
        StoreError: the file cannot be written.
    """

    def write(file: BinaryIO) -> None:
        try:
            with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as answer:
                shutil.copyfileobj(answer, file, 1 << 20)
                expected = answer.headers.get("Content-Length")
        except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError) as error:
            raise ModelError(f"{address} could not be fetched ({error}). Check the network, and run again.") from error
        if expected is not None and file.tell() != int(expected):
            raise ModelError(f"{address} broke off after {file.tell():,} of {int(expected):,} bytes. Run again.")

    write_atomically(target, write)


def take_out(archive: Path, name: str, target: Path) -> None:
    """Write the one member of a zip that is called `name`, in whatever folder of it, to a file.

    Raises:
        ModelError: the zip is damaged, has no such member or several, or the member is too large.
        StoreError: the file cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [info for info in opened.infolist() if Path(info.filename).name == name and not info.is_dir()]
            if len(members) != 1 or members[0].file_size > MOST_BYTES:
                sizes = ", ".join(f"{info.file_size:,} bytes" for info in members) or "none"
                raise ModelError(f"MedCLIP's archive should hold one {name} of at most 2 GB; found {sizes}.")

            def write(file: BinaryIO) -> None:
                with opened.open(members[0]) as member:
                    shutil.copyfileobj(member, file, 1 << 20)

            write_atomically(target, write)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelError(f"MedCLIP's archive is damaged ({error}). Run the same command again.") from error
