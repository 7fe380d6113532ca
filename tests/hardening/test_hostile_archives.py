"""Pickles with code, and archives that climb, link, swell or lie: each kind is refused wherever one is read."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from medvlm_probe.audit.sketch_files import read_sketch
from medvlm_probe.cohort.importers import pannuke
from medvlm_probe.cohort.importers.archives import Caps, unpack
from medvlm_probe.cohort.importers.spreadsheets import MAX_MEMBER_BYTES, read_sheet
from medvlm_probe.cohort.importers.tables import read_table
from medvlm_probe.errors import InputError, ManifestError, ModelError, ProbeError, StoreError
from medvlm_probe.models.checkpoint import read_state_dict
from medvlm_probe.models.medclip_download import take_out
from medvlm_probe.zero_shot import text_embeddings


class Code:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def of_torch(path: Path, code: Code) -> None:
    torch.save({"weight": torch.ones(2), "code": code}, path)


def of_old_torch(path: Path, code: Code) -> None:
    torch.save({"weight": torch.ones(2), "code": code}, path, _use_new_zipfile_serialization=False)


def of_pickle(path: Path, code: Code) -> None:
    path.write_bytes(pickle.dumps({"weight": code}))


def of_numpy(path: Path, code: Code) -> None:
    np.save(path.with_suffix(".npy"), np.array([code], dtype=object), allow_pickle=True)
    path.with_suffix(".npy").rename(path)


def of_npz(path: Path, code: Code) -> None:
    np.savez(path.with_suffix(".npz"), keys=np.array([code], dtype=object), vectors=np.ones((1, 4)))


READ_WEIGHTS: list[tuple[str, Callable[[Path, Code], None]]] = [
    ("a.bin", of_torch), ("a.pt", of_torch), ("a.pth", of_old_torch), ("a.pt", of_pickle), ("a.bin", of_numpy),
    ("a.safetensors", of_torch), ("a.safetensors", of_pickle),
]  # fmt: skip


@pytest.mark.parametrize(("name", "write"), READ_WEIGHTS)
def test_code_in_weights_never_runs(tmp_path: Path, name: str, write: Callable[[Path, Code], None]) -> None:
    write(tmp_path / name, Code(tmp_path / "ran"))
    with pytest.raises(ModelError):
        read_state_dict(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_code_in_arrays_never_runs(tmp_path: Path) -> None:
    code = Code(tmp_path / "ran")
    of_numpy(tmp_path / "images.npy", code)
    with pytest.raises(ManifestError, match="never"):
        pannuke._array(tmp_path / "images.npy")
    of_npz(tmp_path / "texts.npz", code)
    assert text_embeddings._cached(tmp_path, 4) == {}
    assert not (tmp_path / "ran").exists()


def tar_member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 6) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size if kind == tarfile.REGTYPE else 0
    return info


CLIMBING = {
    "climbs": tar_member("../out.png"),
    "climbs from within": tar_member("a/../../out.png"),
    "absolute": tar_member("/out.png"),
    "of windows": tar_member("C:\\out.png"),
    "backslashes": tar_member("..\\out.png"),
    "link": tar_member("a.png", tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": tar_member("a.png", tarfile.LNKTYPE, "/etc/passwd"),
    "device": tar_member("a.png", tarfile.CHRTYPE),
    "block device": tar_member("a.png", tarfile.BLKTYPE),
    "pipe": tar_member("a.png", tarfile.FIFOTYPE),
    "line break": tar_member("a\n.png"),
}


@pytest.mark.parametrize("what", CLIMBING)
@pytest.mark.parametrize("suffix", [".tgz", ".tar"])
def test_members_that_leave_the_folder_or_are_no_files(tmp_path: Path, what: str, suffix: str) -> None:
    archive = tmp_path / f"a{suffix}"
    with tarfile.open(archive, "w:gz" if suffix == ".tgz" else "w") as file:
        member = CLIMBING[what]
        file.addfile(member, io.BytesIO(b"pixels") if member.isreg() else None)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match="refused"):
        unpack(archive, tmp_path / "out", (".png",), lambda text: None)
    assert sorted(tmp_path.iterdir()) == [*before, tmp_path / "out"]
    assert not list((tmp_path / "out").rglob("*.png"))


def test_a_link_before_its_file(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as file:
        file.addfile(tar_member("way", tarfile.SYMTYPE, str(tmp_path)))
        file.addfile(tar_member("way/out.png"), io.BytesIO(b"pixels"))
    with pytest.raises(InputError, match="link or device"):
        unpack(archive, tmp_path / "out", (".png",), lambda text: None)
    assert not (tmp_path / "out.png").exists()


def test_archives_that_swell(tmp_path: Path) -> None:
    archive = tmp_path / "a.tgz"
    with tarfile.open(archive, "w:gz") as file:
        file.addfile(tar_member("a.png", size=1 << 22), io.BytesIO(bytes(1 << 22)))
    with pytest.raises(InputError, match="more than"):
        unpack(archive, tmp_path / "out", (".png",), lambda text: None, Caps(10, 1 << 20, 1 << 24))
    assert not list((tmp_path / "out").rglob("*.png"))


def test_a_table_that_swells(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"id,age\n1,2\n" + b"\n" * (66 << 20), 9))
    assert path.stat().st_size < 100_000
    with pytest.raises(ManifestError, match="unfolds"):
        read_table(path, ("id",))


def test_workbooks_that_swell_or_declare_entities(tmp_path: Path) -> None:
    for name, data in (
        ("swells", bytes(MAX_MEMBER_BYTES + 1)),
        ("entities", b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"),
    ):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as book:
            book.writestr("xl/worksheets/sheet1.xml", data)
        with pytest.raises(ManifestError):
            read_sheet(tmp_path / name)


def test_a_zip_of_weights_that_climbs_or_lies(tmp_path: Path) -> None:
    def packed(name: str, *members: str) -> Path:
        with zipfile.ZipFile(tmp_path / name, "w") as file:
            for member in members:
                file.writestr(member, b"weights")
        return tmp_path / name

    climbing = packed("climbs.zip", "../../pytorch_model.bin")
    take_out(climbing, "pytorch_model.bin", tmp_path / "in" / "pytorch_model.bin")
    assert (tmp_path / "in" / "pytorch_model.bin").read_bytes() == b"weights"
    assert not (tmp_path.parent / "pytorch_model.bin").exists()
    with pytest.raises(ModelError, match="one pytorch"):
        take_out(
            packed("two.zip", "a/w.bin", "b/w.bin").rename(tmp_path / "2.zip"), "pytorch_model.bin", tmp_path / "x"
        )
    damaged = climbing.read_bytes().replace(b"weights", b"wEights")
    climbing.write_bytes(damaged)
    with pytest.raises(ModelError, match="damaged"):
        take_out(climbing, "pytorch_model.bin", tmp_path / "y")
    assert not (tmp_path / "y").exists()


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "nowhere.safetensors").symlink_to(tmp_path / "gone")
    for name in ("folder.safetensors", "nowhere.safetensors"):
        with pytest.raises(ProbeError):
            read_state_dict(tmp_path / name)
    with pytest.raises((StoreError, InputError)):
        read_sketch(tmp_path / "folder.safetensors")
