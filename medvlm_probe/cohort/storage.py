"""Bytes by place: files below a folder of this machine, or below a folder of an object store (`s3://bucket/folder`).

Object stores are reached through pyarrow's file systems, or fsspec's for those that pyarrow lacks. Who may read is
settled outside, as the store's own tools do it (environment, configuration files, the machine's role): an address that
holds credentials is refused, and no message repeats what a store answered beyond its error code.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from medvlm_probe.errors import ImageError, InputError, unknown_name

MAX_FILE_BYTES = 1 << 30

_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


def is_address(text: str) -> bool:
    """Return whether a text names a place in a store (`scheme://...`) and not a file of this machine."""
    return _ADDRESS.match(text) is not None


def read_local(root: Path, path: str) -> bytes:
    """Return the bytes of a regular file below `root`, following links only where they stay below it.

    Raises:
        ImageError: it leaves the folder, is missing, no file, too large, or cannot be read.
    """
    try:
        real = Path(os.path.realpath(root / path, strict=True))
        if not real.is_relative_to(root):
            raise ImageError("outside_folder", "The path leaves the cohort's folder; copy the file into it.")
        # What was resolved is opened without following a link again, and without waiting on a pipe.
        with os.fdopen(os.open(real, _OPEN_FLAGS), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("not_a_file", "This is a folder, pipe or device.")
            _refuse_large(status.st_size)
            return file.read()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError("missing_file", "There is no such file.") from error
    except IsADirectoryError as error:
        raise ImageError("not_a_file", "This is a folder.") from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise ImageError("unreadable", f"The file cannot be read: {why}.") from error


@dataclass(frozen=True)
class RemoteFolder:
    """A folder of an object store. It can be sent to other machines, which use their own credentials.

    Attributes:
        address: `s3://bucket/folder`, without a slash at the end.

    Raises:
        UnknownNameError: a scheme that is not read.
        InputError: the address holds credentials or options.
    """

    address: str

    def __post_init__(self) -> None:
        match = _ADDRESS.match(self.address)
        scheme = match.group(1).lower() if match else ""
        if scheme not in STORES:
            raise unknown_name("kind of store", scheme, STORES)
        rest = self.address[len(scheme) + 3 :].rstrip("/")
        user, at, _ = rest.partition("/")[0].rpartition("@")
        if "?" in rest or "#" in rest or (at and ":" in user):
            raise InputError(
                f"The {scheme} address holds credentials or options, which would be written into results. Leave them "
                "out: credentials, AWS_REGION and AWS_ENDPOINT_URL are taken from the environment."
            )
        object.__setattr__(self, "address", f"{scheme}://{rest}")

    @property
    def name(self) -> str:
        """The folder's own name."""
        return PurePosixPath(self.address).name

    def below(self, path: str) -> RemoteFolder:
        """Return a folder within this one; `.` is this one."""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        return RemoteFolder("/".join([self.address, *parts]))

    def read(self, path: str) -> bytes:
        """Return the bytes of an object below the folder.

        Raises:
            ImageError: it leaves the folder, is missing, too large, or the store does not give it.
        """
        if ".." in path.split("/") or path.startswith("/") or "\\" in path or "\0" in path or is_address(path):
            raise ImageError("outside_folder", "The path leaves the cohort's folder; copy the file into it.")
        try:
            files, base = _opened(self.address, *_settings())
            with files.open_input_file(f"{base}/{path}") as file:
                _refuse_large(file.size())
                data: bytes = file.read()
                return data
        except FileNotFoundError as error:
            raise ImageError("missing_file", "There is no such file.") from error
        except (OSError, ValueError) as error:
            raise ImageError("unreadable", f"The store does not give the file: {_code(error)}.") from error


@dataclass(frozen=True)
class RemoteFile:
    """One object, with as much of `Path` as reading a manifest takes."""

    folder: RemoteFolder
    path: str

    def __str__(self) -> str:
        return f"{self.folder.address}/{self.path}"

    @property
    def name(self) -> str:
        """The last part of its path."""
        return PurePosixPath(self.path).name

    @property
    def suffix(self) -> str:
        """What its name ends in."""
        return PurePosixPath(self.path).suffix

    def is_file(self) -> bool:
        """Return whether there is such an object; raises InputError where the store does not say."""
        files, base = _opened(self.folder.address, *_settings())
        try:
            return bool(files.get_file_info(f"{base}/{self.path}").is_file)
        except OSError as error:
            raise InputError(f"The store does not give '{self}': {_code(error)}. Check address and access.") from error

    def read_bytes(self) -> bytes:
        """Return its bytes; raises OSError."""
        try:
            return self.folder.read(self.path)
        except ImageError as error:
            raise OSError(str(error)) from error


def _refuse_large(n_bytes: int) -> None:
    if n_bytes > MAX_FILE_BYTES:
        raise ImageError("too_many_bytes", f"The file has {n_bytes:,} bytes; at most {MAX_FILE_BYTES:,} are read.")


def _code(error: BaseException) -> str:
    """Return a store's error code (ACCESS_DENIED), never its whole answer, which may name keys."""
    found = re.search(r"AWS Error ([A-Z_]+)", str(error))
    return found.group(1) if found else type(error).__name__


def _settings() -> tuple[str, str]:
    """Return the S3 endpoint and region that the environment asks for, "" where it does not."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    return endpoint, os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""


@cache
def _opened(address: str, endpoint: str, region: str) -> tuple[Any, str]:
    """Return the file system of an address, and the address's path in it; opened once, since that may take seconds."""
    scheme, _, rest = address.partition("://")
    return STORES[scheme](address, rest, endpoint, region)


def _s3(address: str, rest: str, endpoint: str, region: str) -> tuple[Any, str]:
    from pyarrow import fs

    if endpoint:
        scheme, _, host = endpoint.rstrip("/").rpartition("://")
        return fs.S3FileSystem(endpoint_override=host, scheme=scheme or "https", region=region or "us-east-1"), rest
    return fs.S3FileSystem(region=region or fs.resolve_s3_region(rest.partition("/")[0])), rest


def _of_pyarrow(address: str, rest: str, endpoint: str, region: str) -> tuple[Any, str]:
    from pyarrow import fs

    opened: tuple[Any, str] = fs.FileSystem.from_uri(address)
    return opened


def _of_fsspec(address: str, rest: str, endpoint: str, region: str) -> tuple[Any, str]:
    import fsspec
    from pyarrow import fs

    try:
        files, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise InputError(f"Reading {address.partition('://')[0]}:// needs another package: {error}.") from error
    return fs.PyFileSystem(fs.FSSpecHandler(files)), path


STORES: dict[str, Callable[[str, str, str, str], tuple[Any, str]]] = {
    "s3": _s3,
    "gs": _of_pyarrow,
    "hdfs": _of_pyarrow,
    "abfs": _of_fsspec,
    "abfss": _of_fsspec,
    "memory": _of_fsspec,
    "sftp": _of_fsspec,
}
"""How a scheme's file system is opened: of (address, address without scheme, S3 endpoint, region)."""
