"""`medvlm-probe models`: the zoo's table, a folder vendored, checked, spoiled and refused."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from medvlm_probe.models import ZOO
from medvlm_probe.models.lock import LOCK_NAME, read_lock
from medvlm_probe.runs import sha256_file

from .conftest import Run


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every command of this file runs with sockets blocked and an empty Hugging Face cache."""

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError(f"an attempt to reach {arguments}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty-cache"))


@pytest.fixture
def vendored(run: Run, tmp_path: Path) -> Path:
    done = run("models", "vendor", "phantom-clip", "--to", tmp_path / "copy")
    assert done.code == 0, done.err
    return tmp_path / "copy"


def test_list_names_every_model_and_what_is_here(run: Run) -> None:
    done = run("models", "list")
    assert done.code == 0
    for name, spec in ZOO.items():
        assert name in done.out
        assert spec.licence in done.out
    assert "about 784 MB" in done.out
    models = {row["name"]: row for row in run("models", "list", "--json").json["models"]}
    assert models.keys() == ZOO.keys()
    assert models["phantom-clip"]["on_this_machine"] is True
    assert models["biomedclip"]["on_this_machine"] is False
    assert models["plip"]["caveats"]


@pytest.mark.parametrize("name", ZOO)
def test_show_tells_training_data_and_caveats(run: Run, name: str) -> None:
    done = run("models", "show", name)
    assert done.code == 0
    spec = ZOO[name]
    assert spec.summary in done.out
    assert all(f"Trained on: {data.dataset}" in done.out for data in spec.trained_on)
    assert all(caveat.text in done.out for caveat in spec.caveats)


def test_show_a_vendored_folder(run: Run, vendored: Path) -> None:
    done = run("models", "show", vendored)
    assert "Vendored: phantom-clip" in done.out
    assert "open_clip_model.safetensors" in done.out
    shown = run("models", "show", f"local:{vendored}", "--json").json
    assert shown["lock"]["model"] == shown["name"] == "phantom-clip"


def test_show_what_is_not_known(run: Run, tmp_path: Path) -> None:
    done = run("models", "show", "biomedclp")
    assert done.code == 2
    assert "Did you mean biomedclip" in done.err
    done = run("models", "show", "open_clip:ViT-B-32/openai")
    assert done.code == 2
    assert "models check open_clip:ViT-B-32/openai" in done.err


def test_vendor_says_what_to_do_next(run: Run, tmp_path: Path) -> None:
    done = run("models", "vendor", "phantom-clip", "--to", tmp_path / "copy")
    assert sha256_file(tmp_path / "copy" / LOCK_NAME) in done.out
    assert f"models check {tmp_path / 'copy'}" in done.err
    again = run("models", "vendor", "phantom-clip", "--to", tmp_path / "copy", "--json").json
    assert again["lock_sha256"] == sha256_file(tmp_path / "copy" / LOCK_NAME)
    assert again["n_files"] == len(read_lock(tmp_path / "copy").files)  # type: ignore[union-attr]


def test_check_measures_the_model(run: Run, vendored: Path) -> None:
    found = run("models", "check", vendored, "--json", "--device", "cpu").json
    assert found["name"] == "phantom-clip"
    assert (found["embedding_dim"], found["image_size"], found["context_length"]) == (128, 224, 128)
    assert found["logit_scale"] > 1
    assert found["parameters"] == pytest.approx(3.1, abs=0.1)
    assert found["min_cosine"] >= 0.9995
    assert found["images_per_second"]["float32"] > 0
    assert found["faults"] == []
    assert found["lock"]["model"] == "phantom-clip"


def test_a_fast_precision_that_is_too_far_is_a_note_and_no_fault(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medvlm_probe.embeddings.precision.MIN_COSINE", 1.1)
    done = run("models", "check", "phantom-clip", "--device", "cpu")
    assert done.code == 0
    assert "too far from float32" in done.err


def test_a_model_that_is_not_sound_ends_with_2(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from medvlm_probe.models.open_clip_adapter import OpenClipModel

    own = OpenClipModel.encode_images
    monkeypatch.setattr(OpenClipModel, "encode_images", lambda self, pixels: own(self, pixels) * float("nan"))
    done = run("models", "check", "phantom-clip", "--device", "cpu")
    assert done.code == 2
    assert "loads, but is not sound" in done.err
    assert "not finite" in done.err


def test_check_shows_what_was_changed_and_ends_with_2(run: Run, vendored: Path) -> None:
    with (vendored / "text" / "config.json").open("a") as file:
        file.write(" ")
    (vendored / "vocab.txt").unlink(missing_ok=True)
    done = run("models", "check", vendored)
    assert done.code == 2
    assert "text/config.json" in done.out
    assert "changed" in done.out
    assert "Copy the folder again" in done.err
    assert "models vendor phantom-clip --to NEW_FOLDER" in done.err
    assert "Traceback" not in done.err


def test_check_of_a_model_that_is_not_here(run: Run) -> None:
    done = run("models", "check", "biomedclip", "--offline")
    assert done.code == 2
    assert "is not in the Hugging Face cache" in done.err
    done = run("models", "vendor", "plip", "--to", "x", "--offline")
    assert done.code == 2
    assert "vinid/plip is not in the Hugging Face cache" in done.err


def test_check_of_a_folder_without_a_model(run: Run, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    done = run("models", "check", tmp_path / "nothing")
    assert done.code == 2
    assert "no model of a known kind" in done.err


def test_embed_with_a_vendored_model_end_to_end(run: Run, vendored: Path) -> None:
    done = run("embed", "--model", f"local:{vendored}", "--cohort", "phantom:n=2", "--json", "--device", "cpu")
    assert done.code == 0, done.err
    counts = json.loads(done.out)
    assert counts["embedded"] == counts["images"] > 0
    assert counts["dimensions"] == 128


def test_embed_refuses_a_changed_copy(run: Run, vendored: Path) -> None:
    weights = vendored / "open_clip_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    done = run("embed", "--model", f"local:{vendored}", "--cohort", "phantom:n=2")
    assert done.code == 2
    assert "open_clip_model.safetensors has SHA-256" in done.err
