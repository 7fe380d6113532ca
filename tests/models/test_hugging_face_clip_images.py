"""CLIP's image transform against transformers' own processor, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hugging_face_folders import FIRST_PROCESSOR, LATER_PROCESSOR, write_json
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medvlm_probe.errors import ModelError
from medvlm_probe.models.hugging_face_clip_images import build_clip_transform, read_image_settings

# Version 5 keeps the processor that resizes through PIL under a name of its own.
Processor = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
SIDE = 48
SMALL: dict[str, Any] = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
SETTINGS: dict[str, dict[str, Any]] = {
    "first": {**FIRST_PROCESSOR, "size": SIDE, "crop_size": SIDE},
    "later": {**LATER_PROCESSOR, **SMALL},
    "larger before the crop": {**LATER_PROCESSOR, **SMALL, "size": {"shortest_edge": 57}},
    "squashed": {**LATER_PROCESSOR, **SMALL, "size": {"height": SIDE, "width": SIDE}},
    "no crop": {**LATER_PROCESSOR, "size": {"height": SIDE, "width": SIDE}, "do_center_crop": False},
    "bilinear, half range": {**LATER_PROCESSOR, **SMALL, "resample": 2, "rescale_factor": 1 / 127.5},
    "not normalised": {**LATER_PROCESSOR, **SMALL, "do_normalize": False},
    "not scaled": {**LATER_PROCESSOR, **SMALL, "do_rescale": False, "image_mean": [120, 110, 100]},
    "defaults": SMALL,
}


def write(folder: Path, config: dict[str, Any]) -> Path:
    write_json(folder / "preprocessor_config.json", config)
    return folder


def both(folder: Path, image: Image.Image) -> tuple[torch.Tensor, torch.Tensor]:
    ours = build_clip_transform(read_image_settings(folder, SIDE))(image)
    theirs = Processor.from_pretrained(folder)(images=image, return_tensors="pt").pixel_values[0]
    return ours, theirs


def grey(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8))


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("size", [(SIDE, SIDE), (301, 210), (31, 64), (57, 600), (20, 20)])
def test_equals_the_familys_own_bit_by_bit(
    kind: str, size: tuple[int, int], tmp_path: Path, rng: np.random.Generator
) -> None:
    folder = write(tmp_path, SETTINGS[kind])
    colour = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    for image in (grey(rng, *size), colour):
        ours, theirs = both(folder, image)
        assert ours.dtype == torch.float32
        assert ours.is_contiguous()
        assert torch.equal(ours, theirs)


@settings(max_examples=40, deadline=None)
@given(height=st.integers(4, 150), width=st.integers(4, 150), seed=st.integers(0, 2**16))
def test_any_size_equals_the_familys_own(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, seed: int
) -> None:
    folder = write(tmp_path_factory.mktemp("processor"), SETTINGS["larger before the crop"])
    ours, theirs = both(folder, grey(np.random.default_rng(seed), height, width))
    assert torch.equal(ours, theirs)


def test_settings_of_version_five_are_found(tmp_path: Path, rng: np.random.Generator) -> None:
    write_json(tmp_path / "processor_config.json", {"image_processor": SETTINGS["later"], "processor_class": "CLIP"})
    nested = read_image_settings(tmp_path, SIDE)
    assert nested == read_image_settings(write(tmp_path, SETTINGS["first"]), SIDE)


def test_torchvisions_resizing_is_a_level_or_two_away(tmp_path: Path, rng: np.random.Generator) -> None:
    """Version 5's default backend: why the adapter names PIL's."""
    folder = write(tmp_path, {**LATER_PROCESSOR, **SMALL, "do_normalize": False, "do_rescale": False})
    image = Image.fromarray(rng.integers(0, 256, (300, 211, 3), dtype=np.uint8))
    theirs = transformers.CLIPImageProcessor.from_pretrained(folder)(images=image, return_tensors="pt").pixel_values[0]
    assert float((both(folder, image)[0] - theirs).abs().max()) <= 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_processor_type": "ViTImageProcessor"}, "is for a ViTImageProcessor; expected one of CLIPImage"),
        ({"do_resize": False}, "only processors that resize"),
        ({"do_pad": True}, "do not pad"),
        ({"size": {"longest_edge": SIDE}}, "size .*longest_edge"),
        ({"size": [SIDE, SIDE]}, "size "),
        ({"size": {"height": 60, "width": SIDE}}, "differ"),
        ({"size": {"shortest_edge": 40}}, "cannot be cropped"),
        ({"do_center_crop": False}, "cannot be cropped"),
        ({"crop_size": {"height": 40, "width": 40}}, "gives images of 40 x 40 pixels; the image tower takes 48"),
        ({"crop_size": {"height": "wide", "width": 40}}, "does not have"),
        ({"resample": 99}, "99"),
        ({"resample": "sharpest"}, "sharpest"),
        ({"image_mean": [0.5]}, "1 values for three channels"),
        ({"image_std": 0.5}, "does not have"),
    ],
)
def test_other_settings_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    write(tmp_path, {**SETTINGS["later"], **change})
    with pytest.raises(ModelError, match=message):
        read_image_settings(tmp_path, SIDE)


@pytest.mark.parametrize("content", [None, {}, {"image_processor": None}])
def test_missing_settings_say_which_file_to_add(content: object, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "processor_config.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"preprocessor_config\.json is missing"):
        read_image_settings(tmp_path, SIDE)


def test_other_modes_are_refused(tmp_path: Path) -> None:
    transform = build_clip_transform(read_image_settings(write(tmp_path, SETTINGS["later"]), SIDE))
    with pytest.raises(ModelError, match="mode 'RGBA'"):
        transform(Image.new("RGBA", (60, 60)))
