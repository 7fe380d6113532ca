"""A small Hugging Face hub on the loopback: as much of it as `hf_hub_download` asks for, with faults on demand."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class HubServer:
    """What the hub holds, and what it was asked.

    Attributes:
        repositories: `owner/name` to a folder of files.
        gated: repositories that answer 403 as for terms not accepted.
        invalid_token: whether it answers 401 as for a token that has run out.
        drops: file name to how many more downloads of it break off.
        drops_at: the share of a file at which they do.
        takes_ranges: whether it goes on where a download broke off.
        plain: path of an address outside any repository to the file that it serves.
        asked: every request, such as `GET /owner/name/resolve/main/file`.
    """

    repositories: dict[str, Path] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    invalid_token: bool = False
    drops: dict[str, int] = field(default_factory=dict)
    drops_at: float = 0.5
    takes_ranges: bool = True
    plain: dict[str, Path] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    url: str = ""

    def files_fetched(self) -> list[str]:
        """Return the names of the files whose bodies were asked for."""
        return [line.rpartition("/")[2] for line in self.asked if line.startswith("GET")]


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: HubServer, *args: object) -> None:
        self.hub = hub
        super().__init__(*args)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *args: object) -> None:
        pass

    def _answer(self, with_body: bool) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        repository, _, rest = self.path.lstrip("/").partition("/resolve/")
        if self.path in self.hub.plain:
            self._send(self.hub.plain[self.path].read_bytes(), self.path, with_body)
        elif self.hub.invalid_token:
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif repository in self.hub.gated:
            self._refuse(403, "GatedRepo")
        elif repository not in self.hub.repositories:
            self._refuse(401, "RepoNotFound")
        else:
            file = self.hub.repositories[repository] / rest.partition("/")[2]
            if file.is_file():
                self._send(file.read_bytes(), file.name, with_body)
            else:
                self._refuse(404, "EntryNotFound")

    def _refuse(self, status: int, code: str, message: str = "") -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        if message:
            self.send_header("X-Error-Message", message)
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, body: bytes, name: str, with_body: bool) -> None:
        start = 0
        asked = self.headers.get("Range")
        if asked and with_body:
            self.hub.ranges.append(asked)
            if self.hub.takes_ranges:
                start = int(asked.removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("Content-Length", str(len(body) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        if not with_body:
            return
        rest = body[start:]
        if self.hub.drops.get(name, 0) > 0:
            self.hub.drops[name] -= 1
            self.wfile.write(rest[: int(len(rest) * self.hub.drops_at)])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return
        self.wfile.write(rest)


@contextmanager
def serving(hub: HubServer) -> Iterator[HubServer]:
    """Serve a hub while the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Answers, hub))
    server.handle_error = lambda *arguments: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()


def use_hub(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    """Let huggingface_hub, in this process, talk to a hub at `url` and keep its files in `cache`."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # Less than the tests' weights, so that what came before a break is kept, as of real weights.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
