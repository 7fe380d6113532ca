"""Archives: what is unpacked, what is refused, and how an interrupted run goes on."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

from medvlm_probe.cohort.importers.archives import DONE_FILE, STARTED_FILE, Caps, is_partial, unpack
from medvlm_probe.errors import InputError, StoreError

PNGS = (".png",)


def silent(text: str) -> None:
    pass


def member(
    name: str, data: bytes = b"pixels", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = len(data) if kind == tarfile.REGTYPE else 0
    return info, data


def pack(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for info, data in members:
            archive.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return path


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("suffix", "mode"), [(".tgz", "w:gz"), (".tar", "w"), (".tar.gz", "w:gz")])
def test_plain_files_of_the_asked_kind_are_unpacked(tmp_path: Path, suffix: str, mode: str) -> None:
    archive = pack(
        tmp_path / f"a{suffix}",
        member("./x.png", b"1"),
        member("deep", kind=tarfile.DIRTYPE),
        member("deep/er/y.PNG", b"2"),
        member("deep/readme.txt"),
        member("._x.png"),
        member(".hidden/z.png"),
        mode=mode,
    )
    unpack(archive, tmp_path / "out", PNGS, silent)
    found = files_below(tmp_path / "out")
    assert set(found) == {"x.png", "deep/er/y.PNG", DONE_FILE}
    assert (found["x.png"], found["deep/er/y.PNG"]) == (b"1", b"2")


@pytest.mark.parametrize(
    "bad",
    [
        member("/etc/x.png"),
        member("../x.png"),
        member("a/../../x.png"),
        member("a\\..\\x.png"),
        member("C:x.png"),
        member("x\n.png"),
        member("link.png", kind=tarfile.SYMTYPE, link="/etc/passwd"),
        member("link.png", kind=tarfile.SYMTYPE, link="x.png"),
        member("hard.png", kind=tarfile.LNKTYPE, link="first.png"),
        member("pipe.png", kind=tarfile.FIFOTYPE),
        member("device.png", kind=tarfile.CHRTYPE),
        member("disk.png", kind=tarfile.BLKTYPE),
    ],
    ids=lambda bad: ascii(bad[0].name) + bad[0].type.decode(),
)
def test_paths_links_and_devices_are_refused(tmp_path: Path, bad: tuple[tarfile.TarInfo, bytes]) -> None:
    archive = pack(tmp_path / "a.tgz", member("first.png"), bad, member("last.png"))
    with pytest.raises(InputError, match="is refused"):
        unpack(archive, tmp_path / "out", PNGS, silent)
    assert set(files_below(tmp_path)) == {"a.tgz", "out/first.png", f"out/{STARTED_FILE}"}


@pytest.mark.parametrize(
    ("caps", "what"),
    [(Caps(files=2), "2 files"), (Caps(file_bytes=99), "99 bytes in 'b.png'"), (Caps(total_bytes=150), "150 bytes")],
)
def test_caps(tmp_path: Path, caps: Caps, what: str) -> None:
    archive = pack(
        tmp_path / "a.tgz", member("a.png", b"x" * 40), member("b.png", b"x" * 100), member("c.png", b"x" * 40)
    )
    with pytest.raises(InputError, match=f"more than {what}"):
        unpack(archive, tmp_path / "out", PNGS, silent, caps)


def test_a_file_that_swells_a_thousandfold_is_refused_before_it_is_written(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tgz", member("bomb.png", bytes(20_000_000)))
    assert archive.stat().st_size < 30_000
    with pytest.raises(InputError, match="is refused"):
        unpack(archive, tmp_path / "out", PNGS, silent, Caps(file_bytes=1_000_000))
    assert set(files_below(tmp_path / "out")) == {STARTED_FILE}


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE])
def test_a_header_that_swells_is_refused_before_it_is_read(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("header")
    info.type, info.size = kind, 5_000_000
    with gzip.open(tmp_path / "a.tgz", "wb") as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT) + bytes(5_000_192))
    with pytest.raises(InputError, match="header of more than 1,000,000 bytes"):
        unpack(tmp_path / "a.tgz", tmp_path / "out", PNGS, silent, Caps(file_bytes=1_000_000))


def test_an_interrupted_run_goes_on_and_a_finished_one_is_taken_as_it_is(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tgz", *(member(f"{i}.png", bytes([i]) * 1000) for i in range(50)))
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged or cut short"):
        unpack(archive, tmp_path / "out", PNGS, silent)
    assert DONE_FILE not in files_below(tmp_path / "out")
    assert is_partial(tmp_path / "out")
    archive.write_bytes(whole)
    unpack(archive, tmp_path / "out", PNGS, silent)
    assert len(files_below(tmp_path / "out")) == 51
    assert not is_partial(tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    said: list[str] = []
    unpack(archive, tmp_path / "out", PNGS, said.append)
    assert said == []
    os.utime(archive, ns=(1, 1))
    unpack(archive, tmp_path / "out", PNGS, said.append)
    assert len(said) == 1
    del before[tmp_path / "out" / DONE_FILE]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_files_of_other_content_are_not_overwritten(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tgz", member("x.png", b"theirs"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/x.png").write_bytes(b"mine")
    with pytest.raises(StoreError, match="exists with other content"):
        unpack(archive, tmp_path / "out", PNGS, silent)
    assert (tmp_path / "out/x.png").read_bytes() == b"mine"


def test_a_link_in_the_folder_leads_nothing_out_of_it(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tgz", member("deep/x.png"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/deep").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="leads out"):
        unpack(archive, tmp_path / "out", PNGS, silent)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"no archive at all", b"\x1f\x8b\x08\x00garbage"])
def test_what_is_no_archive(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tgz").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.tgz"):
        unpack(tmp_path / "a.tgz", tmp_path / "out", PNGS, silent)
    empty = pack(tmp_path / "b.tgz", member("readme.txt"))
    with pytest.raises(InputError, match=r"holds no \.png files"):
        unpack(empty, tmp_path / "out", PNGS, silent)
