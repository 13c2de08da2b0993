"""What stands for S3 and Google Cloud Storage on this machine, at the addresses that `two_nodes.variables` names."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from urllib.parse import urlsplit
from urllib.request import urlopen

BUCKET = "flawsmith-tests"
_NEEDS = {"s3": ("s3fs", "moto", "flask_cors"), "gs": ("gcsfs", "gcp_storage_emulator")}
_STARTS = {
    "s3": ["-m", "moto.server", "-H", "127.0.0.1", "-p"],
    "gs": ["-m", "gcp_storage_emulator", "start", "--host", "127.0.0.1", "--in-memory", "--port"],
}
_VARIABLE = {"s3": "AWS_ENDPOINT_URL", "gs": "STORAGE_EMULATOR_HOST"}
_LONGEST_START = 120.0


def missing(kind: str) -> list[str]:
    """Return the packages that are absent and that a kind of store needs: its driver, and what stands for it."""
    return [name for name in _NEEDS[kind] if find_spec(name) is None]


@contextmanager
def serving(kind: str) -> Iterator[str]:
    """Serve a bucket while the block runs; give its address, such as `s3://flawsmith-tests`."""
    import fsspec

    address = os.environ[_VARIABLE[kind]]
    words = [sys.executable, *_STARTS[kind], str(urlsplit(address).port)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(address, server)
        fsspec.filesystem(kind).mkdir(BUCKET)
        yield f"{kind}://{BUCKET}"
    finally:
        server.terminate()
        server.wait(30)


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    begun = time.monotonic()
    while True:
        if server.poll() is not None or time.monotonic() - begun > _LONGEST_START:
            raise RuntimeError(f"nothing answers at {address}")
        try:
            urlopen(address, timeout=5).close()
            return
        except OSError as error:
            if hasattr(error, "code"):  # an answer, if not the page that was asked for
                return
            time.sleep(0.1)
