"""Weights files into modules: no code is ever run from a file, and every tensor has to fit."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from medvlm_probe.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TORCH_SUFFIXES = (".bin", ".pt", ".pth")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a `.safetensors` file, or of a `.bin`, `.pt` or `.pth` file that holds tensors alone.

    Training checkpoints (`{"state_dict": ...}`, names that begin with `module.`) are unwrapped.

    Raises:
        ModelError: the file is damaged, of another kind, or holds Python objects besides tensors.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix not in TORCH_SUFFIXES:
        raise ModelError(f"Weights file {path}: expected .safetensors, or {', '.join(TORCH_SUFFIXES)}.")
    content = _read_torch(path)
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not content or not _all_tensors(content):
        raise ModelError(f"Weights file {path} holds no table of tensors. Save the model's state_dict as .safetensors.")
    if all(key.startswith("module.") for key in content):
        content = {key.removeprefix("module."): value for key, value in content.items()}
    return content


def load_strictly(module: torch.nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Copy tensors into a module in its own precision; every tensor must find its place and every place its tensor.

    `position_ids`, a constant that some versions of transformers store and others do not, may be missing or left over.

    Raises:
        ModelError: names of missing, left-over or misshapen tensors.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in tensors and not _is_position_ids(key)]
    unexpected = [key for key in tensors if key not in own and not _is_position_ids(key)]
    misshapen = [
        f"{key} {tuple(tensors[key].shape)} for {tuple(own[key].shape)}"
        for key in own
        if key in tensors and tensors[key].shape != own[key].shape
    ]
    faults = {"missing": missing, "not expected": unexpected, "of another shape": misshapen}
    if any(faults.values()):
        told = "; ".join(f"{len(keys)} {fault}: {_some(keys)}" for fault, keys in faults.items() if keys)
        raise ModelError(f"The weights of {name} do not fit its configuration. Tensors {told}.")
    module.load_state_dict({key: value for key, value in tensors.items() if key in own}, strict=False)


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 in hex over names, types, shapes and bytes, in the order of the names."""
    import torch

    digest = hashlib.sha256()
    for key in sorted(tensors):
        value = tensors[key].detach().cpu().contiguous()
        digest.update(f"{key}|{value.dtype}|{tuple(value.shape)}|".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"Weights file {path} is damaged or no safetensors file ({error}). Copy it again.") from error
    return tensors


def _read_torch(path: Path) -> object:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"Weights file {path} holds Python objects besides tensors, which are never run. "
            "Save the model's state_dict as .safetensors."
        ) from error
    except Exception as error:  # whatever the bytes lead torch's reader to
        raise ModelError(
            f"Weights file {path} is damaged or no file of tensors ({type(error).__name__}: {error}). "
            "Save the state_dict as .safetensors."
        ) from error


def _all_tensors(content: Mapping[object, object]) -> bool:
    import torch

    return all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items())


def _is_position_ids(key: str) -> bool:
    return key.endswith("embeddings.position_ids")


def _some(keys: Iterable[str], most: int = 4) -> str:
    names = list(keys)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
