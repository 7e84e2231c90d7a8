"""Downloads a file of a hub repo into huggingface_hub's cache, with progress, cancel and resume."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..base.watched import Transfer

SHA_256 = re.compile(r"[0-9a-f]{64}")
HASH_BLOCK_BYTES = 1 << 22


@dataclass(frozen=True)
class RemoteFile:
    """A file of one commit."""

    repo_id: str
    commit: str
    name: str
    size: int
    """Bytes."""
    sha256: str | None
    """The checksum of a large file, which is also its name in the cache; None for a small file."""


def fetch_file(file: RemoteFile, transfer: Transfer, cache: Path) -> None:
    """Downloads ``file`` into ``cache``, huggingface_hub's folder, unless it is already there.

    huggingface_hub deletes an incomplete file when it stops. Therefore a large file is downloaded here with the library's
    own HTTP function, into the cache's blobs folder, where the library then finds and links it.
    """
    from huggingface_hub import hf_hub_download

    transfer.check()
    start = transfer.bytes_done
    pointer = repo_folder(cache, file.repo_id) / "snapshots" / file.commit / file.name
    if file.sha256 is not None and not pointer.exists():
        _download(file, file.sha256, pointer, transfer, cache)
    transfer.check()
    hf_hub_download(file.repo_id, file.name, revision=file.commit, cache_dir=cache)
    transfer.bytes_done = start + file.size


def repo_folder(cache: Path, repo_id: str) -> Path:
    """The cache's folder with a model's ``blobs``, ``refs`` and ``snapshots``."""
    return cache / f"models--{repo_id.replace('/', '--')}"


def _download(file: RemoteFile, sha256: str, pointer: Path, transfer: Transfer, cache: Path) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import are_symlinks_supported, http_get
    from huggingface_hub.utils import WeakFileLock, build_hf_headers  # type: ignore[attr-defined]

    if not SHA_256.fullmatch(sha256):  # it becomes the name of a file
        raise OSError(f"the hub sent an invalid checksum for {file.name}")
    folder = repo_folder(cache, file.repo_id)
    blob = folder / "blobs" / sha256
    partial = folder / "blobs" / f"{sha256}.relay.incomplete"
    lock = cache / ".locks" / folder.name / f"{sha256}.lock"  # the library's own lock for this blob
    for path in (blob, lock, pointer):
        path.parent.mkdir(parents=True, exist_ok=True)
    start = transfer.bytes_done
    with WeakFileLock(lock):
        transfer.check()
        if blob.exists():
            return
        if partial.exists() and partial.stat().st_size > file.size:
            partial.unlink()
        with partial.open("ab") as output:
            resumed = output.tell()
            transfer.bytes_done = start + resumed
            http_get(
                hf_hub_url(file.repo_id, file.name, revision=file.commit),
                _CountedOutput(output, transfer, start),  # type: ignore[arg-type]  # has all methods that it calls
                resume_size=resumed,
                # with a Range header, older versions don't use hf_transfer, which can't be cancelled
                headers=build_hf_headers(headers={"Accept-Encoding": "identity", "Range": "bytes=0-"}),
                expected_size=file.size,
                displayed_filename=file.name,
            )
        if resumed and _sha256(partial, transfer) != sha256:
            partial.unlink()
            raise OSError(
                f"the resumed download of {file.name} does not match the hub's checksum; the incomplete file was deleted"
            )
        # without symlinks (on some Windows systems), the cache keeps the file itself in the snapshot
        partial.replace(blob if are_symlinks_supported(cache) else pointer)


class _CountedOutput:
    """The file that the library writes to; counts the bytes, and stops the download at the next chunk after a cancel."""

    def __init__(self, output: IO[bytes], transfer: Transfer, start: int) -> None:
        self._output = output
        self._transfer = transfer
        self._start = start

    def write(self, chunk: bytes) -> int:
        written = self._output.write(chunk)
        self._transfer.bytes_done = self._start + self._output.tell()
        self._transfer.check()
        return written

    def tell(self) -> int:
        return self._output.tell()

    def seek(self, offset: int) -> int:
        return self._output.seek(offset)

    def truncate(self) -> int:
        return self._output.truncate()


def _sha256(path: Path, transfer: Transfer) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK_BYTES):
            transfer.check()
            digest.update(block)
    return digest.hexdigest()
