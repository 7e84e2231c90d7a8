"""Caches encoded images, prompts and control images, so that each is encoded once for all nodes that use it.

The host caches per node and drops what the last run did not use; this cache works by content. Values are copied on the way
in and out, because diffusers and nodes of other packs may change them in place. An entry has only weak references to the
objects that made it, and is dropped with any of them, so a model that is freed takes its encodings with it.
"""

from __future__ import annotations

import hashlib
import logging
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass, fields, is_dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

MOST_BYTES = 256 * 2**20
"""For SDXL at 1024x1024, an encoded image takes 0.5 MB, a prompt 1.3 MB, and a fitted control image 12 MB."""


@dataclass(frozen=True)
class EncodingKey:
    """The key of an encoding: what encodes it, and from what."""

    kind: str
    """The kind of encoding, for the counters and the log."""
    owners: tuple[Any, ...]
    """The objects that encode it (modules, tokenizers, LoRAs), compared by identity."""
    content: tuple[Hashable, ...]
    """Everything else that determines the result."""


class EncodedOnce:
    """A cache of encodings. Beyond ``most_bytes``, the least recently used ones are dropped.

    If two threads need the same encoding at once, both compute it, so that neither waits for the other's device.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._entries: OrderedDict[tuple[Any, ...], tuple[Any, int]] = OrderedDict()
        self._gone: deque[weakref.ref[Any]] = deque()
        self._lock = Lock()
        self.bytes = 0
        """Bytes that the entries take."""
        self.hits: Counter[str] = Counter()
        """Kind -> how often an entry was found."""
        self.misses: Counter[str] = Counter()

    def find(self, key: EncodingKey) -> Any:
        """A copy of the cached value, or None."""
        by_identity = self._by_identity(key)
        with self._lock:
            self._drop_gone()
            value, _ = self._entries.get(by_identity, (None, 0))
            (self.misses if value is None else self.hits)[key.kind] += 1
            if value is not None:
                self._entries.move_to_end(by_identity)
        logger.debug("%s: encoded %s", key.kind, "now" if value is None else "before")
        return copied(value)

    def keep(self, key: EncodingKey, value: Any, size: int) -> None:
        """Keeps a copy of ``value``, of ``size`` bytes, for :meth:`find`."""
        by_identity, value = self._by_identity(key), copied(value)
        with self._lock:
            self._drop_gone()
            self._drop(by_identity)
            self._entries[by_identity] = value, size
            self.bytes += size
            while self.bytes > self._most_bytes:
                self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
            self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def _by_identity(self, key: EncodingKey) -> tuple[Any, ...]:
        return key.kind, tuple(weakref.ref(owner, self._forget) for owner in key.owners), key.content

    def _forget(self, gone: weakref.ref[Any]) -> None:
        """Called when an owner is freed: at any moment and in any thread, perhaps one that has the lock."""
        self._gone.append(gone)
        if self._lock.acquire(blocking=False):
            try:
                self._drop_gone()
            finally:
                self._lock.release()

    def _drop_gone(self) -> None:
        while self._gone:
            gone = self._gone.popleft()
            for key in [key for key in self._entries if any(owner is gone for owner in key[1])]:
                self._drop(key)

    def _drop(self, key: tuple[Any, ...]) -> None:
        _, size = self._entries.pop(key, (None, 0))
        self.bytes -= size


ENCODED = EncodedOnce()
"""The cache of this process."""


def copied(value: Any) -> Any:
    """A copy of ``value`` with cloned tensors, also inside dicts, tuples and dataclasses. Memory layouts are kept."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, tuple):
        return tuple(copied(item) for item in value)
    if isinstance(value, dict):
        return {name: copied(item) for name, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: copied(getattr(value, field.name)) for field in fields(value)})
    return value


def tensor_digest(tensor: torch.Tensor) -> Hashable:
    """Equal for tensors with the same values and the same memory layout, which can change the last bits of a result."""
    import torch

    values = tensor.detach().cpu()
    for dense in (values, values.movedim(1, -1)):  # an image with channels last in memory needs no copy
        if dense.is_contiguous():
            break
    else:
        dense = values.contiguous()
    content = dense.reshape(-1).view(torch.uint8).numpy().data
    return str(tensor.dtype), tuple(tensor.shape), tensor.stride(), hashlib.sha256(content).digest()
