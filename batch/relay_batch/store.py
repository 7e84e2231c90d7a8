"""Where pictures and records are kept. A file is there whole or not at all."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Protocol

from .store_names import checked_name

PART = ".part"
"""The end of the name of a file that is being written."""
OLD_PART = 600.0
"""Seconds after which nobody is writing a file any more."""


class Store(Protocol):
    """Files by name. Names are relative, with / between folders. What can't be written or read raises OSError."""

    def write_new(self, name: str, data: bytes) -> bool:
        """Writes a file that is not there yet. False, and nothing written, if it is there."""

    def replace(self, name: str, data: bytes) -> None:
        """Writes a file, or puts another in its place."""

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError if there is no such file."""

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""

    def names(self, folder: str) -> Iterator[str]:
        """The files in a folder and below it, without those that are being written."""

    def sizes(self, folder: str) -> Iterator[tuple[str, int]]:
        """The same with the files' sizes in bytes."""

    def append(self, name: str, data: bytes) -> None:
        """Writes at the end of a file that has one writer. If this is cut short, the file may end in a half line."""

    def sweep(self) -> None:
        """Removes what writers that ended have left half written."""


class LocalStore:
    """A folder on this machine, or on a shared disk that has hard links."""

    def __init__(self, root: Path):
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def path(self, name: str) -> Path:
        """Raises BadOutput for a name that would leave the folder."""
        return self.root.joinpath(*PurePosixPath(checked_name(name, str(self))).parts)

    def write_new(self, name: str, data: bytes) -> bool:
        part = self._written_part(name, data)
        try:
            os.link(part, self.path(name))  # unlike a rename, it never replaces a file
        except FileExistsError:
            return False
        finally:
            part.unlink()
        _sync_folder(part.parent)
        return True

    def replace(self, name: str, data: bytes) -> None:
        part = self._written_part(name, data)
        os.replace(part, self.path(name))
        _sync_folder(part.parent)

    def read(self, name: str) -> bytes:
        return self.path(name).read_bytes()

    def remove(self, name: str) -> None:
        self.path(name).unlink(missing_ok=True)

    def names(self, folder: str) -> Iterator[str]:
        for place, _, files in os.walk(self.path(folder)):
            inside = Path(place).relative_to(self.root).as_posix()
            yield from (f"{inside}/{file}" for file in files if not file.endswith(PART))

    def sizes(self, folder: str) -> Iterator[tuple[str, int]]:
        for name in self.names(folder):
            with suppress(FileNotFoundError):
                yield name, self.path(name).stat().st_size

    def append(self, name: str, data: bytes) -> None:
        with self.path(name).open("ab") as file:
            file.write(data)

    def sweep(self) -> None:
        for place, _, files in os.walk(self.root):
            for file in (Path(place, name) for name in files if name.endswith(PART)):
                with suppress(FileNotFoundError):
                    if time.time() - file.stat().st_mtime > OLD_PART:
                        file.unlink()

    def _written_part(self, name: str, data: bytes) -> Path:
        """The data on the disk, under a name of its own beside the final one."""
        final = self.path(name)
        final.parent.mkdir(parents=True, exist_ok=True)
        part = final.with_name(f".{uuid.uuid4().hex}{PART}")
        try:
            with part.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return part


def _sync_folder(folder: Path) -> None:
    """Makes a new name last over a power cut. Windows does that itself, and can't open folders."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_store(place: str) -> Store:
    """The store that a user names with --out: a folder, or s3://BUCKET/PREFIX."""
    if place.startswith("s3://"):
        from .store_s3 import s3_store

        return s3_store(place)
    return LocalStore(Path(place))
