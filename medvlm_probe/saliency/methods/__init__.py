"""The methods by name, and what a reader must know of each. Their code is loaded when they are used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from medvlm_probe.errors import unknown_name

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class BatchMaps:
    """What a method returns for a batch: maps (n, L, h, w), the target's logits (n, L), and the layer's name."""

    maps: Tensor
    logits: Tensor
    layer: str


@dataclass(frozen=True)
class Method:
    """A way to map where a model looks.

    Attributes:
        title: for people.
        function: `module:name` within this package; takes (model, pixels, target, layer, **options) to `BatchMaps`.
        says: what the map means, and its caveat.
        signed: whether values below zero mean evidence against the label; else maps are never negative.
        by_label: whether the map depends on the label at all.
        grid: `patches` where maps lie on the tower's grid, `pixels` where each pixel has a value.
        takes_layer: whether another layer can be named.
        options: further keywords that it takes.
    """

    title: str
    function: str
    says: str
    signed: bool = True
    by_label: bool = True
    grid: Literal["patches", "pixels"] = "patches"
    takes_layer: bool = False
    options: tuple[str, ...] = ()

    def load(self) -> Callable[..., BatchMaps]:
        """Return the function."""
        module, _, name = self.function.partition(":")
        function: Callable[..., BatchMaps] = getattr(import_module(f"{__name__}.{module}"), name)
        return function


METHODS: dict[str, Method] = {
    "grad-cam": Method(
        "Grad-CAM",
        "class_activation:grad_cam",
        "A layer's channels, weighted by how the label's logit changes with each channel's mean.",
        takes_layer=True,
    ),
    "patch-text": Method(
        "Patch-text similarity",
        "patch_text:patch_text",
        "Each patch's token, projected as if it were the image's embedding, and the label's logit of that. Patches' "
        "tokens were never trained to lie in the shared space, and carry what attention brought from elsewhere: a "
        "patch can score high for what lies in another place.",
    ),
    "attention-rollout": Method(
        "Attention rollout",
        "attention:attention_rollout",
        "Where the tower's attention flows from, over all blocks. It is the same for every label, so it explains none.",
        signed=False,
        by_label=False,
    ),
    "legrad": Method(
        "LeGrad",
        "attention:legrad",
        "Positive gradients of the label's logit at each block's attention maps, summed over blocks; evidence against "
        "the label is left out.",
        signed=False,
        options=("first_block",),
    ),
    "occlusion": Method(
        "Occlusion",
        "pixels:occlusion",
        "How much the label's logit falls when a square is covered with the mean grey of the model's training images.",
        options=("window",),
    ),
    "integrated-gradients": Method(
        "Integrated gradients",
        "pixels:integrated_gradients",
        "The label's logit less that of an evenly grey image, shared out among the pixels.",
        grid="pixels",
        options=("n_steps",),
    ),
    "input-gradient": Method(
        "Input gradient",
        "pixels:input_gradient",
        "How the label's logit changes with each pixel's grey level. It is rough, and close to an edge detector.",
        grid="pixels",
    ),
}
"""Every method by name."""


def method_named(name: str) -> Method:
    """Return a method (UnknownNameError for a name that is none)."""
    if name not in METHODS:
        raise unknown_name("saliency method", name, METHODS)
    return METHODS[name]
