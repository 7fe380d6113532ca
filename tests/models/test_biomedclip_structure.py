"""BiomedCLIP in its true structure and size of files: vendored from a hub, then used with sockets blocked."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import HubServer, serving, use_hub

from medvlm_probe.cli.model_probe import probe_model
from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.embeddings.extract import embed
from medvlm_probe.models import LoadOptions, load_model
from medvlm_probe.models.open_clip_adapter import build_module
from medvlm_probe.models.vendor import vendor
from medvlm_probe.models.zoo import BIOMEDBERT_REPOSITORY, BIOMEDCLIP_REPOSITORY

# As the two repositories publish them.
CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 512,
        "vision_cfg": {
            "timm_model_name": "vit_base_patch16_224",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": 224,
        },
        "text_cfg": {
            "hf_model_name": BIOMEDBERT_REPOSITORY,
            "hf_tokenizer_name": BIOMEDBERT_REPOSITORY,
            "hf_proj_type": "mlp",
            "hf_pooler_type": "cls_last_hidden_state_pooler",
            "context_length": 256,
        },
    },
    "preprocess_cfg": {
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
    },
}
BERT: dict[str, Any] = {
    "architectures": ["BertForMaskedLM"],
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "type_vocab_size": 2,
    "vocab_size": 30522,
}
TEXTS = ["there is cardiomegaly", "there is no pleural effusion"]


def publish(folder: Path) -> torch.nn.Module:
    """Write both repositories with random weights; return open_clip's own model with them."""
    bert, published = folder / "bert", folder / "BiomedCLIP"
    bert.mkdir()
    published.mkdir()
    (bert / "config.json").write_text(json.dumps(BERT))
    specials = ["[PAD]", *(f"[unused{n}]" for n in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = ["there", "is", "no", "cardio", "##mega", "##ly", "pleural", "ef", "##fusion"]
    filling = [f"word{n}" for n in range(BERT["vocab_size"] - len(specials) - len(words))]
    (bert / "vocab.txt").write_text("\n".join([*specials, *words, *filling]) + "\n")
    (bert / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    (published / "open_clip_config.json").write_text(json.dumps(CONFIG))
    (published / "README.md").write_text("---\nlicense: mit\n---\n# BiomedCLIP\n")
    cfg = json.loads(json.dumps(CONFIG["model_cfg"]))
    cfg["text_cfg"]["hf_model_name"] = str(bert)
    torch.manual_seed(0)
    module = build_module(cfg, "BiomedCLIP").eval().requires_grad_(False)
    module.logit_scale.fill_(4.4454)  # type: ignore[operator]
    position_ids = {"text.transformer.embeddings.position_ids": torch.arange(512)[None]}
    torch.save({**module.state_dict(), **position_ids}, published / "open_clip_pytorch_model.bin")
    return module


@pytest.mark.slow
def test_vendored_and_used_with_sockets_blocked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = publish(tmp_path)
    weights = tmp_path / "BiomedCLIP" / "open_clip_pytorch_model.bin"
    assert weights.stat().st_size == pytest.approx(784e6, rel=0.01)
    hub = HubServer({BIOMEDCLIP_REPOSITORY: tmp_path / "BiomedCLIP", BIOMEDBERT_REPOSITORY: tmp_path / "bert"})
    with serving(hub), monkeypatch.context() as patched:
        use_hub(patched, hub.url, tmp_path / "cache")
        lock = vendor("biomedclip", tmp_path / "vendored", LoadOptions())
    assert lock.size == pytest.approx(784e6, rel=0.01)

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError(f"an attempt to reach {arguments}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("MEDVLM_PROBE_CACHE", str(tmp_path / "embeddings"))
    model = load_model(f"local:{tmp_path / 'vendored'}")
    assert model.name == "biomedclip"
    assert (model.embedding_dim, model.image_size, model.context_length) == (512, 224, 256)
    assert model.logit_scale == pytest.approx(85.2, abs=0.1)

    cohort = load_cohort("phantom:n=1")
    embedded = embed(cohort, model, precision="float32")
    with torch.inference_mode():
        pixels = torch.stack([model.preprocess(cohort.source.read(row)) for row in range(len(cohort))])
        expected = module.encode_image(pixels)  # type: ignore[operator]
        torch.testing.assert_close(torch.from_numpy(embedded.vectors), expected, rtol=1e-4, atol=1e-5)
        ids = model.tokenizer(TEXTS)  # type: ignore[attr-defined]
        assert ids.shape == (2, 256)
        torch.testing.assert_close(
            model.encode_texts(TEXTS),
            module.encode_text(ids),  # type: ignore[operator]
            rtol=1e-4,
            atol=1e-5,
        )
    assert probe_model(model).faults == ()
