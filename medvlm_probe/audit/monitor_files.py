"""The state of a monitor: one file of JSON lines, each with its checksum, that a kill at any moment leaves readable."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvlm_probe.errors import InputError, StoreError
from medvlm_probe.runs import parse_json, write_bytes_atomically

Record = Mapping[str, Any]


@dataclass(frozen=True)
class StateFile:
    """What a state file held when it was read.

    Attributes:
        path: of the file.
        records: the header, then a record a batch.
        n_bytes: of them; what follows was left by a killed process, and goes when the next record is written.
    """

    path: Path
    records: tuple[Record, ...]
    n_bytes: int


def start_state(path: Path, header: Record) -> StateFile:
    """Write a new state with its header, whole or not at all. Raises StoreError."""
    line = _line(header)
    write_bytes_atomically(path, line)
    return StateFile(path, (header,), len(line))


def read_state(path: Path) -> StateFile:
    """Return what a state holds; a last line that is not whole was never counted.

    Raises:
        StoreError: the file cannot be read.
        InputError: it is no state, or a line before the last is damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"Cannot read {path}: {error.strerror or error}. Check --state and its permissions."
        ) from error
    records: list[Record] = []
    position = 0
    while position < len(data):
        end = data.find(b"\n", position)
        record = None if end < 0 else _record(data[position:end])
        if record is None:
            if end >= 0 and end + 1 < len(data):
                raise InputError(f"Line {len(records) + 1} of {path.name} is damaged. Restore the file from a copy.")
            break
        records.append(record)
        position = end + 1
    if not records:
        raise InputError(f"{path.name} is no state of a monitor. Name another file with --state.")
    return StateFile(path, tuple(records), position)


def append_record(state: StateFile, record: Record) -> StateFile:
    """Write one record at the end, synced to the disk, and return the state with it.

    Raises:
        StoreError: the file cannot be written, or another process has written meanwhile.
    """
    line = _line(record)
    try:
        with state.path.open("r+b") as file, _locked(file.fileno()):
            if _other_bytes(file.read(), state):
                raise StoreError(f"Another process has written to {state.path.name} meanwhile. Run again.")
            file.truncate(state.n_bytes)
            file.seek(state.n_bytes)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(f"Cannot write {state.path}: {error.strerror or error}. Free space, and run again.") from error
    return StateFile(state.path, (*state.records, record), state.n_bytes + len(line))


def _other_bytes(data: bytes, state: StateFile) -> bool:
    """Return whether a whole record lies behind those that were read."""
    rest = data[state.n_bytes :]
    return len(data) < state.n_bytes or _record(rest.partition(b"\n")[0]) is not None


def _line(record: Record) -> bytes:
    payload = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return f'{{"sha256":"{_checksum(payload)}","record":{payload}}}\n'.encode()


def _record(line: bytes) -> Record | None:
    """Return the record of a line, or None where its checksum does not fit."""
    try:
        whole = parse_json(line)
        record: Record = whole["record"]
        payload = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        return record if whole["sha256"] == _checksum(payload) else None
    except (ValueError, LookupError, TypeError):
        return None


def _checksum(payload: str) -> str:
    return hashlib.sha256(payload.encode()).hexdigest()


@contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
