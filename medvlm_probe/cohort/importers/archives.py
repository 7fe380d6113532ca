"""Published archives (.tgz, .tar.gz, .tar) unpacked safely: plain files of known kinds, inside one folder."""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from medvlm_probe.errors import InputError, StoreError
from medvlm_probe.runs import parse_json, write_bytes_atomically, write_json

DONE_FILE = "unpacked.json"
"""What an archive's folder holds once the whole archive was unpacked."""

STARTED_FILE = "unpacking.json"
"""What it holds before: a folder with this file is not whole."""

_SAY_EVERY = 500


@dataclass(frozen=True)
class Caps:
    """How much an archive may hold before it is refused.

    Attributes:
        files: plain files. file_bytes: bytes of one file. total_bytes: bytes of all files.
    """

    files: int = 50_000
    file_bytes: int = 1 << 28
    total_bytes: int = 1 << 38


DEFAULT_CAPS = Caps()


def unpack(
    archive: Path, folder: Path, suffixes: tuple[str, ...], say: Callable[[str], None], caps: Caps = DEFAULT_CAPS
) -> Path:
    """Unpack an archive's files with these suffixes into `folder`, and return it.

    Directories are made as needed; hidden files and other suffixes are passed over. A file that exists with the same
    bytes counts as unpacked, so that an interrupted run goes on; one with other bytes is never overwritten. A folder
    that holds `DONE_FILE` for this archive is taken as it is.

    Raises:
        InputError: an absolute path, `..`, a link or device within, more than the caps, or a damaged archive.
        StoreError: a file that exists with other content, or a folder that cannot be written.
    """
    done = folder / DONE_FILE
    status = archive.stat()
    facts = {"archive": archive.name, "bytes": status.st_size, "modified_ns": status.st_mtime_ns}
    if _stated(done) == facts:
        (folder / STARTED_FILE).unlink(missing_ok=True)
        return folder
    say(f"Unpacking {archive.name} into {folder}.")
    write_json(folder / STARTED_FILE, facts)
    n_files = n_bytes = 0
    try:
        with (
            _opened(archive) as raw,
            tarfile.open(mode="r:", fileobj=cast(IO[bytes], _Capped(raw, archive.name, caps.file_bytes))) as members,
        ):
            for member in members:
                path = _checked_path(member, archive)
                if path is None or path.suffix.lower() not in suffixes:
                    continue
                n_files, n_bytes = n_files + 1, n_bytes + member.size
                _check_caps(archive, member, n_files, n_bytes, caps)
                content = members.extractfile(member)
                if content is None:
                    raise InputError(f"{archive.name}: '{member.name}' is no plain file. Download the archive again.")
                _write(folder, path, content)
                if n_files % _SAY_EVERY == 0:
                    say(f"Unpacked {n_files:,} files.")
    except (tarfile.TarError, zlib.error, EOFError) as error:
        raise InputError(
            f"{archive.name} is damaged or cut short ({error}). Download it again; what was unpacked is kept."
        ) from error
    except OSError as error:
        raise InputError(f"Cannot read {archive.name}: {error.strerror or error}. Download it again.") from error
    if n_files == 0:
        raise InputError(f"{archive.name} holds no {' or '.join(suffixes)} files. Check which archive this is.")
    write_json(done, facts)
    (folder / STARTED_FILE).unlink()
    return folder


def _stated(path: Path) -> Any:
    """Return what a note holds; None where it is missing or damaged."""
    try:
        return parse_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def is_partial(folder: Path) -> bool:
    """Return whether an archive was unpacked into a folder, but not to its end."""
    return (folder / STARTED_FILE).is_file()


@dataclass(frozen=True)
class _Capped:
    """A tar file's bytes; reading more at once than a file may have is refused.

    The tar reader takes whole headers into memory, and a header may claim any size.
    """

    raw: IO[bytes]
    name: str
    most: int

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.most + tarfile.BLOCKSIZE:
            raise InputError(f"{self.name} is refused: it holds a header of more than {self.most:,} bytes.")
        return self.raw.read(size)

    def seek(self, position: int) -> int:
        return self.raw.seek(position)

    def tell(self) -> int:
        return self.raw.tell()


def _opened(archive: Path) -> IO[bytes]:
    """Return the tar file within an archive, compressed by gzip or plain."""
    with archive.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(archive)) if compressed else archive.open("rb")


def _checked_path(member: tarfile.TarInfo, archive: Path) -> PurePosixPath | None:
    """Return a plain file's path, None for a folder or a hidden file."""
    path = PurePosixPath(member.name)
    bad = path.is_absolute() or ".." in path.parts or any(mark in member.name for mark in ("\\", ":", "\0", "\n", "\r"))
    if bad or not (member.isfile() or member.isdir()):
        kind = "path" if bad else "link or device"
        raise InputError(
            f"{archive.name} is refused: it holds the {kind} {member.name!a}, which no published archive has."
        )
    if member.isdir() or any(part.startswith(".") for part in path.parts):
        return None
    return path


def _check_caps(archive: Path, member: tarfile.TarInfo, n_files: int, n_bytes: int, caps: Caps) -> None:
    for value, cap, what in (
        (n_files, caps.files, "files"),
        (member.size, caps.file_bytes, f"bytes in {member.name!a}"),
        (n_bytes, caps.total_bytes, "bytes"),
    ):
        if value > cap:
            raise InputError(f"{archive.name} is refused: it holds more than {cap:,} {what}.")


def _write(folder: Path, path: PurePosixPath, content: IO[bytes]) -> None:
    target = folder / path
    # A link that lies in the folder already must not lead a file out of it.
    if not Path(os.path.realpath(target)).is_relative_to(os.path.realpath(folder)):
        raise StoreError(f"'{target}' leads out of '{folder}'. Remove the link.")
    data = content.read()
    if target.is_file():
        if target.read_bytes() != data:
            raise StoreError(f"'{target}' exists with other content and is not overwritten. Move it away.")
        return
    write_bytes_atomically(target, data)
