"""Text towers that look both ways and read their padding, with a tokenizer that has no start token (SigLIP's kind)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from medvlm_probe.errors import ModelError
from medvlm_probe.models import load_model
from medvlm_probe.models.open_clip_adapter import OpenClipModel, build_module
from medvlm_probe.models.open_clip_text import start_tokens, text_tower, token_lengths

WORDS = ["<pad>", "</s>", "<unk>", "a", "photo", "of", "chest", "x", "ray", "normal", "pneumonia"]
CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {
        "context_length": 12,
        "vocab_size": len(WORDS),
        "hf_tokenizer_name": "timm/some-tokenizer",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "width": 16,
        "heads": 2,
        "layers": 2,
        "no_causal_mask": True,
        "pool_type": "last",
        "proj_bias": True,
    },
}
TEXTS = ["A photo of a chest.", "normal", "x ray of pneumonia"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "siglip"
    folder.mkdir()
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    save_file(dict(build_module(CONFIG, "siglip").state_dict()), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {"mean": 0.5, "std": 0.5}})
    )
    return folder


@pytest.fixture
def model(bundle: Path) -> OpenClipModel:
    loaded = load_model(f"local:{bundle}")
    assert isinstance(loaded, OpenClipModel)
    return loaded


def test_equals_open_clips_own_loader(bundle: Path, model: OpenClipModel) -> None:
    theirs, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{bundle}")
    theirs.eval().requires_grad_(False)
    ids = open_clip.get_tokenizer(f"local-dir:{bundle}")(TEXTS)
    assert torch.equal(model.encode_texts(TEXTS), theirs.encode_text(ids))
    assert "mean=[0.5, 0.5, 0.5]" in repr(model.transform)
    assert "0.5" in repr(preprocess)


def test_padding_is_kept_because_it_is_read(model: OpenClipModel) -> None:
    assert model.embed_tokens(["normal"], 0).embeddings.shape == (1, 12, 16)
    prompts = model.embed_tokens(["normal"], 3)
    assert prompts.embeddings.shape == (1, 9, 16)
    assert prompts.with_context(torch.zeros(3, 16)).spliced().shape == (1, 12, 16)


def test_the_context_comes_before_the_first_word(model: OpenClipModel) -> None:
    assert start_tokens(model.tokenizer) == 0
    words = model.embed_tokens(["a photo of"], 0).embeddings[0, :3]
    prompts = model.embed_tokens(["normal chest", "pneumonia"], 3)
    written = model.encode_texts(["a photo of normal chest", "a photo of pneumonia"])
    torch.testing.assert_close(model.encode_prompts(prompts.with_context(words)), written)


def test_lengths_count_what_the_tokenizer_adds(model: OpenClipModel) -> None:
    assert token_lengths(model.tokenizer, ["A photo of a chest.", ""]) == [6, 1]
    with pytest.raises(ModelError, match="has 13 tokens"):
        model.encode_texts(["a " * 12])


def test_towers_without_one_embedding_per_text_are_refused() -> None:
    cfg = {**CONFIG, "text_cfg": {**CONFIG["text_cfg"], "pool_type": "none"}}
    with pytest.raises(ModelError, match="Text pooling 'none'"):
        text_tower(build_module(cfg, "x"))
