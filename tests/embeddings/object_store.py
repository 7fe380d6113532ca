"""An S3-compatible server on this machine's loopback, with a bucket that holds a folder's files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BUCKET = "radiographs"
SECRET = "wJalrXUtnFEMI-secret"


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Give the address of a folder's files in a store; this process's environment knows where it is, and the keys."""
    server_module = pytest.importorskip("moto.server", reason="needs moto[server], of the extra 'dev'")
    from pyarrow import fs

    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        try:
            store = fs.S3FileSystem(
                endpoint_override=f"{host}:{port}", scheme="http", region="us-east-1", allow_bucket_creation=True
            )
            store.create_dir(BUCKET)
            fs.copy_files(str(folder), f"{BUCKET}/site a", destination_filesystem=store, use_threads=False)
            yield f"s3://{BUCKET}/site a"
        finally:
            server.stop()
