"""What a library writes into the host's log, and is not so."""

from __future__ import annotations

import logging
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

NAME = "diffusers.models.modeling_utils"
EMPTY = "should be kept in float32: []"
"""diffusers warns at every cast of a model, also where the list of what it warns of is empty."""

OUTSIDE = re.compile(r"Should have t[ab][<>]=t[01] but got t[ab]=(\S+) and t[01]=(\S+?)\.?")
"""torchsde, of a time outside of its interval. It rounds the interval's ends to six digits, and warns of the ends themselves."""
ROUNDED = 1e-6
OLD_CONFIG = r"The configuration file of (this scheduler|the unet)"


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


@contextmanager
def without_rounding_warnings() -> Iterator[None]:
    """For a step of a scheduler that draws noise by torchsde; other warnings pass, also of a time that is far outside."""
    with warnings.catch_warnings(record=True) as caught:
        yield
    for one in caught:
        times = OUTSIDE.fullmatch(str(one.message))
        if times is None or not math.isclose(float(times[1]), float(times[2]), rel_tol=ROUNDED, abs_tol=ROUNDED):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


@contextmanager
def without_advice_on_configs() -> Iterator[None]:
    """For making a pipeline: it says that an old model's config should be edited, and then itself runs with what it advises."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=OLD_CONFIG, category=FutureWarning)
        yield
