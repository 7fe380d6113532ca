"""Copies of a model whose image tower, or all of which, can be trained; the given model stays as it is."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medvlm_probe.errors import InputError, ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from medvlm_probe.models.contract import VisionLanguageModel

IMAGE_PARTS: tuple[tuple[str, ...], ...] = (("visual",), ("vision_model", "visual_projection"), ("vision_model",))
"""Attributes of a model's `module` that make its image tower: open_clip's, Hugging Face CLIP's, MedCLIP's."""

SCALES = ("logit_scale", "logit_bias")
"""Parameters of a model's `module` that are of no tower."""

_BLOCK = re.compile(r"^(?P<list>.*?\b(?:blocks|resblocks|layers)\.)(?P<number>\d+)\.")
_BEFORE_BLOCKS = re.compile(r"patch_embed|embedding|pos_embed|cls_token|reg_token|conv1|ln_pre|pre_layrnorm|norm_pre")


@dataclass(frozen=True, eq=False)
class TrainableTower:
    """An image tower to train, or a whole model.

    Attributes:
        model: a copy of the model; its text side shares the given one's tensors where the image tower alone is trained.
        modules: the parts that are trained.
        parameters: what is trained, by name within the model's `module`.
        n_frozen: parameters (numbers) of those parts that stay as they are.
    """

    model: VisionLanguageModel
    modules: tuple[nn.Module, ...]
    parameters: dict[str, nn.Parameter]
    n_frozen: int

    @property
    def n_trained(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.parameters.values())

    def state(self) -> dict[str, Tensor]:
        """Return a copy of the trained tensors on the CPU, by name."""
        return {name: parameter.detach().cpu().clone() for name, parameter in self.parameters.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Set the trained tensors, all of them."""
        import torch

        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[name])

    def train(self, on: bool) -> None:
        """Put the tower into training mode or out of it; batch normalisation keeps its statistics in both."""
        from torch import nn

        for module in self.modules:
            module.train(on)
            for layer in module.modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.eval()


def trainable_tower(model: VisionLanguageModel, last_blocks: int | None = None) -> TrainableTower:
    """Return a copy of a model whose image tower requires gradients.

    Args:
        model: any model of the contract with a `module`.
        last_blocks: train only so many of the last transformer blocks and what follows them; None: the whole tower.

    Raises:
        ModelError: the model has no `module` with a known image tower.
        InputError: the tower has no blocks, or fewer of them.
    """
    module: Any = getattr(model, "module", None)
    parts = next((parts for parts in IMAGE_PARTS if all(hasattr(module, part) for part in parts)), None)
    if module is None or parts is None:
        raise ModelError(f"{model.name} has no image tower that can be trained; open_clip and CLIP models have.")
    prefixes = tuple(f"{part}." for part in parts)
    memo: dict[int, Any] = {id(getattr(model, "tokenizer", None)): getattr(model, "tokenizer", None)}
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if not name.startswith(prefixes):
            memo[id(tensor)] = tensor
    twin: Any = copy.deepcopy(model, memo)
    inside = {name: p for name, p in twin.module.named_parameters() if name.startswith(prefixes)}
    chosen = inside if last_blocks is None else _last(inside, last_blocks, model.name)
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    n_frozen = sum(p.numel() for name, p in inside.items() if name not in chosen)
    return TrainableTower(twin, tuple(getattr(twin.module, part) for part in parts), chosen, n_frozen)


def blocks_of(model: VisionLanguageModel) -> str:
    """Return the name, within a model's `module`, of the list of its image tower's transformer blocks.

    Raises:
        ModelError: there is none.
    """
    module: Any = getattr(model, "module", None)
    parts = next((parts for parts in IMAGE_PARTS if all(hasattr(module, part) for part in parts)), ())
    for name, _ in module.named_parameters() if module is not None else ():
        match = _BLOCK.match(name)
        if match and name.startswith(tuple(f"{part}." for part in parts)):
            return match["list"].rstrip(".")
    raise ModelError(f"The image tower of {model.name} is not made of transformer blocks.")


def trainable_model(model: VisionLanguageModel) -> TrainableTower:
    """Return a copy of a model both of whose towers require gradients; the logit scale stays as it is.

    A trained scale would be a temperature by another name: what the weights themselves do for calibration would not
    show.

    Raises:
        ModelError: the model has no `module`.
    """
    if getattr(model, "module", None) is None:
        raise ModelError(f"{model.name} has no weights that can be trained; open_clip, CLIP and MedCLIP models have.")
    twin: Any = copy.deepcopy(model, {id(getattr(model, "tokenizer", None)): getattr(model, "tokenizer", None)})
    named = dict(twin.module.named_parameters())
    chosen = {name: parameter for name, parameter in named.items() if name not in SCALES}
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    n_frozen = sum(parameter.numel() for name, parameter in named.items() if name in SCALES)
    return TrainableTower(twin, (twin.module,), chosen, n_frozen)


def _last(inside: dict[str, Any], last_blocks: int, name: str) -> dict[str, Any]:
    """Return the parameters of the last blocks and of what comes after all blocks."""
    found = {key: _BLOCK.match(key) for key in inside}
    numbers = [int(match["number"]) for match in found.values() if match]
    n_blocks = max(numbers) + 1 if numbers else 0
    if not 1 <= last_blocks <= n_blocks:
        has = f"has {n_blocks} blocks" if n_blocks else "is not made of transformer blocks"
        raise InputError(f"{last_blocks} last blocks asked for; the image tower of {name} {has}.")
    chosen = {}
    for key, parameter in inside.items():
        match = found[key]
        if (match and int(match["number"]) >= n_blocks - last_blocks) or (not match and not _BEFORE_BLOCKS.search(key)):
            chosen[key] = parameter
    return chosen
