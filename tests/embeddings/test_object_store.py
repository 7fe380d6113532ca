"""A cohort in an object store is the cohort that it is on disk: the same rows, keys, quarantine and bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from object_store import SECRET, served
from tiny_embedding_model import embed_all, make_model, snapshot, write_images

from medvlm_probe.cli.main import main
from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.cohort.remote_images import RemoteImages
from medvlm_probe.cohort.storage import RemoteFolder
from medvlm_probe.errors import ImageError, InputError, ManifestError

CARD = """---
name: store
image_root: images
manifest: rows.csv
uncertainty: zeros
---
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images, one of them twice, one cut short, one not there."""
    root = tmp_path_factory.mktemp("store")
    names = write_images(root / "images", [*range(12), 4])
    broken = root / "images" / names[7]
    broken.write_bytes(broken.read_bytes()[:100])
    rows = "".join(f"{name},{i % 2 or -1}\n" for i, name in enumerate([*names, "none.png"]))
    (root / "rows.csv").write_text("image,edema\n" + rows)
    (root / "DATA_CARD.md").write_text(CARD)
    return root


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with served(folder) as address:
        yield address


def test_the_same_bytes_as_from_disk(folder: Path, address: str, tmp_path: Path) -> None:
    disk, store = load_cohort(str(folder)), load_cohort(address)
    assert isinstance(store.source, RemoteImages)
    assert store.fingerprint == disk.fingerprint
    assert (store.name, store.uncertainty) == ("store", "zeros")
    here = embed_all(disk, make_model(), tmp_path / "disk")
    there = embed_all(store, make_model(), tmp_path / "store")
    assert snapshot(tmp_path / "store") == snapshot(tmp_path / "disk")
    assert there.quarantine.equals(here.quarantine)
    assert there.quarantine["reason"].tolist() == ["truncated", "missing_file"]
    assert there.n_computed == 12
    assert embed_all(store, make_model(), tmp_path / "disk").n_computed == 0


def test_cards_manifests_and_folders_are_found(folder: Path, address: str) -> None:
    expected = load_cohort(str(folder)).fingerprint
    for name in ("rows.csv", "DATA_CARD.md"):
        assert load_cohort(f"{address}/{name}").fingerprint == expected
    with pytest.raises(InputError, match=r"holds neither DATA_CARD\.md nor manifest\.csv"):
        load_cohort(f"{address}/images")
    with pytest.raises(ManifestError, match="no manifest file"):
        load_cohort(f"{address}/images/none.csv")


def test_a_store_that_is_away_is_no_bad_file(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(ImageError) as caught:
        RemoteFolder(address).read("images/image-000.png")
    assert caught.value.reason == "unreadable"
    assert SECRET not in str(caught.value)
    with pytest.raises(InputError, match="The store does not give"):
        load_cohort(address)


def test_nothing_secret_in_what_is_printed_or_written(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEDVLM_PROBE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    command = ["embed", "--cohort", f"{address}/rows.csv", "--max-failures", "3", "--out", "run", "--verbose"]
    monkeypatch.setattr("sys.argv", ["medvlm-probe", *command])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["images"]["used"] == 12
    assert record["config"]["cohort"] == f"{address}/rows.csv"
    assert (record["engine"], record["model_workers"]) == ("local", 1)
    printed = capfd.readouterr()
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(SECRET.encode() in data for data in [*written, printed.out.encode(), printed.err.encode()])
