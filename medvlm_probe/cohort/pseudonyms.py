"""Keyed pseudonyms: HMAC-SHA256 of an identifier under a secret key that stays on the machine."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from medvlm_probe.errors import InputError, StoreError

KEY_FILE = "pseudonyms.key"
MIN_KEY_BYTES = 32
_DIGITS = 16


@dataclass(frozen=True)
class PseudonymKey:
    """A secret key; the same key gives the same pseudonyms.

    Attributes:
        path: where it lies.
        made: whether it was made just now.
        open_to_others: whether other users of the machine may read it.
    """

    path: Path
    made: bool
    open_to_others: bool
    secret: bytes = field(repr=False)

    def pseudonym(self, kind: str, identifier: str) -> str:
        """Return 16 hex digits (64 bits) for an identifier; `kind` keeps a patient and a study of one id apart.

        Without the key nobody can try identifiers until one fits (HMAC, RFC 2104). Among a million identifiers two
        share a pseudonym with a probability of 3e-8.
        """
        message = f"{kind}\0{identifier}".encode("utf-8", "surrogateescape")
        return hmac.new(self.secret, message, hashlib.sha256).hexdigest()[:_DIGITS]


def default_key_path() -> Path:
    """Return where the key lies unless another file is named: the platform's folder of user data."""
    import platformdirs

    return Path(platformdirs.user_data_dir("medvlm-probe", appauthor=False)) / KEY_FILE


def read_key(path: Path | None = None) -> PseudonymKey:
    """Return the key of a file, made on first use (256 random bits, mode 0600); None takes `default_key_path()`.

    Raises:
        InputError: the file holds no key.
        StoreError: the file can neither be read nor made.
    """
    path = path or default_key_path()
    try:
        made = not path.exists() and _make(path)
        secret = path.read_bytes().strip()
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise StoreError(
            f"Cannot use the key of pseudonyms '{path}': {error.strerror}. Name another file with --pseudonym-key."
        ) from error
    if len(secret) < MIN_KEY_BYTES:
        raise InputError(
            f"'{path}' holds no key of pseudonyms: at least {MIN_KEY_BYTES} bytes are expected. Name a file that does "
            "not exist yet, and a key is made."
        )
    return PseudonymKey(path, made, os.name != "nt" and bool(mode & 0o077), secret)


def _make(path: Path) -> bool:
    """Write a new key unless another process is faster; returns whether this one wrote it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(aside, path)
            return True
        return False
    finally:
        aside.unlink()
