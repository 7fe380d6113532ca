"""The evaluation transform against open_clip's own, to the last bit."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from medvlm_probe.errors import ModelError
from medvlm_probe.models.image_transform import build_transform

SETTINGS = [
    {},
    {"interpolation": "bilinear", "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)},
    {"resize_mode": "squash"},
    {"resize_mode": "longest", "fill_color": 7},
]


def preprocess_cfg(**changes: Any) -> dict[str, Any]:
    return {**asdict(PreprocessCfg(size=(56, 56))), **changes}


def grey(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8))


@pytest.mark.parametrize("changes", SETTINGS, ids=["default", "bilinear", "squash", "longest"])
@pytest.mark.parametrize("size", [(56, 56), (300, 211), (31, 64), (57, 1000)])
def test_equals_open_clips_own(changes: dict[str, Any], size: tuple[int, int], rng: np.random.Generator) -> None:
    cfg = preprocess_cfg(**changes)
    ours, theirs = build_transform(cfg), image_transform_v2(PreprocessCfg(**cfg), is_train=False)
    image = grey(rng, *size)
    colour = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    for given_image in (image, image.convert("RGB"), colour):
        result = ours(given_image)
        assert result.shape == (3, 56, 56)
        assert result.dtype == torch.float32
        assert result.is_contiguous()
        assert torch.equal(result, theirs(given_image))
    assert torch.equal(ours(image), theirs(image.convert("RGB")))


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 200), width=st.integers(1, 200), seed=st.integers(0, 2**16))
def test_grey_equals_the_same_image_in_three_channels(height: int, width: int, seed: int) -> None:
    transform = build_transform(preprocess_cfg())
    image = grey(np.random.default_rng(seed), height, width)
    assert torch.equal(transform(image), transform(image.convert("RGB")))


def test_every_grey_level_is_normalised(rng: np.random.Generator) -> None:
    cfg = preprocess_cfg(size=(16, 16), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = (levels[None] / 255.0 - np.array([0.1, 0.2, 0.3])[:, None, None]) / np.array([0.5, 0.25, 2])[
        :, None, None
    ]
    np.testing.assert_allclose(build_transform(cfg)(Image.fromarray(levels)).numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["P", "1", "LA", "RGBA", "I;16", "F", "CMYK"])
def test_other_modes_are_refused(mode: str) -> None:
    with pytest.raises(ModelError, match=f"mode '{mode}'"):
        build_transform(preprocess_cfg())(Image.new(mode, (60, 60)))


@pytest.mark.parametrize("changes", [{"interpolation": "sharpest"}, {"resize_mode": "twist"}, {"mode": "LAB"}])
def test_unknown_settings_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="no such image transform"):
        build_transform(preprocess_cfg(**changes))
