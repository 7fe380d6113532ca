"""Keyed pseudonyms: stable under one key, different under another, and a key that nobody else reads."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from medvlm_probe.cohort.pseudonyms import default_key_path, read_key
from medvlm_probe.errors import InputError, StoreError


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "key"
    first, second = read_key(path), read_key(path)
    assert (first.made, second.made) == (True, False)
    assert first.pseudonym("patient", "123") == second.pseudonym("patient", "123")
    assert [entry.name for entry in path.parent.iterdir()] == ["key"]
    assert "secret" not in repr(first)
    assert path.read_text().strip() not in repr(first)
    if os.name != "nt":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert not first.open_to_others
        path.chmod(0o644)
        assert read_key(path).open_to_others


def test_pseudonyms_are_hmac_sha256(tmp_path: Path) -> None:
    # HMAC by its definition (RFC 2104), independent of the standard library's.
    secret = b"0123456789abcdef0123456789abcdef-and-more"
    (tmp_path / "key").write_bytes(secret + b"\n")
    block = secret.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in block) + b"patient\x00Doe 7").digest()
    outer = hashlib.sha256(bytes(b ^ 0x5C for b in block) + inner).hexdigest()
    assert read_key(tmp_path / "key").pseudonym("patient", "Doe 7") == outer[:16]


def test_keys_kinds_and_ids_are_told_apart(tmp_path: Path) -> None:
    keys = [read_key(tmp_path / name) for name in "ab"]
    made = {
        key.pseudonym(kind, text) for key in keys for kind in ("patient", "study") for text in ("1", "11", "\udcff")
    }
    assert len(made) == 12


def test_keys_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "short").write_text("abc\n")
    with pytest.raises(InputError, match="holds no key"):
        read_key(tmp_path / "short")
    with pytest.raises(StoreError, match="--pseudonym-key"):
        read_key(tmp_path)
    with pytest.raises(StoreError, match="--pseudonym-key"):
        read_key(tmp_path / "short" / "key")


def test_the_key_lies_in_the_users_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_key_path().name == "pseudonyms.key"
    if os.name != "nt" and os.uname().sysname == "Linux":
        assert default_key_path() == tmp_path / "medvlm-probe" / "pseudonyms.key"
