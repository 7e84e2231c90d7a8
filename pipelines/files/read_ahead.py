"""Weights on their way from the disk while something else is done: a hint to the system, which nothing waits for.

Files are mapped, and their pages come in when they are first used. Without the hint a UNet's pages are asked for by its
first step, a few at a time; with it they come while the prompt and the picture are encoded.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

STRIDE = 512 * 1024
"""Bytes of one hint. Linux cuts a longer one short and says nothing: at 8 MB on one machine, at 1.25 MB on many."""


@dataclass(frozen=True)
class Span:
    """Bytes ``start`` to ``stop`` of a file."""

    path: Path
    start: int
    stop: int


def whole(path: Path) -> Span:
    return Span(path, 0, path.stat().st_size)


def read_ahead(spans: Sequence[Span]) -> None:
    """Asks for ``spans`` in their order, and returns at once. What is in memory already costs next to nothing.

    On macOS and Windows, whose Python has no such call, it does nothing; nor where memory has no room for all of them, because
    the last would then push out the first before they are used.
    """
    import psutil

    total = sum(span.stop - span.start for span in spans)
    if spans and hasattr(os, "posix_fadvise") and total <= psutil.virtual_memory().available:
        Thread(target=_ask, args=(tuple(spans),), name="relay-read-ahead", daemon=True).start()


def _ask(spans: tuple[Span, ...]) -> None:
    with suppress(OSError):  # the load itself says what is wrong with a file
        for span in spans:
            with span.path.open("rb", buffering=0) as file:
                for start in range(span.start, span.stop, STRIDE):
                    length = min(STRIDE, span.stop - start)
                    os.posix_fadvise(file.fileno(), start, length, os.POSIX_FADV_WILLNEED)
