"""A model family's own evaluation transform, with a shortcut for grey images that changes no bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from medvlm_probe.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class EvalTransform:
    """A family's evaluation transform: resize and crop or pad, three channels, scale, normalise.

    A grey image stays one channel until after the crop, and then each of its 256 levels is looked up in a table that
    the family's own conversion made. Resizing treats channels alike and the rest is done pixel by pixel, so the result
    equals that of the same image as RGB to the last bit.

    Attributes:
        geometry: resize and crop or pad, on PIL images of any mode.
        to_pixels: from a PIL image to a normalised (3, H, W) float32 tensor.
        grey_levels: (3, 256) float32, what `to_pixels` makes of each grey level.
    """

    geometry: Callable[[Image.Image], Image.Image]
    to_pixels: Callable[[Image.Image], Tensor]
    grey_levels: NDArray[np.float32]

    def __call__(self, image: Image.Image) -> Tensor:
        """Return (3, H, W) float32 of an image of mode "L" or "RGB".

        Raises:
            ModelError: the image has another mode.
        """
        if image.mode not in ("L", "RGB"):
            raise ModelError(f"Image of mode '{image.mode}' given; expected 8-bit 'L' or 'RGB'.")
        framed = self.geometry(image)
        if framed.mode == "RGB":
            return self.to_pixels(framed)
        import torch

        return torch.from_numpy(self.grey_levels.take(np.asarray(framed), axis=1))


def build_transform(preprocess_cfg: Mapping[str, Any]) -> EvalTransform:
    """Return the evaluation transform of a complete open_clip preprocessing configuration.

    Raises:
        ModelError: a value that open_clip does not know.
    """
    from open_clip.transform import MaybeConvertMode, PreprocessCfg, image_transform_v2
    from torchvision.transforms import Compose

    try:
        steps = image_transform_v2(PreprocessCfg(**preprocess_cfg), is_train=False).transforms
    except (AssertionError, TypeError, ValueError) as error:
        raise ModelError(f"open_clip knows no such image transform: {dict(preprocess_cfg)}. {error}") from error
    split = next(i for i, step in enumerate(steps) if isinstance(step, MaybeConvertMode))
    to_pixels = Compose(steps[split:])
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None, :])
    return EvalTransform(
        geometry=Compose(steps[:split]), to_pixels=to_pixels, grey_levels=to_pixels(ramp)[:, 0].numpy()
    )
