"""Device names, with torch's answers about the machine replaced."""

from __future__ import annotations

import pytest
import torch

from medvlm_probe.errors import DeviceError
from medvlm_probe.models.devices import resolve_device


def machine(monkeypatch: pytest.MonkeyPatch, n_cuda: int = 0, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("n_cuda", "mps", "name", "expected"),
    [
        (0, False, "cpu", "cpu"),
        (0, False, "auto", "cpu"),
        (2, False, "auto", "cuda"),
        (0, True, "auto", "mps"),
        (2, True, "auto", "cuda"),
        (2, False, "cuda", "cuda"),
        (2, False, "cuda:1", "cuda:1"),
        (0, True, "mps", "mps"),
        (2, True, "cpu", "cpu"),
    ],
)
def test_present_devices(monkeypatch: pytest.MonkeyPatch, n_cuda: int, mps: bool, name: str, expected: str) -> None:
    machine(monkeypatch, n_cuda, mps)
    assert resolve_device(name) == torch.device(expected)


@pytest.mark.parametrize(("n_cuda", "name"), [(0, "cuda"), (0, "cuda:0"), (2, "cuda:2"), (1, "mps")])
def test_absent_devices(monkeypatch: pytest.MonkeyPatch, n_cuda: int, name: str) -> None:
    machine(monkeypatch, n_cuda)
    with pytest.raises(DeviceError, match=rf"'{name}' asked for.*auto or cpu"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["gpu", "", "cuda:", "cuda:x", "CPU", "cpu:0", "xla"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(DeviceError, match="Use auto, cpu, cuda"):
        resolve_device(name)
