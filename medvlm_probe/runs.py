"""Files that are written whole or not at all, JSON and TOML from outside, and run folders with their provenance."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import platform
import re
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from medvlm_probe.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd

VERSIONED_PACKAGES = (
    "medvlm-probe",
    "numpy",
    "scipy",
    "torch",
    "open_clip_torch",
    "timm",
    "transformers",
    "pillow",
    "pyarrow",
)

MAX_TOML = 1 << 20

_FORMULA = re.compile(r"(?![+-]?[\d.]+\Z)[=+\-@\t\r\n]")


def cache_dir() -> Path:
    """Return the cache folder: `$MEDVLM_PROBE_CACHE`, else the platform's user cache folder. It may not exist yet."""
    given = os.environ.get("MEDVLM_PROBE_CACHE")
    if given:
        return Path(given).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("medvlm-probe", appauthor=False))


def write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Let `write` fill a file beside `path`, then sync and rename it: readers see the old file or the whole new one.

    Raises:
        StoreError: the folder cannot be made or written (read-only, full, not a folder).
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"Cannot write {path}: {reason}. Free space or choose another folder.") from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
    _sync_folder(path.parent)


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Write bytes as `write_atomically` does."""

    def write(file: BinaryIO) -> None:
        file.write(data)

    write_atomically(path, write)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON. NaN and infinity are refused: an undefined number is null.

    Raises:
        ValueError: the value holds NaN or infinity.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes_atomically(path, (text + "\n").encode())


def write_csv(path: Path, table: pd.DataFrame, *, exact: bool = False) -> None:
    """Write a tidy table as CSV with LF line ends, without the index; numbers keep 10 significant digits.

    An apostrophe goes before texts that a spreadsheet would take for a formula, unless they are to stay `exact`, as in
    manifests, which are read again.
    """
    write_bytes_atomically(path, csv_bytes(table, exact=exact))


def csv_bytes(table: pd.DataFrame, *, exact: bool = False) -> bytes:
    """Return what `write_csv` writes."""
    buffer = io.StringIO()
    written = table if exact else _without_formulas(table)
    written.to_csv(buffer, index=False, lineterminator="\n", float_format="%.10g")
    return buffer.getvalue().encode()


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text from outside.

    Beyond `json.loads`, what would fail later is refused here: NaN, numbers beyond float64, halves of surrogate pairs,
    and nesting that ends Python's own reader with a RecursionError. Integers may have more than 64 bits: tokenizers'
    files do.

    Raises:
        ValueError: no such JSON.
    """
    try:
        value = json.loads(text, parse_constant=_finite, parse_float=_finite, parse_int=_within_float64)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if re.search(r"\\[uU][dD][89a-fA-F]", text) if isinstance(text, str) else b"\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()
    return value


def parse_toml(text: str) -> dict[str, Any]:
    """Return the tables of a TOML text from outside.

    Raises:
        ValueError: no TOML, nested too deeply, an integer beyond the 64 bits that TOML has, or of more than `MAX_TOML`
            letters, which would take minutes.
    """
    import tomllib

    if len(text) > MAX_TOML:
        raise ValueError(f"it is longer than {MAX_TOML:,} letters")
    try:
        value = tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    left: list[Any] = [value]
    while left:
        one = left.pop()
        if isinstance(one, int) and not -(2**63) <= one < 2**63:
            raise ValueError("it holds an integer of more than 64 bits")
        left += one.values() if isinstance(one, dict) else one if isinstance(one, list) else []
    return value


def sha256_file(path: Path) -> str:
    """Return a file's SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Return the SHA-256 in hex of a value's canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class RunFolder:
    """One command's results in one folder. `config` is the resolved configuration that names the folder."""

    path: Path
    command: str
    config: Mapping[str, Any]
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    def write_provenance(self, facts: Mapping[str, Any], files: Sequence[Path] = ()) -> None:
        """Write `run.json`: the command, configuration, versions and machine, with `facts` of this run.

        Args:
            facts: fingerprints, seeds, threads, precision, counts used and given, seconds by step.
            files: what this run wrote into the folder. Of what an earlier run of the same command listed there, the
                rest is removed: it would be read as part of this one.
        """
        names = sorted({path.name for path in files})
        if names:
            self._forget_earlier(names)
            facts = {**facts, "files": names}
        record = {
            "command": self.command,
            "config": dict(self.config),
            "started": self.started.isoformat(timespec="seconds"),
            "wall_seconds": round((datetime.now(UTC) - self.started).total_seconds(), 3),
            "versions": {"python": platform.python_version(), **_installed_versions()},
            "platform": f"{platform.system()} {platform.machine()}",
            **facts,
        }
        write_json(self.path / "run.json", record)

    def _forget_earlier(self, names: Sequence[str]) -> None:
        try:
            earlier = parse_json((self.path / "run.json").read_bytes())
        except (OSError, ValueError):
            return
        listed = earlier.get("files") if isinstance(earlier, dict) and earlier.get("command") == self.command else None
        for name in listed if isinstance(listed, list) else ():
            if isinstance(name, str) and Path(name).name == name and name not in names:
                path = self.path / name
                if path.is_file():
                    path.unlink()


def open_run(command: str, config: Mapping[str, Any], out: Path | None = None) -> RunFolder:
    """Return the folder of a run: `out`, else `runs/<command>/<hash of the resolved config>`.

    Raises:
        StoreError: the folder cannot be made, or `out` is a file.
    """
    path = out if out is not None else Path("runs") / command / sha256_json(dict(config))[:12]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"Cannot make the folder {path}: {error.strerror}. Give another one with --out.") from error
    return RunFolder(path=path, command=command, config=config)


def _without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    def text(value: Any) -> Any:
        return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value

    safe = table.copy()
    for position, kind in enumerate(table.dtypes):
        if str(kind).startswith(("object", "str", "category")):
            safe.isetitem(position, [text(value) for value in table.iloc[:, position]])
    return safe.rename(columns=text)


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"it holds the number {number[:20]}, which is none")
    return value


def _within_float64(digits: str) -> int:
    _finite(digits)
    return int(digits)


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _installed_versions() -> dict[str, str]:
    found = {}
    for name in VERSIONED_PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
