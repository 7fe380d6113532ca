"""Checkpoints of a training: everything that it goes on from in one file, written whole or not at all.

The best weights so far lie in a file of their own, named by their epoch, which is written before the checkpoint that
names it and removed after the next one: whenever a training is killed, the two fit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from medvlm_probe.errors import StoreError
from medvlm_probe.runs import parse_json, write_bytes_atomically

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CHECKPOINT_FILE = "checkpoint.safetensors"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Where a training stands.

    Attributes:
        weights: trained tensors by name.
        optimizer: the optimiser's state: `NUMBER/FIELD` to tensor.
        facts: everything else, for JSON.
    """

    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint in place of the one before. Raises StoreError."""
    from safetensors.torch import save

    tensors = {f"weights/{name}": value.detach().cpu() for name, value in checkpoint.weights.items()}
    tensors |= {f"optimizer/{name}": value.detach().cpu() for name, value in checkpoint.optimizer.items()}
    facts = json.dumps(dict(checkpoint.facts), allow_nan=False)
    own = {name: value.contiguous() for name, value in tensors.items()}
    write_bytes_atomically(folder / CHECKPOINT_FILE, save(own, metadata={"facts": facts}))


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the checkpoint in a folder; None where there is none.

    Raises:
        StoreError: the file is damaged.
    """
    path = folder / CHECKPOINT_FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            facts = parse_json(file.metadata()["facts"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path} is damaged ({error}). Remove it: the training then starts anew.") from error
    return Checkpoint(under(tensors, "weights/"), under(tensors, "optimizer/"), facts)


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimiser's state as tensors named `NUMBER/FIELD`."""
    import torch

    return {
        f"{number}/{name}": torch.as_tensor(value)
        for number, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put such a state back into an optimiser of the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, field = name.split("/")
        state.setdefault(int(number), {})[field] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def best_file(folder: Path, epoch: int) -> Path:
    """Return where the weights of a best epoch lie."""
    return folder / f"best-{epoch:04d}.safetensors"


def write_best(folder: Path, epoch: int, weights: Mapping[str, Tensor]) -> None:
    """Write the best weights of an epoch. Raises StoreError."""
    from safetensors.torch import save

    write_bytes_atomically(best_file(folder, epoch), save({name: w.contiguous() for name, w in weights.items()}))


def read_best(folder: Path, epoch: int) -> dict[str, Tensor]:
    """Return the best weights of an epoch. Raises StoreError where they are missing or damaged."""
    from safetensors.torch import load_file

    try:
        return dict(load_file(best_file(folder, epoch)))
    except (SafetensorError, OSError) as error:
        raise StoreError(
            f"{best_file(folder, epoch)} is missing or damaged ({error}). Remove {folder}: the training starts anew."
        ) from error


def remove_other_bests(folder: Path, epoch: int) -> None:
    """Remove the weights of epochs that are no longer the best."""
    for path in folder.glob("best-*.safetensors"):
        if path != best_file(folder, epoch):
            path.unlink(missing_ok=True)
