"""CLIPImageProcessor's result from its saved settings, to the last bit, through PIL and a table of grey levels.

From the start transformers has resized CLIP's images through PIL. Version 5 calls that `CLIPImageProcessorPil` and by
default lets torchvision resize, which rounds some pixels to a neighbouring grey level. This is PIL's result, which
published models were used with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from medvlm_probe.errors import ModelError
from medvlm_probe.models.bundle import read_json
from medvlm_probe.models.image_transform import EvalTransform

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

PROCESSOR_NAME = "preprocessor_config.json"
NEW_PROCESSOR_NAME = "processor_config.json"
PROCESSOR_TYPES = ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil", "CLIPFeatureExtractor")
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ClipImageSettings:
    """What a CLIP image processor does, in its order: resize, crop about the centre, scale, normalise.

    Attributes:
        shortest_edge: length of the shorter edge after resizing; None to resize to `crop` as it is.
        resample: PIL's number of the interpolation (3: bicubic).
        crop: (height, width) of the result, in pixels.
        scale: factor from grey levels to the range that `mean` and `std` are given in.
        mean: per channel.
        std: per channel.
    """

    shortest_edge: int | None
    resample: int
    crop: tuple[int, int]
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class ResizeAndCrop:
    """Resize an image of any mode, then cut its middle; of an odd margin, the smaller half lies left and above."""

    settings: ClipImageSettings

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return the image at `settings.crop`."""
        height, width = self.settings.crop
        resample = Image.Resampling(self.settings.resample)
        if self.settings.shortest_edge is None:
            return image.resize((width, height), resample)
        short, long = min(image.size), max(image.size)
        new_long = int(self.settings.shortest_edge * long / short)
        size = (self.settings.shortest_edge, new_long)
        resized = image.resize(size if image.width <= image.height else size[::-1], resample)
        left, top = (resized.width - width) // 2, (resized.height - height) // 2
        return resized.crop((left, top, left + width, top + height))


@dataclass(frozen=True, eq=False)
class LevelTable:
    """From an 8-bit RGB image to pixels, each level looked up.

    Attributes:
        levels: (3, 256) float32, what each channel's levels become.
    """

    levels: NDArray[np.float32]

    def __call__(self, image: Image.Image) -> Tensor:
        """Return (3, H, W) float32 of an RGB image."""
        import torch

        channels = np.moveaxis(np.asarray(image), -1, 0)
        return torch.from_numpy(np.stack([row[channel] for row, channel in zip(self.levels, channels, strict=True)]))


def read_image_settings(folder: Path, image_size: int) -> ClipImageSettings:
    """Return the settings of the image processor saved in a model's folder.

    Args:
        folder: with `preprocessor_config.json`, or version 5's `processor_config.json`.
        image_size: side of the images that the image tower takes.

    Raises:
        ModelError: neither file is there, or the settings are of another kind than CLIP's or give another size.
    """
    path, config = _processor_config(folder)
    kind = config.get("image_processor_type", config.get("feature_extractor_type", PROCESSOR_TYPES[0]))
    if kind not in PROCESSOR_TYPES:
        raise ModelError(f"{path} is for a {kind}; expected one of {', '.join(PROCESSOR_TYPES)}.")
    try:
        settings = _settings(config)
    except (TypeError, ValueError, KeyError) as error:
        raise ModelError(f"{path} holds settings that CLIPImageProcessor does not have: {error}") from error
    if settings.crop != (image_size, image_size):
        height, width = settings.crop
        raise ModelError(f"{path} gives images of {height} x {width} pixels; the image tower takes {image_size}.")
    return settings


def build_clip_transform(settings: ClipImageSettings) -> EvalTransform:
    """Return the transform of these settings, bit-equal to transformers' CLIP processor with PIL."""
    levels = level_table(settings.scale, settings.mean, settings.std)
    return EvalTransform(geometry=ResizeAndCrop(settings), to_pixels=LevelTable(levels), grey_levels=levels)


def level_table(scale: float, mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:
    """Return (3, 256) float32: each level scaled in float64, rounded to float32, then normalised in float32."""
    scaled = (np.arange(256, dtype=np.float64) * scale).astype(np.float32)
    centre, spread = np.array(mean, dtype=np.float32), np.array(std, dtype=np.float32)
    table: NDArray[np.float32] = (scaled[None, :] - centre[:, None]) / spread[:, None]
    return table


def _processor_config(folder: Path) -> tuple[Path, dict[str, Any]]:
    if (folder / PROCESSOR_NAME).is_file():
        return folder / PROCESSOR_NAME, read_json(folder / PROCESSOR_NAME)
    path = folder / NEW_PROCESSOR_NAME
    nested = read_json(path).get("image_processor") if path.is_file() else None
    if not isinstance(nested, dict):
        raise ModelError(f"{folder / PROCESSOR_NAME} is missing (the image transform). Add it to the model's folder.")
    return path, nested


def _settings(config: Mapping[str, Any]) -> ClipImageSettings:
    if not config.get("do_resize", True) or config.get("do_pad"):
        raise ValueError("only processors that resize and do not pad are supported")
    shortest_edge, resized = _size(config.get("size", 224))
    crop = resized
    if config.get("do_center_crop", True):
        edge, box = _size(config.get("crop_size", 224))
        crop = (edge, edge) if edge is not None else box
    if crop is None or (shortest_edge is not None and max(crop) > shortest_edge):
        raise ValueError(f"images resized to {config.get('size')} cannot be cropped to {config.get('crop_size')}")
    if resized is not None and resized != crop:
        raise ValueError(f"size {resized} and crop_size {crop} differ")
    normalised = config.get("do_normalize", True)
    return ClipImageSettings(
        shortest_edge=shortest_edge,
        resample=int(Image.Resampling(config.get("resample", Image.Resampling.BICUBIC))),
        crop=crop,
        scale=float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0,
        mean=_channels(config.get("image_mean", CLIP_MEAN)) if normalised else (0.0, 0.0, 0.0),
        std=_channels(config.get("image_std", CLIP_STD)) if normalised else (1.0, 1.0, 1.0),
    )


def _size(value: object) -> tuple[int | None, tuple[int, int] | None]:
    """Return (shortest edge, None) or (None, (height, width)) of a size as any version of transformers writes it."""
    if isinstance(value, int):
        return value, None
    given = {key: v for key, v in value.items() if v is not None} if isinstance(value, Mapping) else {}
    if given.keys() == {"shortest_edge"}:
        return int(given["shortest_edge"]), None
    if given.keys() == {"height", "width"}:
        return None, (int(given["height"]), int(given["width"]))
    raise ValueError(f"size {value!r}")


def _channels(values: Any) -> tuple[float, ...]:
    per_channel = tuple(float(value) for value in values)
    if len(per_channel) != 3:
        raise ValueError(f"{len(per_channel)} values for three channels")
    return per_channel
