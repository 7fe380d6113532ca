"""Small models with random weights of the true structures, in the true file formats."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from medvlm_probe.models.open_clip_adapter import OpenClipModel, build_module, wrap_module

WORDS = [
    "there",
    "is",
    "no",
    "x",
    "ray",
    "chest",
    "of",
    "normal",
    "pneumonia",
    "cardio",
    "##mega",
    "##ly",
    "a",
    "photo",
]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *LETTERS, *(f"##{c}" for c in LETTERS), ".", "-"]

BERT_REPOSITORY = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
BERT_CONFIG = {
    "architectures": ["BertForMaskedLM"],
    "model_type": "bert",
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "vocab_size": len(dict.fromkeys(VOCABULARY)),
    "pad_token_id": 0,
}
# BiomedCLIP's published configuration with small towers: timm's smallest ViT with CLS pooling, and BERT.
BIOMEDCLIP_CONFIG = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 160},
        "text_cfg": {
            "hf_model_name": BERT_REPOSITORY,
            "hf_tokenizer_name": BERT_REPOSITORY,
            "hf_proj_type": "mlp",
            "hf_pooler_type": "cls_last_hidden_state_pooler",
            "context_length": 32,
        },
    },
    "preprocess_cfg": {
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
    },
}
NATIVE_CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_tokenizer(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(VOCABULARY)) + "\n")
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": True})


def varied(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Set every parameter at random, so that none is silently zero or one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name == "logit_scale":
                parameter.fill_(float(np.log(85.2)))
            else:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise * 0.2 + (1.0 if parameter.ndim == 1 and "weight" in name else 0.0))
    return module


def build_biomedclip(folder: Path) -> torch.nn.Module:
    """Write the files of BiomedCLIP's published repository to `folder / "BiomedCLIP"`; return open_clip's own model.

    The weights are a `.bin` with the `position_ids` of old versions of transformers. BERT's own small files lie in
    `folder / "bert"`, as in a repository of its own.
    """
    write_json(folder / "bert" / "config.json", BERT_CONFIG)
    write_tokenizer(folder / "bert")
    cfg = json.loads(json.dumps(BIOMEDCLIP_CONFIG["model_cfg"]))
    cfg["text_cfg"]["hf_model_name"] = str(folder / "bert")
    module = varied(build_module(cfg, "tiny")).eval().requires_grad_(False)
    published = folder / "BiomedCLIP"
    write_json(published / "open_clip_config.json", BIOMEDCLIP_CONFIG)
    write_tokenizer(published)
    tensors = {**module.state_dict(), "text.transformer.embeddings.position_ids": torch.arange(64)[None]}
    torch.save(tensors, published / "open_clip_pytorch_model.bin")
    return module


def build_biomedclip_bundle(folder: Path) -> Path:
    """Return the published files with the text tower's configuration beside them: a folder that loads offline."""
    build_biomedclip(folder)
    write_json(folder / "BiomedCLIP" / "text" / "config.json", BERT_CONFIG)
    return folder / "BiomedCLIP"


def build_native(text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None, **top: Any) -> OpenClipModel:
    """Return a small model with CLIP's own towers; keywords replace keys of its text or image configuration."""
    from open_clip.tokenizer import SimpleTokenizer

    cfg = {
        **NATIVE_CONFIG,
        "text_cfg": {**NATIVE_CONFIG["text_cfg"], **(text or {})},
        "vision_cfg": {**NATIVE_CONFIG["vision_cfg"], **(vision or {})},
        **top,
    }
    module = varied(build_module(cfg, "native"))
    return wrap_module("native", module, cfg, SimpleTokenizer(context_length=cfg["text_cfg"]["context_length"]))


@pytest.fixture(scope="session")
def make_native() -> Callable[..., OpenClipModel]:
    """`build_native` for tests."""
    return build_native


@pytest.fixture(scope="session")
def make_biomedclip_bundle() -> Callable[[Path], Path]:
    """`build_biomedclip_bundle` for tests."""
    return build_biomedclip_bundle


@pytest.fixture
def biomedclip_module(tmp_path: Path) -> torch.nn.Module:
    """open_clip's model of BiomedCLIP's structure; its files lie in `tmp_path / "BiomedCLIP"` and `"bert"`."""
    return build_biomedclip(tmp_path)


@pytest.fixture
def biomedclip_bundle(tmp_path: Path) -> Path:
    """`build_biomedclip_bundle` in a folder of the test's own."""
    return build_biomedclip_bundle(tmp_path)


@pytest.fixture
def native_bundle(tmp_path: Path) -> Path:
    """A folder with a native CLIP in safetensors, as `local:` takes it."""
    folder = tmp_path / "native"
    write_json(folder / "open_clip_config.json", {"model_cfg": NATIVE_CONFIG, "preprocess_cfg": {}})
    save_file(dict(varied(build_module(NATIVE_CONFIG, "native")).state_dict()), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """Every attempt to reach a host fails and is noted, and the Hugging Face cache is an empty folder."""
    attempts: list[str] = []

    def refuse(*args: Any, **kwargs: Any) -> None:
        attempts.append(repr(args))
        raise OSError("blocked by the test")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty-cache"))
    yield attempts
    assert attempts == []
