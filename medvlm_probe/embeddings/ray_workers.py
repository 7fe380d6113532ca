"""What runs in a Ray worker: one class decodes batches, the other puts them through its own copy of the model.

Rows go in and out as plain dictionaries. No image's name, path or text is in them, nor in an error: an image that
fails is a reason code, and what stops the whole run is a row's `problem`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medvlm_probe import __version__
from medvlm_probe.embeddings import precision as precisions
from medvlm_probe.embeddings.batches import Item, decode_into
from medvlm_probe.embeddings.forward import out_of_memory
from medvlm_probe.errors import ProbeError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from medvlm_probe.cohort.images import ImageSource
    from medvlm_probe.embeddings.precision import Precision

NO_MEMORY = "out of memory"
"""The `problem` of a batch that did not fit."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Decoding:
    """How images become pixels of one size."""

    source: ImageSource
    preprocess: Callable[[Image], Tensor]
    image_size: int


@dataclass(frozen=True)
class Encoding:
    """The model that a worker loads, and what must be equal for its bytes to be the driver's."""

    name: str
    fingerprint: str
    device: str
    precision: Precision
    threads: int
    versions: dict[str, str]


def versions() -> dict[str, str]:
    """Return the versions of what computes an embedding."""
    import torch

    return {"medvlm-probe": __version__, "torch": torch.__version__}


def applied(function: Callable[[Any], Any], item: Any) -> Any:
    """Return `function(item)`: what a task runs, since Ray takes no partial functions."""
    return function(item)


class Decode:
    """Reads batches: `place`, `keys`, `rows` to `place`, `pixels`, `reasons` ("" where an image is good), `decode`."""

    def __init__(self, decoding_at: Any) -> None:
        """Take a reference to the `Decoding`, which is fetched once for all batches of this process."""
        import ray
        import torch

        torch.set_num_threads(1)
        self.decoding: Decoding = ray.get(decoding_at)

    def __call__(self, row: Row) -> Row:
        """Return a batch's pixels; see `decoded_row`."""
        return decoded_row(self.decoding, row)


def decoded_row(how: Decoding, row: Row) -> Row:
    """Return a batch's pixels (N, 3, H, W) float32, zeros where an image failed, and each image's reason."""
    import torch

    started = time.perf_counter()
    items = [Item(str(key), int(place)) for key, place in zip(row["keys"], row["rows"], strict=True)]
    pixels = torch.empty((len(items), 3, how.image_size, how.image_size))
    reasons = [
        decode_into(slot, item, source=how.source, preprocess=how.preprocess) or ""
        for slot, item in zip(pixels, items, strict=True)
    ]
    seconds = time.perf_counter() - started
    return {"place": row["place"], "pixels": pixels.numpy(), "reasons": reasons, "decode": seconds}


class Encode:
    """Puts decoded batches through the model: `pixels` become `vectors`, (N, D) float32, and `forward`, `problem`."""

    def __init__(self, how: Encoding) -> None:
        """Load the model by its name, without a network."""
        import torch

        torch.set_num_threads(how.threads)
        self.how = how
        self.problem = ""
        try:
            self.model = self._loaded()
        except ProbeError as error:
            self.problem = f"A worker cannot compute as this machine does: {error}"

    def __call__(self, row: Row) -> Row:
        """Return a batch's vectors; none where there is a `problem`."""
        import torch

        started = time.perf_counter()
        problem, vectors = self.problem, np.zeros((0, 0), dtype=np.float32)
        if not problem:
            try:
                # A copy: what Ray shares between processes is read-only.
                pixels = torch.tensor(row["pixels"])
                vectors = precisions.encode(self.model, pixels, self.how.precision).cpu().numpy()
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                problem = NO_MEMORY
        kept = {name: row[name] for name in ("place", "reasons", "decode")}
        return kept | {"vectors": vectors, "forward": time.perf_counter() - started, "problem": problem}

    def _loaded(self) -> Any:
        from medvlm_probe.models.zoo import load_model

        how = self.how
        if versions() != how.versions:
            raise ProbeError(f"it has {_listed(versions())}, expected {_listed(how.versions)}. Install the same.")
        model = load_model(how.name, device=how.device, offline=True)
        if model.fingerprint != how.fingerprint:
            raise ProbeError(
                f"its {how.name} has the fingerprint {model.fingerprint[:12]}, expected {how.fingerprint[:12]}. "
                "Vendor the model, and copy the folder to every machine."
            )
        return precisions.at_precision(model, how.precision)


def _listed(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())
