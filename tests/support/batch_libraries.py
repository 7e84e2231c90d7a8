"""Libraries that only the batch package's own environment has, importable here for a while: pyarrow and boto3."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from relay_host.batch import batch_commands
from relay_host.environment import packages


@contextmanager
def batch_libraries() -> Iterator[None]:
    """What this environment has too comes from this environment."""
    places = packages(batch_commands().parent)
    sys.path += places
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = [place for place in sys.path if place not in places]
