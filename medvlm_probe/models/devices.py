"""From a device's name on the command line to a torch device that exists."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from medvlm_probe.errors import DeviceError

if TYPE_CHECKING:
    import torch

DEVICE_NAMES = "auto, cpu, cuda, cuda:N or mps"


def resolve_device(name: str) -> torch.device:
    """Return the device called `auto`, `cpu`, `cuda`, `cuda:N` or `mps`; `auto` prefers CUDA, then MPS, then the CPU.

    Raises:
        DeviceError: the name is another one, or this machine lacks the device.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise DeviceError(f"Unknown device '{name}'. Use {DEVICE_NAMES}.")
    import torch

    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    has_mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if n_cuda else "mps" if has_mps else "cpu")
    if name.startswith("cuda"):
        index = int(name.partition(":")[2] or 0)
        if index >= n_cuda:
            raise DeviceError(
                f"Device '{name}' asked for, but torch sees {n_cuda} CUDA devices. Use --device auto or cpu."
            )
    if name == "mps" and not has_mps:
        raise DeviceError("Device 'mps' asked for, but this machine has none. Use --device auto or cpu.")
    return torch.device(name)
