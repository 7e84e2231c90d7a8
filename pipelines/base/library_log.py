"""What a library writes into the host's log, and is not so."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

NAME = "diffusers.models.modeling_utils"
EMPTY = "should be kept in float32: []"
"""diffusers warns at every cast of a model, also where the list of what it warns of is empty."""


def _says_something(record: logging.LogRecord) -> bool:
    return EMPTY not in record.getMessage()


@contextmanager
def without_empty_warning() -> Iterator[None]:
    """diffusers' loaders cast by ``to()``; other warnings pass."""
    logger = logging.getLogger(NAME)
    if _says_something in logger.filters:  # of another thread: it goes with that one's block
        yield
        return
    logger.addFilter(_says_something)
    try:
        yield
    finally:
        logger.removeFilter(_says_something)
