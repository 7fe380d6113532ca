"""Every error that a user can cause, each with what was given, what was expected and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ProbeError(Exception):
    """Base of the errors that a user can cause; the command line prints the message alone.

    The message is one or two lines: what was given, what was expected, what to do.
    `exit_code` is 2 for bad usage or input, 3 for an audit whose policy failed.
    """

    exit_code = 2


class InputError(ProbeError):
    """An argument or array that a function cannot use: wrong shape, kind or range."""


class UnknownNameError(ProbeError):
    """A name that a registry does not hold."""


class ManifestError(ProbeError):
    """A manifest that cannot be read, with the rows (1 is the first below the header) and columns at fault."""


class DataCardError(ProbeError):
    """A data card that cannot be read, with the field at fault."""


class ImageError(ProbeError):
    """One image that cannot be used. `reason` is a short code that quarantine tables count by."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class TooManyFailuresError(ProbeError):
    """More images went to quarantine than `--max-failures` allows."""


class ModelError(ProbeError):
    """A model that cannot be loaded, or an input that it cannot take."""


class StoreError(ProbeError):
    """A cache, run folder or export that cannot be written or read."""


class DeviceError(ProbeError):
    """A device or precision that this machine does not have."""


class PolicyError(ProbeError):
    """An audit whose policy failed."""

    exit_code = 3


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Return the error for a name that a registry lacks, with the nearest known names.

    Args:
        kind: what was looked up, singular (`"model"`, `"label"`).
        name: what was given.
        known: the names that exist.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(close)}?" if close else f"Known: {', '.join(names) or 'none'}."
    return UnknownNameError(f"Unknown {kind} '{name}'. {hint}")
