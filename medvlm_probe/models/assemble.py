"""A vendored folder from its pieces: written aside, hashed, locked, renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from medvlm_probe.errors import ModelError, StoreError
from medvlm_probe.models.hub import origin_of
from medvlm_probe.models.lock import FamilyName, Lock, LockedFile, Origin, write_lock
from medvlm_probe.runs import sha256_file, sha256_json, write_atomically, write_bytes_atomically


@dataclass(frozen=True)
class Piece:
    """One file to be written.

    Attributes:
        target: its place in the folder, with forward slashes.
        source: the file to copy, the weights files to join, or the content itself.
        made_from: see `LockedFile`.
        origin: where it came from; None: read from the place of `source` in the hub's cache.
        original_sha256: of what an earlier conversion read; empty elsewhere.
        weights: whether it is weights, which are written as one safetensors file.
    """

    target: str
    source: Path | list[Path] | bytes
    made_from: str = ""
    origin: Origin | None = None
    original_sha256: str = ""
    weights: bool = False


def assemble(
    pieces: Sequence[Piece],
    folder: Path,
    *,
    model: str,
    family: FamilyName,
    licence: str,
    say: Callable[[str], None] = lambda text: None,
) -> Lock:
    """Write pieces and their lock into a folder that does not exist or is empty, whole or not at all.

    Raises:
        ModelError: weights hold more than tensors, or one repository's files are of several commits.
        StoreError: the folder cannot be written.
    """
    aside = folder.with_name(f"{folder.name}.partial")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        files = {}
        for piece in pieces:
            say(f"Writing {piece.target}")
            files[piece.target] = _write(piece, aside)
        _refuse_mixed_commits(files.values(), model)
        lock = Lock(model, family, licence, files)
        write_lock(aside, lock)
        if folder.is_dir():
            folder.rmdir()
        aside.rename(folder)
    except OSError as error:
        raise StoreError(
            f"Cannot write {folder}: {error.strerror or error}. Free space or choose another folder."
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return lock


def _write(piece: Piece, folder: Path) -> LockedFile:
    path = folder / piece.target
    made_from, original_sha256, source = piece.made_from, piece.original_sha256, piece.source
    if isinstance(source, bytes):
        write_bytes_atomically(path, source)
        return LockedFile(sha256_file(path), path.stat().st_size, piece.origin, made_from)
    paths = source if isinstance(source, list) else [source]
    origin = piece.origin or origin_of(paths[0])
    if piece.weights and (len(paths) > 1 or paths[0].suffix != ".safetensors"):
        made_from = "converted"
        hashes = {part.name: sha256_file(part) for part in paths}
        original_sha256 = sha256_json(hashes) if len(paths) > 1 else hashes[paths[0].name]
        _write_safetensors(paths, path)
    else:
        _copy(paths[0], path)
    return LockedFile(sha256_file(path), path.stat().st_size, origin, made_from, original_sha256)


def _copy(source: Path, target: Path) -> None:
    def write(file: BinaryIO) -> None:
        with source.open("rb") as original:
            shutil.copyfileobj(original, file, 1 << 20)

    write_atomically(target, write)


def _write_safetensors(sources: Sequence[Path], target: Path) -> None:
    """Write the tensors of weights files as one safetensors file; files with other objects are refused."""
    from safetensors.torch import save_file

    from medvlm_probe.models.checkpoint import read_state_dict

    tensors = {name: value for source in sources for name, value in read_state_dict(source).items()}
    # safetensors takes no two names for one piece of memory, and no views with gaps.
    own = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(own, target, metadata={"format": "pt"})
    with target.open("rb") as file, suppress(OSError):
        os.fsync(file.fileno())


def _refuse_mixed_commits(files: Iterable[LockedFile], model: str) -> None:
    commits: dict[str, str] = {}
    for origin in (file.origin for file in files if file.origin is not None):
        if commits.setdefault(origin.repository, origin.revision) != origin.revision:
            raise ModelError(
                f"The cache holds files of {model} from several commits of {origin.repository}. "
                f"Run 'hf download {origin.repository}' and vendor again."
            )
