"""Asks the operating system to read weights in the background, while something else runs.

Files are memory-mapped, and their pages are read on first use. Without this hint, a UNet's pages are read during its first
step, a few at a time; with it, they are read while the prompt and the image are encoded.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

STRIDE = 512 * 1024
"""Bytes of one hint. Linux silently shortens longer ones: to 8 MB on one machine, to 1.25 MB on many."""


@dataclass(frozen=True)
class Span:
    """Bytes ``start`` to ``stop`` of a file."""

    path: Path
    start: int
    stop: int


def whole(path: Path) -> Span:
    return Span(path, 0, path.stat().st_size)


def read_ahead(spans: Sequence[Span]) -> None:
    """Requests ``spans`` in order and returns at once. Pages that are already in memory cost almost nothing.

    Does nothing on macOS and Windows, where Python has no such call, or if memory has no room for all spans, because the
    last ones would evict the first before they are used.
    """
    import psutil

    total = sum(span.stop - span.start for span in spans)
    if spans and hasattr(os, "posix_fadvise") and total <= psutil.virtual_memory().available:
        Thread(target=_ask, args=(tuple(spans),), name="relay-read-ahead", daemon=True).start()


def _ask(spans: tuple[Span, ...]) -> None:
    with suppress(OSError):  # loading will report what is wrong with the file
        for span in spans:
            with span.path.open("rb", buffering=0) as file:
                for start in range(span.start, span.stop, STRIDE):
                    length = min(STRIDE, span.stop - start)
                    os.posix_fadvise(file.fileno(), start, length, os.POSIX_FADV_WILLNEED)
