"""The lock of a vendored model: SHA-256 and size of every file, and where each came from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from medvlm_probe.errors import ModelError
from medvlm_probe.runs import parse_json, sha256_file, write_json

LOCK_NAME = "medvlm-probe.lock.json"
FORMAT = "medvlm-probe-lock/v1"

FamilyName = Literal["open_clip", "hugging_face_clip", "medclip"]
FileStatus = Literal["ok", "missing", "changed", "not in the lock"]


@dataclass(frozen=True)
class Origin:
    """Where a file came from: a hub repository at a commit, or an address (`revision` is then empty)."""

    repository: str
    revision: str
    file: str

    def __str__(self) -> str:
        """`owner/name@commit: file`, or `address: file`."""
        return f"{self.repository}{'@' if self.revision else ''}{self.revision}: {self.file}"


@dataclass(frozen=True)
class LockedFile:
    """One file of a vendored model.

    Attributes:
        sha256: of the file as it lies in the folder, hex.
        size: in bytes.
        origin: where it came from; None for files that vendoring wrote itself, or of a local folder.
        made_from: what vendoring did to it: `rewritten` (paths in a configuration), `converted` (to safetensors) or
            `written`; empty for a plain copy.
        original_sha256: of the file that a conversion read, hex; empty elsewhere.
    """

    sha256: str
    size: int
    origin: Origin | None = None
    made_from: str = ""
    original_sha256: str = ""


@dataclass(frozen=True)
class Lock:
    """What a vendored folder holds. `model` is the name it was vendored under (`biomedclip`, `hf:OWNER/NAME`)."""

    model: str
    family: FamilyName
    licence: str
    files: Mapping[str, LockedFile]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())

    def sources(self) -> list[str]:
        """Return the repositories (with commit) and addresses that the files came from, each once."""
        origins = [file.origin for file in self.files.values() if file.origin is not None]
        return list(dict.fromkeys(f"{o.repository}{'@' if o.revision else ''}{o.revision}" for o in origins))


@dataclass(frozen=True)
class FileState:
    """A file as it is, held against the lock."""

    name: str
    size: int
    status: FileStatus
    sha256: str = ""
    expected: str = ""


def write_lock(folder: Path, lock: Lock) -> None:
    """Write a folder's lock; the files are listed by name.

    Raises:
        StoreError: the folder cannot be written.
    """
    content = {
        "format": FORMAT,
        "model": lock.model,
        "family": lock.family,
        "licence": lock.licence,
        "files": {name: asdict(lock.files[name]) for name in sorted(lock.files)},
    }
    write_json(folder / LOCK_NAME, content)


def read_lock(folder: Path) -> Lock | None:
    """Return a folder's lock; None where it has none.

    Raises:
        ModelError: the lock is damaged, of an unknown format, or names a file outside the folder.
    """
    path = folder / LOCK_NAME
    if not path.is_file():
        return None
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT or content["family"] not in get_args(FamilyName):
            raise ValueError(f"format {content['format']}, family {content['family']}")
        files = {name: _locked_file(entry) for name, entry in content["files"].items()}
        lock = Lock(str(content["model"]), content["family"], str(content["licence"]), files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path} is no lock of {FORMAT} ({type(error).__name__}: {error}). Copy the folder again, or vendor anew."
        ) from error
    for name in lock.files:
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or "\\" in name or ":" in name:
            raise ModelError(f"{path} lists '{name}', which lies outside the folder. Do not use this copy.")
    return lock


def examine(folder: Path, lock: Lock) -> list[FileState]:
    """Return the state of every locked file, hashed anew, and of every file that a lock does not list.

    Hidden files (names that begin with a dot) are no part of it: no loader reads them. Hashing takes about a second
    per gigabyte.
    """
    states = []
    for name, locked in sorted(lock.files.items()):
        path = folder / name
        if not path.is_file():
            states.append(FileState(name, 0, "missing", expected=locked.sha256))
            continue
        size = path.stat().st_size
        found = sha256_file(path)
        status: FileStatus = "ok" if found == locked.sha256 and size == locked.size else "changed"
        states.append(FileState(name, size, status, found, locked.sha256))
    extra = sorted(set(_visible_files(folder)) - {*lock.files, LOCK_NAME})
    return states + [FileState(name, (folder / name).lstat().st_size, "not in the lock") for name in extra]


def refuse_changes(folder: Path, lock: Lock) -> None:
    """Refuse a vendored folder in which a file is missing, differs from its lock, or stands outside it.

    Files outside the lock are refused and not ignored, because loaders choose files by name: a stray weights or
    tokenizer file would be read.

    Raises:
        ModelError: with the files at fault.
    """
    faults = [state for state in examine(folder, lock) if state.status != "ok"]
    if not faults:
        return
    changed = [state for state in faults if state.status != "not in the lock"]
    if not changed:
        names = ", ".join(state.name for state in faults[:4]) + (", ..." if len(faults) > 4 else "")
        raise ModelError(
            f"{folder} holds files that its {LOCK_NAME} does not list: {names}. Only locked files are read: "
            "move them elsewhere."
        )
    first = changed[0]
    if first.status == "missing":
        what = f"is missing, though {LOCK_NAME} lists it"
    else:
        what = f"has SHA-256 {first.sha256[:12]}..., and in {LOCK_NAME} {first.expected[:12]}..."
    more = f" (and {len(changed) - 1} more files)" if len(changed) > 1 else ""
    anew = f", or vendor it anew: medvlm-probe models vendor {lock.model} --to NEW_FOLDER"
    raise ModelError(
        f"{folder / first.name} {what}{more}. Copy the folder again from where it was made"
        f"{'' if lock.model.startswith('local:') else anew}."
    )


def _locked_file(entry: Mapping[str, Any]) -> LockedFile:
    origin = entry["origin"]
    return LockedFile(
        sha256=str(entry["sha256"]),
        size=int(entry["size"]),
        origin=None if origin is None else Origin(**origin),
        made_from=str(entry["made_from"]),
        original_sha256=str(entry["original_sha256"]),
    )


def _visible_files(folder: Path) -> Iterator[str]:
    """Yield the files and links to folders below a folder, as POSIX paths relative to it, hidden ones left out."""
    for root, folders, files in os.walk(folder):
        here = Path(root)
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in (*files, *links):
            if not name.startswith("."):
                yield (here / name).relative_to(folder).as_posix()
