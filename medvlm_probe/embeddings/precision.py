"""Which precision a model runs in, a converted copy of it, and how near that copy comes to float32."""

from __future__ import annotations

import copy
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medvlm_probe.errors import DeviceError, InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from medvlm_probe.models.contract import VisionLanguageModel

Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "float16")

MIN_COSINE = 0.9995
CHECK_IMAGES = 8

_CPU_FACTS = Path("/proc/cpuinfo")
_NATIVE_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16"})


def resolve_precision(asked: str, device: torch.device) -> Precision:
    """Return the precision to try: the one asked for, or for `auto` the fastest that the device has in hardware.

    Raises:
        InputError: the name is unknown.
        DeviceError: the device cannot compute in it.
    """
    if asked != "auto" and asked not in PRECISIONS:
        raise InputError(f"Unknown precision '{asked}'. Use auto, {', '.join(PRECISIONS)}.")
    if asked == "auto":
        return fast_precision(device)
    if asked == "bfloat16" and device.type == "cuda" and not _cuda_has_bfloat16(device):
        raise DeviceError(f"{device} has no bfloat16. Use --precision float16, float32 or auto.")
    return asked  # type: ignore[return-value]


def fast_precision(device: torch.device) -> Precision:
    """Return the fastest precision that a device has in hardware.

    CPU: bfloat16 where the processor has avx512_bf16 or amx_bf16 (elsewhere it is emulated, and slower than float32).
    CUDA: bfloat16 from compute capability 8.0, else float16. Others: float32.
    """
    if device.type == "cuda":
        return "bfloat16" if _cuda_has_bfloat16(device) else "float16"
    if device.type == "cpu" and platform.machine() in ("x86_64", "AMD64") and _CPU_FACTS.is_file():
        return "bfloat16" if has_native_bfloat16(_CPU_FACTS.read_text()) else "float32"
    return "float32"


def has_native_bfloat16(cpu_facts: str) -> bool:
    """Return whether the text of Linux's /proc/cpuinfo lists bfloat16 matrix instructions (x86)."""
    flags = next((line for line in cpu_facts.splitlines() if line.startswith("flags")), "")
    return not _NATIVE_BFLOAT16.isdisjoint(flags.split())


def at_precision(model: VisionLanguageModel, precision: Precision) -> VisionLanguageModel:
    """Return the model with its weights in a precision; the given model stays as it is (float32: it is returned).

    The weights are converted once. Autocast alone would convert them again in every batch, and attention layers whose
    inputs and weights differ in type leave torch's fast path (measured on ViT-B/16: twice as slow as float32).
    """
    if precision == "float32":
        return model
    import torch

    dtype = getattr(torch, precision)
    twin = copy.copy(model)
    for name, value in vars(model).items():
        if isinstance(value, torch.nn.Module):
            object.__setattr__(twin, name, _converted(value, dtype))  # models are frozen dataclasses
    return twin


def encode(model: VisionLanguageModel, pixels: Tensor, precision: Precision) -> Tensor:
    """Return float32 embeddings (N, D), on the model's device, of pixels by a model from `at_precision`."""
    import torch

    with torch.inference_mode():
        if precision == "float32":
            return model.encode_images(pixels).float()
        with torch.autocast(device_of(model).type, dtype=getattr(torch, precision)):
            return model.encode_images(pixels).float()


def device_of(model: VisionLanguageModel) -> torch.device:
    """Return the device that a model computes on; the CPU where it does not say."""
    import torch

    return torch.device(getattr(model, "device", "cpu"))


def min_cosine(reference: Tensor, other: Tensor) -> float:
    """Return the smallest cosine, -1 to 1, between rows of two (N, D) tensors; -1 where a number is not finite."""
    import torch

    cosines = torch.nn.functional.cosine_similarity(reference.double(), other.double(), dim=1)
    return float(cosines.nan_to_num(nan=-1.0).min())


def _converted(module: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """Return a deep copy in another dtype, without a second float32 copy in between; ties between weights stay."""
    import torch

    memo: dict[int, object] = {}
    for parameter in module.parameters():
        if parameter.is_floating_point():
            memo[id(parameter)] = torch.nn.Parameter(parameter.detach().to(dtype), requires_grad=False)
    for buffer in module.buffers():
        if buffer.is_floating_point():
            memo[id(buffer)] = buffer.detach().to(dtype)
    return copy.deepcopy(module, memo)


def _cuda_has_bfloat16(device: torch.device) -> bool:
    import torch

    return torch.cuda.get_device_capability(device) >= (8, 0)
