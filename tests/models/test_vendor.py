"""Vendoring against a hub on the loopback: the files, the lock, faults on the way, and loading with sockets blocked."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import REVISION, HubServer, serving, use_hub
from safetensors.torch import load_file, save_file

from medvlm_probe.errors import ModelError, StoreError, UnknownNameError
from medvlm_probe.models import ZOO, LoadOptions, load_model
from medvlm_probe.models.lock import LOCK_NAME, examine, read_lock
from medvlm_probe.models.open_clip_adapter import build_module
from medvlm_probe.models.training_data import read_training_data
from medvlm_probe.models.vendor import licence_in_card, vendor
from medvlm_probe.models.zoo import BIOMEDBERT_REPOSITORY, BIOMEDCLIP_REPOSITORY
from medvlm_probe.runs import sha256_file

CARD = "---\nlicense: mit\ntags: [clip]\n---\n# A model\n"
ONLINE, OFFLINE = LoadOptions(), LoadOptions(offline=True)


@pytest.fixture
def hub(tmp_path: Path, biomedclip_module: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub with BiomedCLIP's file set (small towers, configuration as published) and BiomedBERT's."""
    (tmp_path / "BiomedCLIP" / "README.md").write_text(CARD)
    hub = HubServer({BIOMEDCLIP_REPOSITORY: tmp_path / "BiomedCLIP", BIOMEDBERT_REPOSITORY: tmp_path / "bert"})
    with serving(hub):
        use_hub(monkeypatch, hub.url, tmp_path / "cache")
        yield hub


@pytest.fixture
def block_sockets(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function after which every attempt to reach a host fails."""

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError(f"an attempt to reach {arguments}")

    def block() -> None:
        for name in ("connect", "connect_ex", "sendto"):
            monkeypatch.setattr(socket.socket, name, refuse)
        for name in ("getaddrinfo", "create_connection"):
            monkeypatch.setattr(socket, name, refuse)

    return block


def test_a_vendored_biomedclip_loads_with_sockets_blocked(
    hub: HubServer, tmp_path: Path, biomedclip_module: torch.nn.Module, block_sockets: Any
) -> None:
    folder = tmp_path / "vendored"
    said: list[str] = []
    lock = vendor("biomedclip", folder, ONLINE, said.append)
    block_sockets()
    assert read_lock(folder) == lock
    assert lock.model == "biomedclip"
    assert lock.licence == "MIT"
    assert lock.sources() == [f"{BIOMEDCLIP_REPOSITORY}@{REVISION}", f"{BIOMEDBERT_REPOSITORY}@{REVISION}"]
    assert {state.status for state in examine(folder, lock)} == {"ok"}
    on_disk = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert on_disk == {*lock.files, LOCK_NAME}
    assert any("open_clip_model.safetensors" in line for line in said)

    model = load_model(f"local:{folder}")
    assert model.name == "biomedclip"
    batch = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.encode_images(batch), biomedclip_module.encode_image(batch))
    ids = model.tokenizer(["there is no pneumonia"])  # type: ignore[attr-defined]
    torch.testing.assert_close(model.encode_texts(["there is no pneumonia"]), biomedclip_module.encode_text(ids))


def test_ids_of_the_hub_become_folders_and_the_pickle_becomes_safetensors(hub: HubServer, tmp_path: Path) -> None:
    folder, published = tmp_path / "vendored", tmp_path / "BiomedCLIP" / "open_clip_pytorch_model.bin"
    lock = vendor("biomedclip", folder, ONLINE)
    cfg = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    assert cfg["text_cfg"]["hf_model_name"] == cfg["text_cfg"]["hf_tokenizer_name"] == "text"
    assert cfg["text_cfg"]["hf_model_pretrained"] is cfg["vision_cfg"]["timm_model_pretrained"] is False
    weights = lock.files["open_clip_model.safetensors"]
    assert weights.made_from == "converted"
    assert weights.original_sha256 == sha256_file(published)
    assert weights.sha256 == sha256_file(folder / "open_clip_model.safetensors")
    assert weights.origin is not None
    assert weights.origin.file == published.name
    original = torch.load(published, weights_only=True)
    converted = load_file(folder / "open_clip_model.safetensors")
    assert original.keys() == converted.keys()
    assert all(torch.equal(original[key], converted[key]) for key in original)
    assert (folder / "README.md").read_text() == CARD


def test_published_safetensors_keep_their_fingerprint_when_vendored(
    hub: HubServer, tmp_path: Path, biomedclip_module: torch.nn.Module
) -> None:
    save_file(dict(biomedclip_module.state_dict()), tmp_path / "BiomedCLIP" / "open_clip_model.safetensors")
    vendor("biomedclip", tmp_path / "vendored", ONLINE)
    assert load_model(f"local:{tmp_path / 'vendored'}").fingerprint == load_model("biomedclip").fingerprint


def test_plain_open_clip_loads_the_folder_from_within(
    hub: HubServer,
    tmp_path: Path,
    biomedclip_module: torch.nn.Module,
    monkeypatch: pytest.MonkeyPatch,
    block_sockets: Any,
) -> None:
    import open_clip

    vendor("biomedclip", tmp_path / "vendored", ONLINE)
    block_sockets()
    monkeypatch.chdir(tmp_path / "vendored")
    module, _, _ = open_clip.create_model_and_transforms("local-dir:.")
    tokenizer = open_clip.get_tokenizer("local-dir:.")
    ids = tokenizer(["no pneumonia"])
    torch.testing.assert_close(module.eval().encode_text(ids), biomedclip_module.encode_text(ids))


def test_a_copy_of_a_zoo_model_keeps_its_training_data(hub: HubServer, tmp_path: Path) -> None:
    vendor("biomedclip", tmp_path / "vendored", ONLINE)
    assert read_training_data(tmp_path / "vendored") == ZOO["biomedclip"].trained_on


def test_vendoring_twice_fetches_and_writes_nothing_more(hub: HubServer, tmp_path: Path) -> None:
    lock = vendor("biomedclip", tmp_path / "vendored", ONLINE)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "vendored").rglob("*")}
    hub.asked.clear()
    assert vendor("biomedclip", tmp_path / "vendored", ONLINE) == lock
    assert vendor("biomedclip", tmp_path / "second", LoadOptions(offline=True)) == lock
    assert hub.asked == []
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "vendored").rglob("*")}


def test_the_same_files_make_the_same_bytes(hub: HubServer, tmp_path: Path) -> None:
    vendor("biomedclip", tmp_path / "one", ONLINE)
    vendor("biomedclip", tmp_path / "two", ONLINE)
    for path in (tmp_path / "one").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


@pytest.mark.parametrize("takes_ranges", [True, False])
def test_a_download_that_breaks_off_goes_on_or_begins_anew(
    hub: HubServer, tmp_path: Path, takes_ranges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.takes_ranges = takes_ranges
    hub.drops["open_clip_pytorch_model.bin"] = 1
    lock = vendor("biomedclip", tmp_path / "vendored", ONLINE)
    original = sha256_file(tmp_path / "BiomedCLIP" / "open_clip_pytorch_model.bin")
    assert lock.files["open_clip_model.safetensors"].original_sha256 == original
    assert len(hub.ranges) == 1


def test_a_download_that_never_ends_leaves_nothing_that_counts(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    # Fewer bytes than a chunk: the client gives up only when nothing more comes.
    hub.drops_at, hub.drops["open_clip_pytorch_model.bin"] = 0.01, 50
    folder = tmp_path / "vendored"
    with pytest.raises(ModelError, match=r"open_clip_pytorch_model\.bin could not be fetched"):
        vendor("biomedclip", folder, ONLINE)
    assert not folder.exists()
    assert not list(tmp_path.glob("vendored*"))
    with pytest.raises(ModelError, match=r"is not in the Hugging Face cache .*open_clip_pytorch_model\.bin"):
        load_model("biomedclip", offline=True)
    hub.drops.clear()
    vendor("biomedclip", folder, ONLINE)
    assert hub.files_fetched().count("open_clip_config.json") == 1
    load_model(f"local:{folder}")


def test_gated_and_missing_repositories_say_how_to_log_in(hub: HubServer, tmp_path: Path) -> None:
    hub.gated.add("owner/gated")
    with pytest.raises(ModelError, match=r"owner/gated is given only .*accept its terms.*hf auth login"):
        vendor("hf:owner/gated", tmp_path / "vendored", ONLINE)
    with pytest.raises(ModelError, match=r"no repository owner/none, or it is private.*hf auth login"):
        vendor("hf:owner/none", tmp_path / "vendored", ONLINE)
    with pytest.raises(ModelError, match=r"expected hf:OWNER/NAME"):
        vendor("hf:none", tmp_path / "vendored", ONLINE)
    assert not (tmp_path / "vendored").exists()


def test_a_token_that_ran_out(hub: HubServer, tmp_path: Path) -> None:
    hub.invalid_token = True
    with pytest.raises(ModelError, match=r"hf auth login"):
        vendor("biomedclip", tmp_path / "vendored", ONLINE)


def test_offline_asks_no_hub(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("biomedclip", f"hf:{BIOMEDCLIP_REPOSITORY}"):
        with pytest.raises(ModelError, match="the hub is switched off"):
            vendor(name, tmp_path / "vendored", OFFLINE)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"the hub is switched off.*models vendor"):
        vendor("biomedclip", tmp_path / "vendored", ONLINE)
    assert hub.asked == []


class MakesAFile:
    """A pickle that, were it run, would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def test_a_malicious_pickle_is_refused_and_never_run(hub: HubServer, tmp_path: Path) -> None:
    trace = tmp_path / "it ran"
    published = tmp_path / "BiomedCLIP" / "open_clip_pytorch_model.bin"
    torch.save({"visual.head.proj.weight": MakesAFile(trace)}, published)
    with pytest.raises(ModelError, match="Python objects besides tensors, which are never run"):
        vendor("biomedclip", tmp_path / "vendored", ONLINE)
    published.write_bytes(pickle.dumps(MakesAFile(trace), protocol=2))
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(ModelError, match=r"Python objects besides tensors|damaged"):
        vendor("biomedclip", tmp_path / "vendored", ONLINE)
    assert not trace.exists()
    assert not (tmp_path / "vendored").exists()


def test_a_configuration_that_asks_for_code_is_refused(hub: HubServer, tmp_path: Path) -> None:
    config = json.loads((tmp_path / "bert" / "config.json").read_text())
    (tmp_path / "bert" / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(ModelError, match="auto_map"):
        vendor("biomedclip", tmp_path / "vendored", ONLINE)


def test_a_folder_with_something_else_is_left_alone(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("years of work")
    with pytest.raises(ModelError, match=r"exists and is not an empty folder.*new folder"):
        vendor("biomedclip", tmp_path / "taken", ONLINE)
    assert (tmp_path / "taken" / "thesis.txt").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    vendor("biomedclip", tmp_path / "empty", ONLINE)
    with pytest.raises(ModelError, match="holds biomedclip"):
        vendor("phantom-clip", tmp_path / "empty", ONLINE)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "sealed").mkdir(mode=0o500)
    with pytest.raises(StoreError, match="Cannot write"):
        vendor("biomedclip", tmp_path / "sealed" / "vendored", ONLINE)


def test_a_parent_that_is_a_file(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Cannot write"):
        vendor("biomedclip", tmp_path / "file" / "vendored", ONLINE)


def test_a_local_folder_is_vendored_with_its_own_training_data(native_bundle: Path, tmp_path: Path) -> None:
    keys = "ab" * 32 + "  one.png\n"
    (native_bundle / "keys.sha256").write_text(keys)
    declared = {"trained_on": [{"dataset": "iu_xray", "splits": ["train"], "images": "keys.sha256", "note": "a note"}]}
    (native_bundle / "training_data.json").write_text(json.dumps(declared))
    lock = vendor(f"local:{native_bundle}", tmp_path / "copy", OFFLINE)
    assert lock.model == "local:native"
    assert lock.licence == "not stated"
    (data,) = read_training_data(tmp_path / "copy")
    assert (data.dataset, data.splits, data.note) == ("iu_xray", ("train",), "a note")
    assert data.image_keys() == {"ab" * 32}
    first, copy = load_model(f"local:{native_bundle}"), load_model(f"local:{tmp_path / 'copy'}")
    assert first.fingerprint == copy.fingerprint
    again = vendor(f"local:{tmp_path / 'copy'}", tmp_path / "copy of the copy", OFFLINE)
    assert again == lock


def test_a_published_tag_keeps_its_activation_and_transform(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from open_clip import factory, pretrained

    tiny = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    tag = {"hf_hub": "owner/tiny/", "quick_gelu": True, "mean": (0.5, 0.5, 0.5), "interpolation": "bilinear"}
    monkeypatch.setitem(factory._MODEL_CONFIGS, "ViT-Tiny", tiny)
    monkeypatch.setitem(pretrained._PRETRAINED, "ViT-Tiny", {"published": tag})
    (tmp_path / "tiny").mkdir()
    module = build_module({**tiny, "quick_gelu": True}, "tiny").eval()
    save_file(dict(module.state_dict()), tmp_path / "tiny" / "open_clip_model.safetensors")
    hub.repositories["owner/tiny"] = tmp_path / "tiny"
    lock = vendor("open_clip:ViT-Tiny/published", tmp_path / "vendored", ONLINE)
    assert lock.model == "open_clip:ViT-Tiny/published"
    config = json.loads((tmp_path / "vendored" / "open_clip_config.json").read_text())
    assert config["preprocess_cfg"] == {"mean": [0.5, 0.5, 0.5], "interpolation": "bilinear"}
    copy = load_model(f"local:{tmp_path / 'vendored'}")
    batch = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(copy.encode_images(batch), module.encode_image(batch))
    assert copy.fingerprint == load_model("open_clip:ViT-Tiny/published").fingerprint
    assert "bilinear" in repr(copy.transform)  # type: ignore[attr-defined]


def test_models_that_cannot_be_vendored(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="random weights"):
        vendor("open_clip:ViT-B-32/random", tmp_path / "vendored", OFFLINE)
    with pytest.raises(UnknownNameError, match="Did you mean biomedclip"):
        vendor("biomedclp", tmp_path / "vendored", OFFLINE)


def test_a_timm_tower_named_by_hub_id_becomes_a_folder(
    hub: HubServer, tmp_path: Path, block_sockets: Any, biomedclip_module: torch.nn.Module
) -> None:
    config = json.loads((tmp_path / "BiomedCLIP" / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["timm_model_name"] = "hf-hub:timm/test_vit.r160_in1k"
    (tmp_path / "BiomedCLIP" / "open_clip_config.json").write_text(json.dumps(config))
    tower = {"architecture": "test_vit", "pretrained_cfg": {"num_classes": 0}, "model_args": {"img_size": 160}}
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "config.json").write_text(json.dumps(tower))
    hub.repositories["timm/test_vit.r160_in1k"] = tmp_path / "timm"
    vendor("biomedclip", tmp_path / "vendored", ONLINE)
    block_sockets()
    vision = json.loads((tmp_path / "vendored" / "open_clip_config.json").read_text())["model_cfg"]["vision_cfg"]
    assert vision["timm_model_name"] == "local-dir:vision"
    batch = torch.randn(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    loaded = load_model(f"local:{tmp_path / 'vendored'}")
    assert torch.equal(loaded.encode_images(batch), biomedclip_module.encode_image(batch))


def test_weights_that_share_memory_are_written_apart(native_bundle: Path, tmp_path: Path) -> None:
    path = native_bundle / "open_clip_model.safetensors"
    tensors = load_file(path)
    path.unlink()
    joined = torch.stack([tensors["visual.conv1.weight"], torch.zeros_like(tensors["visual.conv1.weight"])], dim=-1)
    torch.save({**tensors, "visual.conv1.weight": joined[..., 0]}, native_bundle / "open_clip_pytorch_model.bin")
    vendor(f"local:{native_bundle}", tmp_path / "copy", OFFLINE)
    save_file(tensors, tmp_path / "plain.safetensors")
    converted = load_file(tmp_path / "copy" / "open_clip_model.safetensors")
    assert all(torch.equal(converted[key], tensors[key]) for key in tensors)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        (CARD, "mit"),
        ("# no front matter", "not stated"),
        ("---\ntags: [a]\n---\n", "not stated"),
        ("---\n{ broken: [\n---\n", "not stated"),
        ("---\n- a\n---\n", "not stated"),
    ],
)
def test_the_licence_of_a_card(card: str, licence: str) -> None:
    assert licence_in_card(card) == licence
