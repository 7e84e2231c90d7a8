"""What has been encoded: a picture, a prompt, a control picture, each once, whatever number of nodes ask for it.

The host caches per node, and forgets what the last prompt had; this caches by content. What goes in and what comes out are
copies: nodes of other packs, and diffusers, may write into what they are given. An entry dies with any of the objects that
made it, and holds none of them: a model that is dropped leaves memory, and what it encoded with it.
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
"""An SDXL picture of 1024 pixels takes 0.5 MB, its prompt 1.3 MB, a fitted control picture of that size 12 MB."""


@dataclass(frozen=True)
class Wanted:
    """One encoding: who makes it, and of what."""

    kind: str
    """What it is, for the counters and the log."""
    owners: tuple[Any, ...]
    """The modules (tokenizers, LoRAs) that make it; told apart by identity."""
    content: tuple[Hashable, ...]
    """All else that decides the result."""


class EncodedOnce:
    """Results by who made them and of what, the least recently used of them dropped beyond ``most_bytes``.

    Two threads that ask for one thing at once both make it: nobody waits for another's device.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._entries: OrderedDict[tuple[Any, ...], tuple[Any, int]] = OrderedDict()
        self._gone: deque[weakref.ref[Any]] = deque()
        self._lock = Lock()
        self.bytes = 0
        """How many the entries take."""
        self.hits: Counter[str] = Counter()
        """Kind -> how often it was found."""
        self.misses: Counter[str] = Counter()

    def find(self, wanted: Wanted) -> Any:
        """A copy of what was kept for this, or None."""
        key = self._key(wanted)
        with self._lock:
            self._drop_gone()
            value, _ = self._entries.get(key, (None, 0))
            (self.misses if value is None else self.hits)[wanted.kind] += 1
            if value is not None:
                self._entries.move_to_end(key)
        logger.debug("%s: encoded %s", wanted.kind, "now" if value is None else "before")
        return copied(value)

    def keep(self, wanted: Wanted, value: Any, size: int) -> None:
        """Keeps a copy of ``value``, of ``size`` bytes, for :meth:`find`."""
        key, value = self._key(wanted), copied(value)
        with self._lock:
            self._drop_gone()
            self._drop(key)
            self._entries[key] = value, size
            self.bytes += size
            while self.bytes > self._most_bytes:
                self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
            self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def _key(self, wanted: Wanted) -> tuple[Any, ...]:
        return wanted.kind, tuple(weakref.ref(owner, self._forget) for owner in wanted.owners), wanted.content

    def _forget(self, gone: weakref.ref[Any]) -> None:
        """Called as an owner dies: at any moment, in any thread, perhaps in one that has the lock."""
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
"""The process's own."""


def copied(value: Any) -> Any:
    """``value`` with tensors of its own, in dicts, tuples and dataclasses too. They keep their layout in memory."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, tuple):
        return tuple(copied(one) for one in value)
    if isinstance(value, dict):
        return {name: copied(one) for name, one in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{one.name: copied(getattr(value, one.name)) for one in fields(value)})
    return value


def tensor_digest(tensor: torch.Tensor) -> Hashable:
    """Equal for tensors of the same values in the same layout, on which the last bits of a result depend."""
    import torch

    values = tensor.detach().cpu()
    for dense in (values, values.movedim(1, -1)):  # a picture's channels come last in memory: no copy is made of it
        if dense.is_contiguous():
            break
    else:
        dense = values.contiguous()
    content = dense.reshape(-1).view(torch.uint8).numpy().data
    return str(tensor.dtype), tuple(tensor.shape), tensor.stride(), hashlib.sha256(content).digest()
