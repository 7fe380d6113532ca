"""What a loaded model does on a few phantoms and texts: dimensions, fast precision against float32, speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from medvlm_probe.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from medvlm_probe.models.contract import VisionLanguageModel

N_IMAGES = 8
TEXTS = ("there is no finding", "there is cardiomegaly", "there is pneumonia", "there is a pleural effusion")
LARGEST_TEXT_GAP = 1e-4
"""Texts spliced from their tokens must give the same embeddings; more than this (cosine distance) is a fault."""


@dataclass(frozen=True)
class ModelProbe:
    """What was measured.

    Attributes:
        name: of the model.
        fingerprint: sha256 over its files and settings.
        embedding_dim: size of the shared space.
        image_size: side of the images, pixels.
        context_length: most tokens of a text.
        logit_scale: the multiplier of cosines.
        parameters: how many numbers the model has, in millions; None where it does not say.
        device: where it ran.
        precision: the fast precision that the device has; `float32` where that is the fastest.
        min_cosine: smallest cosine between fast and float32 image embeddings; 1 where both are the same.
        images_per_second: precision to rate, of a second batch of `N_IMAGES`.
        texts_per_second: in float32.
        faults: what is wrong, a sentence each; empty where nothing is. A fast precision that is too far from float32 is
            none: `--precision auto` falls back.
    """

    name: str
    fingerprint: str
    embedding_dim: int
    image_size: int
    context_length: int
    logit_scale: float
    parameters: float | None
    device: str
    precision: str
    min_cosine: float
    images_per_second: dict[str, float]
    texts_per_second: float
    faults: tuple[str, ...]

    @property
    def fast_is_sound(self) -> bool:
        """Whether the fast precision may stand for float32."""
        from medvlm_probe.embeddings.precision import MIN_COSINE

        return self.min_cosine >= MIN_COSINE

    def as_json(self) -> dict[str, Any]:
        """Return the fields for `--json`."""
        return asdict(self)


def probe_model(model: VisionLanguageModel) -> ModelProbe:
    """Encode a few phantoms and texts and hold the results against what every model must give."""
    import torch

    from medvlm_probe.embeddings.precision import (
        at_precision,
        device_of,
        encode,
        min_cosine,
        resolve_precision,
    )
    from medvlm_probe.embeddings.threads import torch_threads

    device = device_of(model)
    fast = resolve_precision("auto", device)
    with torch_threads():
        pixels = torch.stack([model.preprocess(image) for image in _phantoms()])
        images, image_rate = _timed(lambda: encode(model, pixels, "float32"), len(pixels))
        rates, cosine = {"float32": image_rate}, 1.0
        if fast != "float32":
            twin = at_precision(model, fast)
            quick, rates[fast] = _timed(lambda: encode(twin, pixels, fast), len(pixels))
            cosine = min_cosine(images, quick)
        with torch.inference_mode():
            texts, text_rate = _timed(lambda: model.encode_texts(TEXTS), len(TEXTS))
            spliced = model.encode_prompts(model.embed_tokens(TEXTS, 0))
    return ModelProbe(
        name=model.name,
        fingerprint=model.fingerprint,
        embedding_dim=model.embedding_dim,
        image_size=model.image_size,
        context_length=model.context_length,
        logit_scale=model.logit_scale,
        parameters=_millions(model),
        device=str(device),
        precision=fast,
        min_cosine=cosine,
        images_per_second=rates,
        texts_per_second=text_rate,
        faults=tuple(_faults(model, images, texts, spliced)),
    )


def refuse_faults(probe: ModelProbe) -> None:
    """Raise ModelError where the probe found a fault."""
    if probe.faults:
        raise ModelError(f"{probe.name} loads, but is not sound. {' '.join(probe.faults)}")


def _phantoms() -> list[Any]:
    from medvlm_probe.cohort.catalog import load_cohort

    source = load_cohort(f"phantom:n={N_IMAGES}").source
    return [source.read(row) for row in range(N_IMAGES)]


def _timed(compute: Callable[[], Tensor], n: int) -> tuple[Tensor, float]:
    """Return the result and how many of its `n` rows are computed a second; a first call warms up."""
    result = compute()
    start = time.monotonic()
    result = compute()
    result.sum().item()  # waits for a GPU
    return result, n / (time.monotonic() - start)


def _faults(model: VisionLanguageModel, images: Tensor, texts: Tensor, spliced: Tensor) -> list[str]:
    import torch

    from medvlm_probe.embeddings.precision import min_cosine

    faults = []
    expected = {"image": (N_IMAGES, model.embedding_dim), "text": (len(TEXTS), model.embedding_dim)}
    for what, found in (("image", images), ("text", texts)):
        if tuple(found.shape) != expected[what]:
            faults.append(f"Its {what} embeddings are {tuple(found.shape)}, not {expected[what]}.")
        elif not bool(torch.isfinite(found).all()):
            faults.append(f"Its {what} embeddings hold numbers that are not finite.")
        elif float(found.double().var(dim=0).sum()) == 0:
            faults.append(f"It gives every {what} the same embedding.")
    if not faults and 1 - min_cosine(texts, spliced) > LARGEST_TEXT_GAP:
        faults.append("Texts spliced from their tokens have other embeddings than the texts themselves.")
    return faults


def _millions(model: VisionLanguageModel) -> float | None:
    module = getattr(model, "module", None)
    if module is None:
        return None
    return float(sum(parameter.numel() for parameter in module.parameters()) / 1e6)
