"""Every error that a user can cause, each with what was given, what was expected and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

LONGEST = 1_000
"""Letters of a message: names from a damaged file may have millions."""

_UNSEEN = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")


class ProbeError(Exception):
    """Base of the errors that a user can cause; the command line prints the message alone.

    The message is one or two lines: what was given, what was expected, what to do.
    `exit_code` is 2 for bad usage or input, 3 for an audit whose policy failed.
    """

    exit_code = 2

    def __str__(self) -> str:
        """Return the message as a terminal may show it, its middle left out where it is longer than `LONGEST`."""
        text = visible(super().__str__())
        return text if len(text) <= LONGEST else f"{text[: LONGEST * 2 // 3]} ... {text[-LONGEST // 3 :]}"


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

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        """Pickle with the reason: another process may have read the image."""
        return type(self), (self.reason, str(self))


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


def visible(text: str) -> str:
    """Return text without what steers a terminal or turns its direction: such characters are written as escapes."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Return the error for a name that a registry lacks, with the nearest known names.

    Args:
        kind: what was looked up, singular (`"model"`, `"label"`).
        name: what was given.
        known: the names that exist.
    """
    names, name = sorted(known), name[:LONGEST]
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(close)}?" if close else f"Known: {', '.join(names) or 'none'}."
    return UnknownNameError(f"Unknown {kind} '{name}'. {hint}")
