"""Published models: out of a Hugging Face cache, from a hub on this machine, and from open_clip's tags."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from medvlm_probe.errors import ModelError
from medvlm_probe.models import load_model
from medvlm_probe.models.open_clip_adapter import build_module
from medvlm_probe.models.zoo import BIOMEDCLIP_REPOSITORY

BERT_REPOSITORY = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
REVISION = "0123456789abcdef0123456789abcdef01234567"


def put_into_cache(cache: Path, repository: str, files: Path) -> Path:
    """Lay a folder's files out as huggingface_hub caches them: blobs, and a snapshot of links to them."""
    base = cache / f"models--{repository.replace('/', '--')}"
    snapshot = base / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (base / "blobs").mkdir()
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text(REVISION)
    for path in files.iterdir():
        blob = hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copy(path, base / "blobs" / blob)
        (snapshot / path.name).symlink_to(f"../../blobs/{blob}")
    return snapshot


@pytest.fixture
def cache(tmp_path: Path, biomedclip_module: torch.nn.Module) -> Path:
    """A cache that holds the published files of BiomedCLIP (with small towers) and of its BERT."""
    put_into_cache(tmp_path / "hub", BIOMEDCLIP_REPOSITORY, tmp_path / "BiomedCLIP")
    put_into_cache(tmp_path / "hub", BERT_REPOSITORY, tmp_path / "bert")
    return tmp_path / "hub"


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("offline", [False, True])
def test_biomedclip_comes_out_of_the_cache_with_no_network(
    cache: Path, biomedclip_module: torch.nn.Module, offline: bool
) -> None:
    model = load_model("biomedclip", cache_dir=cache, offline=offline)
    assert model.name == "biomedclip"
    batch = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.encode_images(batch), biomedclip_module.encode_image(batch))
    ids = model.tokenizer(["there is no pneumonia"])  # type: ignore[attr-defined]
    torch.testing.assert_close(model.encode_texts(["there is no pneumonia"]), biomedclip_module.encode_text(ids))


@pytest.mark.usefixtures("no_network")
def test_a_cached_snapshot_is_also_a_local_folder_once_it_has_the_text_configuration(cache: Path) -> None:
    published = load_model("biomedclip", cache_dir=cache)
    snapshot = next((cache / f"models--{BIOMEDCLIP_REPOSITORY.replace('/', '--')}" / "snapshots").iterdir())
    with pytest.raises(ModelError, match=r"add text/config\.json"):
        load_model(f"local:{snapshot}")
    (snapshot / "text").mkdir()
    bert = cache / f"models--{BERT_REPOSITORY.replace('/', '--')}" / "snapshots" / REVISION / "config.json"
    shutil.copy(bert, snapshot / "text")
    assert load_model(f"local:{snapshot}").fingerprint == published.fingerprint


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("repository", [BIOMEDCLIP_REPOSITORY, BERT_REPOSITORY])
def test_absent_files_offline_say_how_to_get_them(cache: Path, repository: str) -> None:
    shutil.rmtree(cache / f"models--{repository.replace('/', '--')}")
    with pytest.raises(ModelError, match=f"{repository} is not in .*{cache}.*hf download {repository}.*local:FOLDER"):
        load_model("biomedclip", cache_dir=cache, offline=True)


@pytest.mark.usefixtures("no_network")
def test_safetensors_in_the_cache_come_first(cache: Path, biomedclip_module: torch.nn.Module) -> None:
    snapshot = cache / f"models--{BIOMEDCLIP_REPOSITORY.replace('/', '--')}" / "snapshots" / REVISION
    (snapshot / "open_clip_pytorch_model.bin").unlink()
    (snapshot / "open_clip_pytorch_model.bin").write_bytes(b"never read")
    save_file(dict(biomedclip_module.state_dict()), snapshot / "open_clip_model.safetensors")
    batch = torch.randn(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    model = load_model("biomedclip", cache_dir=cache)
    assert torch.equal(model.encode_images(batch), biomedclip_module.encode_image(batch))


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face hub as `hf_hub_download` asks for."""

    def __init__(self, repositories: dict[str, Path], asked: list[str], *args: object) -> None:
        self.repositories, self.asked = repositories, asked
        super().__init__(*args)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *args: object) -> None:
        pass

    def _answer(self, with_body: bool) -> None:
        self.asked.append(f"{self.command} {self.path}")
        repository, _, rest = self.path.lstrip("/").partition("/resolve/")
        file = self.repositories.get(repository, Path("nowhere")) / rest.partition("/")[2]
        if not file.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if repository in self.repositories else "RepoNotFound")
            self.send_header("X-Repo-Commit", REVISION)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = file.read_bytes()
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def hub(tmp_path: Path, biomedclip_module: torch.nn.Module, asked: list[str]) -> Iterator[str]:
    repositories = {BIOMEDCLIP_REPOSITORY: tmp_path / "BiomedCLIP", BERT_REPOSITORY: tmp_path / "bert"}
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, repositories, asked))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


FETCH_THEN_LOAD_AGAIN = """
import sys
from medvlm_probe.errors import ModelError
from medvlm_probe.models import hub, load_model
first = load_model("biomedclip")
print("fetched", flush=True)
sys.stdin.readline()
again = load_model("biomedclip")
assert again.fingerprint == first.fingerprint
assert again.encode_texts(["normal chest x ray"]).shape == (1, 16)
for repository, message in [("microsoft/nothing", "has no repository"), ("no/such", "has no repository")]:
    try:
        hub.hub_bundle(repository, "x")
    except ModelError as error:
        assert message in str(error), error
    else:
        raise AssertionError(repository)
print("done")
"""


@pytest.mark.slow
def test_an_absent_model_is_fetched_once(hub: str, asked: list[str], tmp_path: Path) -> None:
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("HF_")},
        "HF_ENDPOINT": hub,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "no_proxy": "127.0.0.1",
    }
    with subprocess.Popen(
        [sys.executable, "-c", FETCH_THEN_LOAD_AGAIN],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "fetched\n", process.communicate()[1]
        gets = [line for line in asked if line.startswith("GET")]
        assert len(gets) == len(set(gets))
        assert {line.rpartition("/")[2] for line in gets} == {
            "open_clip_config.json",
            "open_clip_pytorch_model.bin",
            "config.json",
            "vocab.txt",
            "tokenizer_config.json",
        }
        asked.clear()
        out, err = process.communicate("\n")
    assert out == "done\n", err
    assert {line.split("/resolve")[0].partition(" /")[2] for line in asked} == {"microsoft/nothing", "no/such"}


def test_an_unreachable_hub_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> str:
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(ModelError, match=r"could not be fetched .*no route to host\).*local:FOLDER"):
        load_model("biomedclip", cache_dir=tmp_path)


def test_hub_switched_off_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="the hub is switched off"):
        load_model("biomedclip", cache_dir=tmp_path)


TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@pytest.fixture
def tiny_architecture(monkeypatch: pytest.MonkeyPatch) -> str:
    """A small architecture of that name in open_clip's own table, with one published tag."""
    from open_clip import factory, pretrained

    monkeypatch.setitem(factory._MODEL_CONFIGS, "ViT-Tiny", TINY)
    tag = {"hf_hub": "laion/tiny/", "quick_gelu": True, "mean": (0.5, 0.5, 0.5), "interpolation": "bilinear"}
    monkeypatch.setitem(pretrained._PRETRAINED, "ViT-Tiny", {"published": tag})
    return "ViT-Tiny"


def tiny_module(**changes: object) -> torch.nn.Module:
    torch.manual_seed(3)
    return build_module({**TINY, **changes}, "tiny").eval().requires_grad_(False)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_an_architecture_with_a_local_weights_file(tiny_architecture: str, tmp_path: Path, suffix: str) -> None:
    module = tiny_module()
    path = tmp_path / f"epoch_32.{suffix}"
    if suffix == "pt":
        wrapped = {f"module.{key}": value for key, value in module.state_dict().items()}
        torch.save({"epoch": 32, "state_dict": wrapped}, path)
    else:
        save_file(dict(module.state_dict()), path)
    model = load_model(f"open_clip:{tiny_architecture}/{path}")
    assert model.name == f"open_clip:ViT-Tiny/epoch_32.{suffix}"
    batch = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.encode_images(batch), module.encode_image(batch))


@pytest.mark.usefixtures("no_network")
def test_a_published_tag_brings_its_activation_and_image_transform(tiny_architecture: str, tmp_path: Path) -> None:
    module = tiny_module(quick_gelu=True)
    files = tmp_path / "files"
    files.mkdir()
    save_file(dict(module.state_dict()), files / "open_clip_model.safetensors")
    put_into_cache(tmp_path / "hub", "laion/tiny", files)
    model = load_model(f"open_clip:{tiny_architecture}/published", cache_dir=tmp_path / "hub")
    assert model.name == "open_clip:ViT-Tiny/published"
    batch = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.encode_images(batch), module.encode_image(batch))
    assert "mean=[0.5, 0.5, 0.5]" in repr(model.transform)  # type: ignore[attr-defined]
    assert "bilinear" in repr(model.transform)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("no_network")
def test_random_weights_are_the_same_every_time(tiny_architecture: str) -> None:
    torch.manual_seed(11)
    first = load_model(f"open_clip:{tiny_architecture}/random")
    torch.manual_seed(12)
    second = load_model(f"open_clip:{tiny_architecture}/random")
    assert first.fingerprint == second.fingerprint
    batch = torch.randn(1, 3, 32, 32)
    assert torch.equal(first.encode_images(batch), second.encode_images(batch))


@pytest.mark.usefixtures("no_network")
def test_a_tag_that_is_not_cached_offline(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"timm/vit_base_patch32_clip_224\.openai is not in the Hugging Face cache"):
        load_model("open_clip:ViT-B-32/openai", cache_dir=tmp_path, offline=True)
