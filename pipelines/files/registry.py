"""The components in memory: each is loaded once and shared by all models and nodes that use it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from .component_files import ComponentFiles
from .config_files import read_small

if TYPE_CHECKING:
    import torch


HUB_BLOBS = "blobs"
SHA_256 = re.compile(r"[0-9a-f]{64}")


class ComponentRegistry:
    """Components by key, as weak references: a component that no model uses is freed.

    If a small strong cache is ever needed, it belongs here, for the last values of :meth:`get`.
    """

    def __init__(self) -> None:
        self._components: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()
        self._lock = Lock()
        self.loads = 0
        """How many components have been loaded."""

    def get(self, key: Hashable, load: Callable[[], Any]) -> Any:
        """The component for ``key``; calls ``load`` if it is not in memory. Threads that ask for the same key get the same object.

        Only one load runs at a time: two at once would need the memory of both and not be faster.
        """
        with self._lock:
            component = self._components.get(key)
            if component is None:
                component = load()
                self.loads += 1
                self._components[key] = component
            return component

    def __contains__(self, key: Hashable) -> bool:
        return key in self._components

    def __len__(self) -> int:
        return len(self._components)


REGISTRY = ComponentRegistry()
"""The registry of this process."""


def component_key(folder: Path, files: ComponentFiles, dtype: torch.dtype) -> Hashable:
    """Equal for components that would load as equal objects: same class, same weight files, equal configs, same dtype.

    Links to one weight file (hub blobs, hard links and symlinks) count as the same file until it is written to. Copies count
    as different files, because comparing them means reading them; only in the hub's cache are they recognised.
    """
    weights = tuple(file_identity(folder / name) for name in files.weights)
    return (
        files.library,
        files.class_name,
        content_digest(folder, files.side_files),
        weights,
        dtype if weights else None,
    )


def file_identity(path: Path) -> Hashable:
    """Equal for one file under any name until it is written to, and for a file that several hub repos contain: the hub's
    cache names it by the SHA-256 of its content."""
    stat = path.stat()
    blob = Path(os.path.realpath(path))
    if blob.parent.name == HUB_BLOBS and SHA_256.fullmatch(blob.name):
        return blob.name, stat.st_size
    place = (
        (stat.st_dev, stat.st_ino) if stat.st_ino else os.path.realpath(path)
    )  # some file systems have no file numbers
    return place, stat.st_size, stat.st_mtime_ns


def content_digest(folder: Path, names: Iterable[str]) -> bytes:
    """A digest of the content of small files; every repo has its own copies of them."""
    digest = hashlib.blake2b(digest_size=16)
    for name in names:
        content = read_small(folder / name, name)
        digest.update(f"{name.rpartition('/')[2]}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.digest()
