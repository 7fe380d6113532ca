"""Addresses of object stores: what is refused, and that nothing outside a folder is read."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from medvlm_probe.cohort import storage
from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.images import REASONS
from medvlm_probe.cohort.storage import RemoteFile, RemoteFolder, is_address
from medvlm_probe.errors import ImageError, InputError, UnknownNameError


@pytest.fixture
def folder() -> Iterator[RemoteFolder]:
    """A folder of fsspec's store in memory, with a file beside it that nobody may reach."""
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    files.pipe({"/bucket/cohort/sub/a.png": b"inside", "/bucket/outside.png": b"outside"})
    yield RemoteFolder("memory://bucket/cohort/")
    files.rm("/bucket", recursive=True)


def test_what_an_address_is() -> None:
    assert is_address("s3://bucket/a.csv")
    assert not any(map(is_address, ("a/b.csv", "C:\\a.csv", "nih_cxr14:/data", "phantom:n=3", "/s3://x")))


def test_bytes_of_objects(folder: RemoteFolder) -> None:
    assert folder.read("sub/a.png") == b"inside"
    assert folder.below("./sub/").read("a.png") == b"inside"
    assert (folder.name, folder.below(".")) == ("cohort", folder)
    assert RemoteFile(folder, "sub/a.png").read_bytes() == b"inside"
    assert RemoteFile(folder, "sub/a.png").is_file()
    assert not RemoteFile(folder, "sub/b.png").is_file()
    assert pickle.loads(pickle.dumps(folder)).read("sub/a.png") == b"inside"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../outside.png", "outside_folder"),
        ("sub/../../outside.png", "outside_folder"),
        ("/bucket/outside.png", "outside_folder"),
        ("memory://bucket/outside.png", "outside_folder"),
        ("..\\outside.png", "outside_folder"),
        ("a\0.png", "outside_folder"),
        ("none.png", "missing_file"),
    ],
)
def test_what_is_not_read(folder: RemoteFolder, path: str, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        folder.read(path)
    assert caught.value.reason == reason in REASONS
    assert "bucket" not in str(caught.value)


def test_objects_that_are_too_large(folder: RemoteFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "MAX_FILE_BYTES", 5)
    with pytest.raises(ImageError) as caught:
        folder.read("sub/a.png")
    assert caught.value.reason == "too_many_bytes"


@pytest.mark.parametrize(
    "address",
    [
        "s3://key:hunter2@bucket/manifest.csv",
        "s3://bucket/manifest.csv?access_key=key&secret_key=hunter2",
        "s3://bucket/manifest.csv#hunter2",
    ],
)
def test_addresses_with_credentials_are_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(InputError, match="holds credentials or options") as caught:
        load_cohort(address)
    assert "hunter2" not in str(caught.value)


def test_what_is_no_store() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean s3"):
        load_cohort("s4://bucket/manifest.csv")
    with pytest.raises(UnknownNameError, match="kind of store 'https'"):
        load_cohort("https://example.org/manifest.csv")
