"""QuiltNet's published layout: open_clip's ViT-B/32 as a hub folder, read by the open_clip adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from medvlm_probe.models import VisionLanguageModel, load_model
from medvlm_probe.models.open_clip_adapter import build_module

# QuiltNet-B-32 is open_clip's ViT-B/32 as its `push_to_hf_hub` writes it.
PUBLISHED: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 512,
        "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
    },
    "preprocess_cfg": {
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
    },
}
TEXTS = ["An H&E image of mucus.", "An H&E image of colorectal adenocarcinoma epithelium."]


def write_quiltnet(folder: Path, layers: int) -> VisionLanguageModel:
    """Write random weights in the published layout, each tower that many layers deep, and load them."""
    config = json.loads(json.dumps(PUBLISHED))
    for tower in ("vision_cfg", "text_cfg"):
        config["model_cfg"][tower]["layers"] = layers
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    torch.save(build_module(config["model_cfg"], "quiltnet").state_dict(), folder / "open_clip_pytorch_model.bin")
    return load_model(f"local:{folder}")


def assert_equals_open_clip(folder: Path, model: VisionLanguageModel, rng: np.random.Generator) -> None:
    theirs, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    theirs.eval().requires_grad_(False)
    image = Image.fromarray(rng.integers(0, 256, (260, 250, 3), dtype=np.uint8))
    batch = preprocess(image)[None]
    assert torch.equal(model.preprocess(image)[None], batch)
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)
    with torch.inference_mode():
        images, texts = theirs.encode_image(batch), theirs.encode_text(tokens)
        torch.testing.assert_close(model.encode_images(batch), images, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model.encode_texts(TEXTS), texts, rtol=1e-5, atol=1e-5)
    assert model.logit_scale == pytest.approx(float(theirs.logit_scale.exp()))


@pytest.mark.usefixtures("no_network")
def test_the_published_layout_equals_open_clip(tmp_path: Path, rng: np.random.Generator) -> None:
    model = write_quiltnet(tmp_path, layers=1)
    assert_equals_open_clip(tmp_path, model, rng)
    assert (model.embedding_dim, model.image_size, model.context_length) == (512, 224, 77)


@pytest.mark.slow
def test_the_true_size_equals_open_clip(tmp_path: Path, rng: np.random.Generator) -> None:
    model = write_quiltnet(tmp_path, layers=12)
    assert_equals_open_clip(tmp_path, model, rng)
    assert model.saliency_layer().name == "visual.transformer.resblocks.11.ln_1"


def test_words_as_context_equal_the_same_words_as_text(tmp_path: Path) -> None:
    model = write_quiltnet(tmp_path, layers=1)
    words = model.embed_tokens(["An H&E image of"], 0).embeddings[0, 1:7]
    spliced = model.embed_tokens(["mucus.", "debris."], 6).with_context(words)
    written = model.encode_texts(["An H&E image of mucus.", "An H&E image of debris."])
    torch.testing.assert_close(model.encode_prompts(spliced), written, rtol=1e-5, atol=1e-5)
