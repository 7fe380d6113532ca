"""What `medvlm-probe doctor` checks of a machine: Python, torch, device, DICOM, cache, offline state, threads."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medvlm_probe.errors import DeviceError

Status = Literal["PASS", "WARN", "FAIL"]

OLDEST_PYTHON = (3, 11)
SPEED_BYTES = 32 << 20
SLOW_DISK = 20e6
LITTLE_SPACE, TOO_LITTLE_SPACE = 5e9, 0.5e9
FEW_OPEN_FILES = 1024
SYNTAXES = {
    "uncompressed": ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1"),
    "RLE": ("1.2.840.10008.1.2.5",),
    "JPEG": ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"),
    "JPEG lossless": ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"),
    "JPEG-LS": ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"),
    "JPEG 2000": ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"),
}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what.
        status: PASS; WARN where it works, but worse than it could; FAIL where something will not work.
        found: what is the case. Never a patient's data.
        mend: what to do; empty for PASS.
    """

    name: str
    status: Status
    found: str
    mend: str = ""


def python_check(version: tuple[int, int, int] = sys.version_info[:3]) -> Check:
    """Check that Python is new enough."""
    found = "Python " + ".".join(map(str, version))
    if version[:2] < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        return Check("Python", "FAIL", found, f"Install Python {wanted} or newer, and medvlm-probe in it.")
    return Check("Python", "PASS", found)


def torch_check() -> Check:
    """Check that torch and torchvision belong together: torchvision's own compiled operator runs."""
    name = "torch and torchvision"
    mend = "Reinstall both from one index, in versions of one release: pip install --upgrade torch torchvision."
    try:
        import torch
        import torchvision
        from torchvision.ops import nms

        found = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
        nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        return Check(name, "FAIL", f"do not work together ({type(error).__name__}: {_first_line(error)})", mend)
    return Check(name, "PASS", found)


def device_check(asked: str = "auto") -> Check:
    """Check that the device exists and computes."""
    import torch

    from medvlm_probe.embeddings.threads import available_cores
    from medvlm_probe.models.devices import resolve_device

    try:
        device = resolve_device(asked)
        (torch.ones(64, 64, device=device) @ torch.ones(64, 64, device=device)).sum().item()
    except (DeviceError, RuntimeError) as error:
        return Check("device", "FAIL", _first_line(error), "Use --device cpu, or mend the driver's installation.")
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        memory = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free"
        return Check("device", "PASS", f"{device}: {torch.cuda.get_device_name(device)}, {memory}")
    return Check("device", "PASS", f"{device}, {available_cores()} cores")


def dicom_check() -> Check:
    """Check for which DICOM transfer syntaxes pixels can be decoded."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    able = {name: all(get_decoder(UID(uid)).is_available for uid in uids) for name, uids in SYNTAXES.items()}
    readable = [name for name, is_able in able.items() if is_able]
    lacking = [name for name, is_able in able.items() if not is_able]
    found = f"decodes {', '.join(readable) or 'nothing'}"
    if lacking:
        mend = "Install the decoders: pip install 'medvlm-probe[dicom]'."
        return Check("DICOM", "WARN", f"{found}; not {', '.join(lacking)}", mend)
    return Check("DICOM", "PASS", found)


def cache_check(folder: Path, n_bytes: int = SPEED_BYTES) -> Check:
    """Check that the cache can be written, has space, and how fast a file goes there and back (from memory, maybe)."""
    mend = "Set MEDVLM_PROBE_CACHE to a folder on a local disk with space."
    trial = folder / f".doctor.{secrets.token_hex(6)}.tmp"
    content = os.urandom(n_bytes)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        with trial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        written = time.monotonic()
        same = trial.read_bytes() == content
        read = time.monotonic()
    except OSError as error:
        return Check("cache", "FAIL", f"{folder} cannot be written ({error.strerror})", mend)
    finally:
        with contextlib.suppress(OSError):
            trial.unlink(missing_ok=True)
    free = shutil.disk_usage(folder).free
    write_rate, read_rate = n_bytes / max(written - start, 1e-6), n_bytes / max(read - written, 1e-6)
    found = f"{folder}: {free / 1e9:.1f} GB free, writes {write_rate / 1e6:.0f} MB/s, reads {read_rate / 1e6:.0f} MB/s"
    if not same:
        return Check("cache", "FAIL", f"{folder} gave back other bytes than were written", mend)
    if free < TOO_LITTLE_SPACE:
        return Check("cache", "FAIL", found, mend)
    if free < LITTLE_SPACE or write_rate < SLOW_DISK:
        return Check("cache", "WARN", found, mend)
    return Check("cache", "PASS", found)


def threads_check(environment: Mapping[str, str], cores: int, load: float | None) -> Check:
    """Check that threads neither outnumber the cores nor spin beside busy neighbours.

    Args:
        environment: `os.environ`, or what stands for it.
        cores: what this process may use.
        load: processes that want a core, averaged over a minute; None where the system does not say.
    """
    asked, policy = environment.get("OMP_NUM_THREADS", ""), environment.get("OMP_WAIT_POLICY", "")
    busy = f", load {load:.1f}" if load is not None else ""
    found = f"{cores} cores{busy}, OMP_NUM_THREADS {asked or 'not set'}, OMP_WAIT_POLICY {policy or 'not set'}"
    if asked.isdecimal() and int(asked) > cores:
        return Check("threads", "WARN", found, f"Set OMP_NUM_THREADS to {cores} at most: more threads wait for cores.")
    if load is not None and load > cores and policy.upper() != "PASSIVE":
        mend = "Others use the cores too: set OMP_WAIT_POLICY=PASSIVE, or small models run several times slower."
        return Check("threads", "WARN", found, mend)
    return Check("threads", "PASS", found)


def open_files_check() -> Check:
    """Check how many files may be open at once: every shard of the cache is one."""
    if sys.platform == "win32":
        return Check("open files", "PASS", "no limit of this kind")
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    found = "no limit" if unlimited else f"at most {soft:,}"
    if not unlimited and soft < FEW_OPEN_FILES:
        return Check("open files", "WARN", found, f"Raise the limit: ulimit -n {4 * FEW_OPEN_FILES}.")
    return Check("open files", "PASS", found)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
