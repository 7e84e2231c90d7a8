"""moto's S3 server on this machine, in the batch package's own environment, with one bucket."""

from __future__ import annotations

import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relay_host.batch import batch_commands, batch_variables
from relay_host.locked_environment import command_in
from relay_host.server import free_port

BUCKET = "pictures"
START_TIMEOUT = 60


def s3_variables(url: str) -> dict[str, str]:
    """The environment variables that name a server and its keys."""
    keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_EC2_METADATA_DISABLED": "true"}
    return {"AWS_ENDPOINT_URL": url, "AWS_REGION": "us-east-1", **keys}


@contextmanager
def s3_server(log: Path) -> Iterator[dict[str, str]]:
    """Its variables."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(command_in(batch_commands(), "moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as written:
        process = subprocess.Popen(command, stdout=written, stderr=written, env=batch_variables())
    try:
        _make_bucket(url, process, log)
        yield s3_variables(url)
    finally:
        process.kill()
        process.wait()


def _make_bucket(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            urllib.request.urlopen(urllib.request.Request(f"{url}/{BUCKET}", method="PUT"), timeout=5).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"moto's server did not start:\n{log.read_text('utf-8')}") from None
            time.sleep(0.1)
