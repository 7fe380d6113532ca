"""Maps on the original's pixels: what is drawn on an image is found again where it was."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torchvision.transforms import CenterCrop, Compose, RandomCrop, Resize

from medvlm_probe.errors import InputError, ModelError
from medvlm_probe.models.hugging_face_clip_images import ClipImageSettings, build_clip_transform
from medvlm_probe.models.image_transform import EvalTransform, build_transform
from medvlm_probe.models.medclip_towers import medclip_transform
from medvlm_probe.saliency.pixel_geometry import PixelGeometry, geometry_of

SIDE, PATCH = 224, 16
PLAIN = {"size": [SIDE, SIDE], "mean": [0.0] * 3, "std": [1.0] * 3, "mode": "RGB", "interpolation": "bicubic"}


def clip(shortest: int | None) -> EvalTransform:
    settings = ClipImageSettings(shortest, 3, (SIDE, SIDE), 1 / 255, (0.0,) * 3, (1.0,) * 3)
    return build_clip_transform(settings)


TRANSFORMS = {
    "open_clip, crop": build_transform({**PLAIN, "resize_mode": "shortest"}),
    "open_clip, squash": build_transform({**PLAIN, "resize_mode": "squash"}),
    "open_clip, pad": build_transform({**PLAIN, "resize_mode": "longest"}),
    "CLIP, crop": clip(SIDE),
    "CLIP, larger edge": clip(256),
    "CLIP, squash": clip(None),
    "MedCLIP": medclip_transform(SIDE),
}
SIZES = {"portrait": (341, 517), "landscape": (601, 303), "small": (91, 150), "square": (400, 400), "long": (1201, 231)}


def model_with(transform: Any) -> Any:
    return SimpleNamespace(name="tiny", image_size=SIDE, transform=transform)


def view_of(transform: EvalTransform, image: Image.Image) -> np.ndarray:
    """Return the model's view of a grey image as grey levels 0 to 1, (SIDE, SIDE)."""
    pixels = transform(image)[0].numpy()
    grey = transform.grey_levels[0]
    return (pixels - grey[0]) / (grey[255] - grey[0])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_bright_spot_is_found_where_it_was_drawn(name: str, size: str) -> None:
    transform, (width, height) = TRANSFORMS[name], SIZES[size]
    geometry = geometry_of(model_with(transform), (width, height))
    half = [PATCH / scale / 2 for scale in geometry.scale]
    n_seen = 0
    for x in np.linspace(0.06, 0.94, 5) * width:
        for y in np.linspace(0.06, 0.94, 5) * height:
            at = geometry.to_model(x, y)
            if not all(5 < place < SIDE - 5 for place in at):
                continue
            n_seen += 1
            image = Image.new("L", (width, height))
            radius = [max(3 / scale, 1) for scale in geometry.scale]
            box = (round(x - radius[0]), round(y - radius[1]), round(x + radius[0]) - 1, round(y + radius[1]) - 1)
            ImageDraw.Draw(image).rectangle(box, fill=255)
            centre = ((box[0] + box[2] + 1) / 2, (box[1] + box[3] + 1) / 2)
            view = view_of(transform, image)
            rows, columns = np.indices(view.shape) + 0.5
            middle = ((view * columns).sum() / view.sum(), (view * rows).sum() / view.sum())
            assert middle == pytest.approx(geometry.to_model(*centre), abs=0.35)
            assert geometry.to_original_point(*geometry.to_model(*centre)) == pytest.approx(centre)
            cells = view.reshape(SIDE // PATCH, PATCH, SIDE // PATCH, PATCH).mean(axis=(1, 3))
            found = geometry.to_original(cells)
            assert found.shape == (height, width)
            # The outermost half cell is as bright as its cell's middle, so the peak may be a stretch of pixels.
            peak_rows, peak_columns = np.nonzero(found >= np.nanmax(found) * (1 - 1e-5))
            assert np.abs(peak_columns + 0.5 - centre[0]).min() <= half[0] + 1
            assert np.abs(peak_rows + 0.5 - centre[1]).min() <= half[1] + 1
    assert n_seen >= 3


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_what_the_model_never_saw_is_nan(name: str, size: str) -> None:
    """Bright pixels where the map is NaN leave the view dark, but for the resampling's reach at its border."""
    transform, (width, height) = TRANSFORMS[name], SIZES[size]
    geometry = geometry_of(model_with(transform), (width, height))
    unseen = np.isnan(geometry.to_original(np.ones((14, 14))))
    crops = "crop" in name or "edge" in name
    assert unseen.any() == (crops and (size != "square" or "edge" in name))
    view = view_of(transform, Image.fromarray(np.where(unseen, 255, 0).astype(np.uint8)))
    reach = 3 + int(np.ceil(2 * max(geometry.scale)))
    assert np.abs(view[reach:-reach, reach:-reach]).max() < 0.02
    bright = view_of(transform, Image.fromarray(np.where(unseen, 0, 255).astype(np.uint8)))
    left, top = (max(int(np.ceil(at)), 0) + reach for at in geometry.to_model(0, 0))
    right, bottom = (min(int(at), SIDE) - reach for at in geometry.to_model(width, height))
    assert bright[top:bottom, left:right].min() > 0.98
    assert np.nansum(geometry.to_original(np.ones((14, 14)))) == pytest.approx((~unseen).sum(), rel=1e-5)


def test_maps_are_enlarged_as_pytorch_does() -> None:
    values = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    geometry = PixelGeometry(40, 84, SIDE, (SIDE / 40, SIDE / 84), (0.0, 0.0))
    expected = torch.nn.functional.interpolate(torch.from_numpy(values)[None, None], (84, 40), mode="bilinear")[0, 0]
    np.testing.assert_allclose(geometry.to_original(values), expected, rtol=1e-4, atol=1e-5)
    whole = PixelGeometry(7, 7, 7, (1.0, 1.0), (0.0, 0.0))
    np.testing.assert_array_equal(whole.to_original(np.eye(7)), np.eye(7))
    assert (PixelGeometry(9, 9, 9, (1.0, 1.0), (0.0, 0.0)).to_original(np.full((1, 1), 2.0)) == 2).all()
    with pytest.raises(InputError, match=r"shape \(1, 7, 5\) given; expected \(h, w\)"):
        geometry.to_original(values[None])


def test_unknown_transforms_are_refused() -> None:
    steps = Compose([Resize(SIDE), RandomCrop(SIDE)])
    with pytest.raises(ModelError, match=r"step torchvision\.RandomCrop, whose geometry is not known"):
        geometry_of(model_with(SimpleNamespace(geometry=steps)), (300, 400))
    with pytest.raises(ModelError, match=r"step builtins\.NoneType, whose"):
        geometry_of(model_with(lambda image: image), (300, 400))
    with pytest.raises(ModelError, match=r"gives 200 x 200 pixels, not 224 x 224"):
        geometry_of(model_with(SimpleNamespace(geometry=Compose([Resize(230), CenterCrop(200)]))), (300, 400))
