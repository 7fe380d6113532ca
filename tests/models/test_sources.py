"""Where models come from: PLIP and MedCLIP from their own places, `hf:`, folders of each kind, third parties."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from hub_server import HubServer, serving, use_hub
from hugging_face_folders import write_clip_folder, write_medclip_folder

from medvlm_probe.errors import ModelError, StoreError
from medvlm_probe.models import ZOO, LoadOptions, load_model, medclip, zoo
from medvlm_probe.models.medclip_download import TEXT_REPOSITORY, take_out
from medvlm_probe.models.sources import detect_family, locate, on_this_machine
from medvlm_probe.models.vendor import vendor

ONLINE = LoadOptions()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """An empty hub, and an empty cache of ours."""
    monkeypatch.setenv("MEDVLM_PROBE_CACHE", str(tmp_path / "our-cache"))
    with serving(HubServer()) as hub:
        use_hub(monkeypatch, hub.url, tmp_path / "hf-cache")
        yield hub


def images(size: int, n: int = 2) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("layout", ["bin", "safetensors"])
def test_plip_from_the_hub_and_vendored(hub: HubServer, tmp_path: Path, layout: str) -> None:
    (tmp_path / "plip").mkdir()
    theirs = write_clip_folder(tmp_path / "plip", legacy=True, layout=layout)
    hub.repositories["vinid/plip"] = tmp_path / "plip"
    assert on_this_machine(ZOO["plip"]) is False
    model = load_model("plip")
    assert model.name == "plip"
    assert on_this_machine(ZOO["plip"]) is True
    with torch.inference_mode():
        expected = theirs.get_image_features(images(model.image_size))
        expected = getattr(expected, "pooler_output", expected)
        torch.testing.assert_close(model.encode_images(images(model.image_size)), expected)
    hub.asked.clear()
    lock = vendor("plip", tmp_path / "vendored", LoadOptions(offline=True))
    assert hub.asked == []
    assert lock.family == "hugging_face_clip"
    assert lock.files["model.safetensors"].made_from == ("converted" if layout == "bin" else "")
    copy = load_model(f"local:{tmp_path / 'vendored'}")
    assert copy.name == "plip"
    assert torch.equal(copy.encode_images(images(copy.image_size)), model.encode_images(images(copy.image_size)))
    assert torch.equal(copy.encode_texts(["a photo"]), model.encode_texts(["a photo"]))


def test_hf_repositories_of_both_kinds(hub: HubServer, tmp_path: Path, native_bundle: Path) -> None:
    (tmp_path / "clip").mkdir()
    write_clip_folder(tmp_path / "clip")
    hub.repositories = {"owner/clip": tmp_path / "clip", "owner/open_clip": native_bundle}
    for name, family in (("owner/clip", "hugging_face_clip"), ("owner/open_clip", "open_clip")):
        located = locate(f"hf:{name}", ONLINE)
        assert (located.name, located.family) == (f"hf:{name}", family)
        assert load_model(f"hf:{name}", offline=True).name == f"hf:{name}"
    lock = vendor("hf:owner/open_clip", tmp_path / "vendored", ONLINE)
    assert lock.model == "hf:owner/open_clip"
    assert load_model(f"local:{tmp_path / 'vendored'}").name == "hf:owner/open_clip"


def test_the_licence_of_an_hf_repository_is_read_from_its_card(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    write_clip_folder(tmp_path / "clip")
    (tmp_path / "clip" / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Card\n")
    hub.repositories["owner/clip"] = tmp_path / "clip"
    lock = vendor("hf:owner/clip", tmp_path / "vendored", ONLINE)
    assert lock.licence == "cc-by-nc-4.0"
    assert "README.md" in lock.files


def test_hf_also_takes_a_folder(tmp_path: Path, native_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_model(f"hf:{native_bundle}").name == "local:native"
    monkeypatch.chdir(native_bundle.parent)
    assert load_model("hf:./native").name == load_model("hf:native").name == "local:native"


def test_folders_of_each_family_are_told_apart(tmp_path: Path, native_bundle: Path) -> None:
    for name in ("clip", "medclip", "nothing"):
        (tmp_path / name).mkdir()
    write_clip_folder(tmp_path / "clip")
    write_medclip_folder(tmp_path / "medclip")
    assert detect_family(native_bundle) == "open_clip"
    assert detect_family(tmp_path / "clip") == "hugging_face_clip"
    assert detect_family(tmp_path / "medclip") == "medclip"
    with pytest.raises(ModelError, match="no model of a known kind"):
        detect_family(tmp_path / "nothing")
    assert load_model(f"local:{tmp_path / 'clip'}").name == "local:clip"
    assert load_model(f"local:{tmp_path / 'medclip'}").name == "local:medclip"


@pytest.fixture
def published_medclip(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """MedCLIP's archive at its address, the vocabulary on the hub, and the small towers as the published ones."""
    published = tmp_path / "published"
    published.mkdir()
    write_medclip_folder(published)
    with zipfile.ZipFile(tmp_path / "medclip.zip", "w") as archive:
        archive.write(published / "pytorch_model.bin", "pytorch_model.bin")
    bert = tmp_path / "bert"
    bert.mkdir()
    next(published.rglob("vocab.txt")).rename(bert / "vocab.txt")
    for role, place in (("BIO_CLINICAL_BERT", "text"), ("SWIN_TINY", "vision")):
        small = json.loads((published / place / "config.json").read_text())
        monkeypatch.setattr(medclip, role, MappingProxyType({**getattr(medclip, role), **small}))
    hub.repositories[TEXT_REPOSITORY] = bert
    hub.plain["/medclip.zip"] = tmp_path / "medclip.zip"
    spec = replace(ZOO["medclip"], source=f"medclip:{hub.url}/medclip.zip")
    monkeypatch.setattr(zoo, "ZOO", {**ZOO, "medclip": spec})
    return published


def test_medclip_is_fetched_once_and_vendored(hub: HubServer, published_medclip: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"MedCLIP is not on this machine.*vendor medclip --to FOLDER"):
        load_model("medclip", offline=True)
    assert hub.asked == []
    assert on_this_machine(ZOO["medclip"]) is False
    model = load_model("medclip")
    assert model.name == "medclip"
    assert on_this_machine(ZOO["medclip"]) is True
    hub.asked.clear()
    again = load_model("medclip", offline=True)
    lock = vendor("medclip", tmp_path / "vendored", LoadOptions(offline=True))
    assert hub.asked == []
    assert lock.files["model.safetensors"].made_from == "converted"
    assert lock.sources()[0].endswith("/medclip.zip")
    copy = load_model(f"local:{tmp_path / 'vendored'}")
    assert copy.name == "medclip"
    assert copy.fingerprint == again.fingerprint == model.fingerprint
    torch.testing.assert_close(copy.encode_texts(["normal"]), model.encode_texts(["normal"]))
    assert torch.equal(copy.encode_images(images(copy.image_size)), model.encode_images(images(copy.image_size)))


@pytest.mark.usefixtures("published_medclip")
def test_a_medclip_archive_that_breaks_off_leaves_nothing(hub: HubServer, tmp_path: Path) -> None:
    hub.drops["/medclip.zip"] = 1
    with pytest.raises(ModelError, match=r"medclip\.zip (broke off|could not be fetched)"):
        load_model("medclip")
    assert not [path for path in (tmp_path / "our-cache").rglob("*") if path.is_file()]
    assert load_model("medclip").name == "medclip"


@pytest.mark.usefixtures("published_medclip")
def test_a_medclip_archive_that_is_gone(hub: HubServer) -> None:
    hub.plain.clear()
    with pytest.raises(ModelError, match=r"medclip\.zip could not be fetched"):
        load_model("medclip")


def test_archives_without_one_checkpoint_are_refused(tmp_path: Path) -> None:
    path, target = tmp_path / "a.zip", tmp_path / "out.bin"
    path.write_bytes(b"no zip")
    with pytest.raises(ModelError, match="damaged"):
        take_out(path, "pytorch_model.bin", target)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(ModelError, match="found none"):
        take_out(path, "pytorch_model.bin", target)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../pytorch_model.bin", "weights")
    take_out(path, "pytorch_model.bin", target)
    assert target.read_bytes() == b"weights"
    content = bytearray(path.read_bytes())
    content[content.index(b"weights")] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="damaged"):
        take_out(path, "pytorch_model.bin", tmp_path / "second.bin")
    assert not (tmp_path / "second.bin").exists()


THIRD_PARTY = """
from medvlm_probe.models import LoadOptions, ModelSpec

class Model:
    name = "ward-clip"

def load(options: LoadOptions):
    model = Model()
    model.device = options.device
    return model

SPEC = ModelSpec(name="ward-clip", summary="A ward's own.", licence="ours", trained_on=(), load=load)
"""
USE_THIRD_PARTY = """
from medvlm_probe.models import known_models, load_model
from medvlm_probe.errors import ModelError
from medvlm_probe.models.spec import LoadOptions
from medvlm_probe.models.zoo import locate_model
assert list(known_models())[-1] == "ward-clip"
assert load_model("ward-clip", device="cuda:7").device == "cuda:7"
try:
    locate_model("ward-clip", LoadOptions())
except ModelError as error:
    print(error)
"""


def test_an_installed_package_adds_a_model(tmp_path: Path) -> None:
    (tmp_path / "ward_clip.py").write_text(THIRD_PARTY)
    metadata = tmp_path / "ward_clip-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: ward-clip\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[medvlm_probe.models]\nward-clip = ward_clip:SPEC\n")
    (metadata / "RECORD").write_text("")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{USE_THIRD_PARTY}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "loaded by the package that brings it" in done.stdout


def test_a_full_disk_is_said_as_such(native_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(StoreError, match=r"No space left on device.*choose another folder"):
        vendor(f"local:{native_bundle}", tmp_path / "vendored", ONLINE)
    assert not list(tmp_path.glob("vendored*"))
