"""The last block on kept tokens: the same numbers as the whole tower, a model left alone, a training that learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_prompts import small_clip
from tiny_tuning import QUICK

from medvlm_probe.errors import InputError
from medvlm_probe.tuning.last_block import LastBlock
from medvlm_probe.tuning.linear_probe import fit_linear_probe

LABELS = ("edema",)


def material(model: object, n: int = 48) -> tuple[torch.Tensor, np.ndarray]:
    """Images whose left half is bright where the label is present."""
    rng = np.random.default_rng(0)
    y = (np.arange(n) % 2).astype(float)[:, None]
    pixels = torch.from_numpy(rng.normal(size=(n, 3, 32, 32)).astype(np.float32))
    pixels[y[:, 0] == 1, :, :, :16] += 0.7
    return pixels, y


def test_tokens_through_the_last_block_are_the_tower_s_embeddings() -> None:
    model = small_clip()
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    block = LastBlock(model)
    pixels, _ = material(model, 5)
    tokens = block.tokens(pixels)
    assert tokens.shape[0] == 5
    with torch.no_grad():
        assert torch.allclose(block.embed(tokens), model.encode_images(pixels), atol=1e-5)
        assert torch.allclose(block.embed(tokens[[3, 1]]), model.encode_images(pixels[[3, 1]]), atol=1e-5)
    assert all(torch.equal(before[name], value) for name, value in model.module.state_dict().items())


def test_training_learns_begins_at_the_probe_and_leaves_the_model_alone() -> None:
    model = small_clip()
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    pixels, y = material(model)
    with torch.no_grad():
        vectors = model.encode_images(pixels).numpy()
    probe = fit_linear_probe(vectors, y, np.arange(len(y)), LABELS, strengths=(1e-2,), n_folds=2)
    block = LastBlock(model)
    start = block.tower.state()
    tokens, chosen = block.tokens(pixels), np.arange(len(y)) % 3 == 0
    settings = replace(QUICK, epochs=6, patience=6, rate=3e-3, head_rate=1e-3)
    tuned = block.train(tokens, vectors, y, chosen, probe.head, settings, start)
    again = block.train(tokens, vectors, y, chosen, probe.head, settings, start)
    logits = probe.head.logits(vectors[chosen])
    loss = np.logaddexp(0, logits) - y[chosen] * logits
    assert tuned.validation[0] == pytest.approx(loss.mean(), rel=1e-3)
    assert min(tuned.validation) < tuned.validation[0]
    assert tuned.kept_epoch == int(np.argmin(tuned.validation))
    assert tuned.validation == again.validation
    kept = block.logits(tuned, tokens[chosen]).double().numpy()
    assert float((np.logaddexp(0, kept) - y[chosen] * kept).mean()) == pytest.approx(min(tuned.validation), rel=1e-4)
    assert all(torch.equal(before[name], value) for name, value in model.module.state_dict().items())
    with pytest.raises(InputError, match="others to choose"):
        block.train(tokens, vectors, y, np.zeros(len(y), bool), probe.head, settings, start)
