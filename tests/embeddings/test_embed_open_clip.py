"""`embed` with the real adapter on small open_clip models with random weights, and on phantoms."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_embedding_model import cohort_of, write_images

from medvlm_probe.cohort.catalog import load_cohort
from medvlm_probe.embeddings.extract import embed
from medvlm_probe.embeddings.precision import at_precision, encode, min_cosine
from medvlm_probe.models.open_clip_adapter import OpenClipModel, build_module, wrap_module

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
TOWERS: dict[str, dict[str, Any]] = {
    "native": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "timm": {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 160},
    "resnet": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "head_width": 16, "patch_size": None},
}


@cache
def tokenizer() -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(context_length=16)


def build(tower: str) -> OpenClipModel:
    torch.manual_seed(0)
    config = {"embed_dim": 24, "vision_cfg": TOWERS[tower], "text_cfg": TEXT}
    return wrap_module(tower, build_module(config, tower), config, tokenizer())


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_vectors_equal_open_clips_own(tmp_path: Path, tower: str, precision: str) -> None:
    model = build(tower)
    cohort = cohort_of(tmp_path / "images", write_images(tmp_path / "images", range(11)))
    with torch.inference_mode():
        pixels = torch.stack([model.preprocess(cohort.source.read(row)) for row in range(11)])
        expected = model.module.encode_image(pixels)
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    result = embed(
        cohort, model, precision=precision, batch_size=4, shard_size=6, workers=2, cache_dir=tmp_path / "cache"
    )
    assert result.vectors.shape == (11, model.embedding_dim)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.module.state_dict().items())
    if precision == "float32":
        np.testing.assert_allclose(result.vectors, expected.numpy(), rtol=1e-4, atol=1e-5)
    else:
        assert result.min_cosine is not None
        assert result.min_cosine >= 0.9995
        assert min_cosine(expected, torch.from_numpy(result.vectors)) >= 0.9995


def test_a_converted_copy_shares_nothing_that_was_converted() -> None:
    model = build("native")
    twin = at_precision(model, "bfloat16")
    assert isinstance(twin, OpenClipModel)
    assert (twin.fingerprint, twin.tokenizer, twin.device) == (model.fingerprint, model.tokenizer, model.device)
    assert {p.dtype for p in twin.module.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.module.parameters()} == {torch.float32}
    assert encode(twin, torch.zeros(1, 3, 32, 32), "bfloat16").dtype == torch.float32


def test_phantoms_are_embedded_without_files(tmp_path: Path) -> None:
    cohort = load_cohort("phantom:sites=reference+portable,n=5,size=64")
    model = build("native")
    result = embed(cohort, model, precision="float32", batch_size=4, cache_dir=tmp_path / "cache")
    assert (result.n_used, result.n_unique) == (10, 10)
    with torch.inference_mode():
        pixels = torch.stack([model.preprocess(cohort.source.read(row)) for row in range(10)])
        expected = model.module.encode_image(pixels).numpy()
    np.testing.assert_allclose(result.vectors, expected, rtol=1e-4, atol=1e-5)
    again = embed(cohort, model, precision="float32", cache_dir=tmp_path / "cache")
    assert again.n_computed == 0
