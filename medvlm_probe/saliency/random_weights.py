"""A model whose image tower forgets what it learned, from the top down: the cascade of Adebayo et al. 2018."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from medvlm_probe.tuning.towers import trainable_tower

if TYPE_CHECKING:
    from torch import nn

    from medvlm_probe.models.contract import VisionLanguageModel

ABOVE, BELOW = "above the blocks", "below the blocks"
_BLOCK = re.compile(r"^(.*?\b(?:(?:blocks|resblocks|layers|stages)|layer\d+)\.\d+)\.")
_PROJECTION = "visual.proj"


def cascade(model: VisionLanguageModel, seed: int = 0) -> Iterator[tuple[str, VisionLanguageModel]]:
    """Yield (part, model) for each part of the image tower from the top down, that part and those above it random.

    Random weights are the tensor's own, shuffled: they have its distribution and nothing else of what was learned.
    Statistics of batch normalisation stay. It is one copy that changes on the way; the given model stays as it is.

    Raises:
        ModelError: the model has no `module` with a known image tower.
    """
    import torch

    tower = trainable_tower(model)
    tower.model.module.requires_grad_(False)  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(seed)
    for part, parameters in _parts(tower.parameters).items():
        with torch.no_grad():
            for parameter in parameters:
                order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
                parameter.copy_(parameter.flatten()[order].reshape(parameter.shape))
        yield part, tower.model


def with_random_weights(model: VisionLanguageModel, seed: int = 0) -> VisionLanguageModel:
    """Return a copy whose whole image tower is random: the cascade's end."""
    *_, (_, last) = cascade(model, seed)
    return last


def _parts(parameters: dict[str, nn.Parameter]) -> dict[str, list[nn.Parameter]]:
    """Return the parameters of each part by its name, the top first."""
    parts: dict[str, list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        match = _BLOCK.match(name)
        blocks_begun = any(part not in (ABOVE, BELOW) for part in parts)
        outside = ABOVE if blocks_begun or name == _PROJECTION else BELOW
        parts.setdefault(match[1] if match else outside, []).append(parameter)
    blocks = [part for part in parts if part not in (ABOVE, BELOW)]
    order = [ABOVE, *reversed(blocks), BELOW]
    return {part: parts[part] for part in order if part in parts}
