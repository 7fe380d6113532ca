"""The lock of a vendored folder: what it finds, what it refuses, and that nothing outside it is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medvlm_probe.errors import ModelError
from medvlm_probe.models import LoadOptions, load_model
from medvlm_probe.models.lock import LOCK_NAME, examine, read_lock, refuse_changes
from medvlm_probe.models.vendor import vendor
from medvlm_probe.runs import sha256_file

WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture
def folder(native_bundle: Path, tmp_path: Path) -> Path:
    vendor(f"local:{native_bundle}", tmp_path / "vendored", LoadOptions(offline=True))
    return tmp_path / "vendored"


def flip_last_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_every_file_is_listed_with_its_own_hash_and_size(folder: Path) -> None:
    content = json.loads((folder / LOCK_NAME).read_text())
    assert content["format"] == "medvlm-probe-lock/v1"
    on_disk = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert content["files"].keys() == on_disk.keys() - {LOCK_NAME}
    for name, entry in content["files"].items():
        assert entry["sha256"] == sha256_file(on_disk[name])
        assert entry["size"] == on_disk[name].stat().st_size


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda folder: flip_last_bit(folder / WEIGHTS), "changed"),
        (lambda folder: (folder / WEIGHTS).unlink(), "missing"),
        (lambda folder: (folder / "open_clip_config.json").write_text("{}"), "changed"),
    ],
)
def test_a_changed_or_missing_file_is_found_and_refused(
    folder: Path, change: Callable[[Path], object], status: str
) -> None:
    lock = read_lock(folder)
    assert lock is not None
    change(folder)
    faults = [state for state in examine(folder, lock) if state.status != "ok"]
    assert [state.status for state in faults] == [status]
    with pytest.raises(ModelError, match=r"medvlm-probe\.lock\.json .*Copy the folder again from where it was made\.$"):
        load_model(f"local:{folder}")


@pytest.mark.parametrize(
    "name", ["open_clip_pytorch_model.safetensors", "text/config.json", "tokenizer.json", "a b.txt"]
)
def test_files_outside_the_lock_are_refused_unread(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("read me")
    with pytest.raises(ModelError, match=rf"does not list: {name}.*move them elsewhere"):
        load_model(f"local:{folder}")


def test_hidden_files_of_the_system_do_no_harm(folder: Path) -> None:
    before = load_model(f"local:{folder}").fingerprint
    (folder / ".DS_Store").write_text("x")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "file").write_text("x")
    assert load_model(f"local:{folder}").fingerprint == before


def test_a_link_to_a_folder_counts_as_outside(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (folder / "text").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="does not list: text"):
        load_model(f"local:{folder}")


def test_a_copied_and_renamed_folder_still_loads(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "usb stick" / "model")
    copy = load_model(f"local:{tmp_path / 'usb stick' / 'model'}")
    assert (copy.name, copy.fingerprint) == ("local:native", load_model(f"local:{folder}").fingerprint)


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[str], str]:
    def edit(text: str) -> str:
        content = json.loads(text)
        change(content)
        return json.dumps(content)

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text[:50], "is no lock"),
        (lambda text: "[]", "is no lock"),
        (edited(lambda lock: lock.update(format="other/v9")), "is no lock of medvlm-probe-lock/v1"),
        (edited(lambda lock: lock.update(family="llm")), "is no lock"),
        (edited(lambda lock: lock.pop("files")), "is no lock"),
        (edited(lambda lock: lock["files"][WEIGHTS].pop("sha256")), "is no lock"),
        (edited(lambda lock: lock["files"].update({"../up": lock["files"][WEIGHTS]})), "outside the folder"),
        (edited(lambda lock: lock["files"].update({"/etc/passwd": lock["files"][WEIGHTS]})), "outside the folder"),
        (edited(lambda lock: lock["files"].update({"C:\\x": lock["files"][WEIGHTS]})), "outside the folder"),
        (edited(lambda lock: lock["files"].pop(WEIGHTS)), "does not list: open_clip_model"),
    ],
)
def test_a_lock_that_was_tampered_with_is_refused(folder: Path, edit: Callable[[str], str], message: str) -> None:
    path = folder / LOCK_NAME
    path.write_text(edit(path.read_text()))
    with pytest.raises(ModelError, match=message):
        load_model(f"local:{folder}")


def test_a_folder_without_a_lock_has_none(native_bundle: Path) -> None:
    assert read_lock(native_bundle) is None


def test_an_unchanged_folder_is_accepted(folder: Path) -> None:
    lock = read_lock(folder)
    assert lock is not None
    refuse_changes(folder, lock)
