"""Which layer of an image tower maps are taken from, by the model's own choice or by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from medvlm_probe.errors import ModelError, unknown_name
from medvlm_probe.models.contract import SaliencyLayer
from medvlm_probe.models.open_clip_vision import tokens_to_maps

if TYPE_CHECKING:
    from torch import Tensor, nn

    from medvlm_probe.models.contract import VisionLanguageModel

_BLOCK = re.compile(r"^(?P<blocks>.*\b(?:blocks|resblocks|layers))\.(?P<number>\d+)\.\w+$")
_STAGE = re.compile(r".*\b(?:(?:layer|stage)\d+|(?:blocks|layers|stages)\.\d+)$")


def module_of(model: VisionLanguageModel) -> nn.Module:
    """Return the module that a model's layers are named in.

    Raises:
        ModelError: the model has none.
    """
    module: nn.Module | None = getattr(model, "module", None)
    if module is None:
        raise ModelError(f"{model.name} has no `module` whose layers could be looked into. Use a model of the zoo.")
    return module


def resolve_layer(model: VisionLanguageModel, name: str | None) -> SaliencyLayer:
    """Return the model's own saliency layer, or the one of this name within the model's module.

    Raises:
        UnknownNameError: the image tower has no such layer.
        ModelError: the tower has no layer with a known spatial layout.
    """
    own = model.saliency_layer()
    if name is None or name == own.name:
        return own
    module = module_of(model)
    tower = own.name.split(".")[0]
    names = [path for path, _ in module.named_modules() if path.split(".")[0] == tower]
    if name not in names:
        raise unknown_name("layer", name, names)
    return SaliencyLayer(module.get_submodule(name), _maps_by_shape(own, name), name)


def transformer_blocks(model: VisionLanguageModel) -> tuple[str, list[nn.Module]]:
    """Return the path of a transformer's list of blocks, and the blocks; an empty list for other towers."""
    match = _BLOCK.match(model.saliency_layer().name)
    if match is None:
        return "", []
    blocks: Any = module_of(model).get_submodule(match["blocks"])
    return match["blocks"], list(blocks)


def candidate_layers(model: VisionLanguageModel) -> Iterator[str]:
    """Yield the layers worth trying, the model's own choice first, then from the top of the tower down."""
    own = model.saliency_layer().name
    yield own
    path, blocks = transformer_blocks(model)
    if not blocks:
        names = [path for path, _ in module_of(model).named_modules() if path.split(".")[0] == own.split(".")[0]]
        below = reversed(names[: names.index(own)])
        yield from (path for path in below if _STAGE.match(path))
        return
    norm = own.rpartition(".")[2]
    for number in reversed(range(len(blocks))):
        yield from (name for name in (f"{path}.{number}", f"{path}.{number}.{norm}") if name != own)


def _maps_by_shape(own: SaliencyLayer, name: str) -> Callable[[Tensor], Tensor]:
    """Return how another layer's output becomes maps: its tokens as the own layer's, or channels told by the shape."""

    def to_maps(output: Tensor) -> Tensor:
        if output.ndim == 4:
            _, first, second, third = output.shape
            if second == third != first:
                return output
            if first == second != third:
                return output.permute(0, 3, 1, 2)
        if output.ndim == 3:
            maps = _as_own(own, output)
            if maps is not None:
                return maps
            side = round(output.shape[1] ** 0.5)
            if side * side == output.shape[1]:
                return tokens_to_maps((side, side), n_prefix=0)(output)
        raise ModelError(
            f"The output of layer '{name}' has shape {tuple(output.shape)}, which has no known place in the image. "
            f"Choose another layer, as '{own.name}'."
        )

    return to_maps


def _as_own(own: SaliencyLayer, tokens: Tensor) -> Tensor | None:
    """Return tokens as maps if they lie as those of the own layer do."""
    try:
        maps = own.to_maps(tokens)
    except RuntimeError:  # another number of tokens than the grid has places
        return None
    return maps if maps.ndim == 4 and maps.shape[1] == tokens.shape[-1] else None
