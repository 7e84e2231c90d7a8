"""Reads the pack's DEBUG messages in the server's log."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from relay_host.server import HostServer


@contextmanager
def lines_during(server: HostServer) -> Iterator[Callable[[], list[str]]]:
    """Yields a function that returns the log's lines since the block began."""
    start = len(server.log_text())
    yield lambda: server.log_text()[start:].splitlines()


@contextmanager
def stages_during(server: HostServer) -> Iterator[Callable[[], list[str]]]:
    """Yields a function that returns the stages since the block began, as "vae: AutoencoderKL"."""
    with lines_during(server) as lines:
        yield lambda: [m.group(1) for line in lines() if (m := re.search(r"stage (\w+: .+)$", line))]
