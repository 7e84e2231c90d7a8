"""What a library writes into the host's log, and is not so."""

from __future__ import annotations

import logging
import math
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

NAME = "diffusers.models.modeling_utils"
EMPTY = "should be kept in float32: []"
"""diffusers warns at every cast of a model, also where the list of what it warns of is empty."""

SINGLE_FILE, UNUSED = "diffusers.loaders.single_file_model", "Some weights of the model checkpoint were not used"
CONFIGS = "diffusers.configuration_utils"
FOREIGN = "The config attributes "
OUTSIDE = re.compile(r"Should have t[ab][<>]=t[01] but got t[ab]=(\S+) and t[01]=(\S+?)\.?")
"""torchsde, of a time outside of its interval. It rounds the interval's ends to six digits, and warns of the ends themselves."""
ROUNDED = 1e-6
OLD_CONFIG = r"The configuration file of (this scheduler|the unet)"


def _says_something(record: logging.LogRecord) -> bool:
    return EMPTY not in record.getMessage()


def _not_of_foreign_attributes(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(FOREIGN)


@contextmanager
def _filtered(name: str, passes: Callable[[logging.LogRecord], bool]) -> Iterator[None]:
    logger = logging.getLogger(name)
    if passes in logger.filters:  # of another thread: it goes with that one's block
        yield
        return
    logger.addFilter(passes)
    try:
        yield
    finally:
        logger.removeFilter(passes)


def without_empty_warning() -> AbstractContextManager[None]:
    """diffusers' loaders cast by ``to()``; other warnings pass."""
    return _filtered(NAME, _says_something)


def _not_of_unused_weights(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(UNUSED)


def without_unused_weights() -> AbstractContextManager[None]:
    """For a conversion whose unused weights are an error of ours: diffusers lists the keys of all of them."""
    return _filtered(SINGLE_FILE, _not_of_unused_weights)


def without_foreign_attributes() -> AbstractContextManager[None]:
    """For making a run's scheduler from the model's: what is of another class alone has no place in it. What the model's own
    config has too much is said when it is loaded, and not at each run."""
    return _filtered(CONFIGS, _not_of_foreign_attributes)


GUIDERS, EXPERIMENTAL = "diffusers.guiders.guider_utils", "Guiders are currently an experimental feature"


def _not_of_experiments(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(EXPERIMENTAL)


def without_notes_on_guiders() -> AbstractContextManager[None]:
    """For making a guider: diffusers says each time that its interface may change, which the tests watch."""
    return _filtered(GUIDERS, _not_of_experiments)


BLOCKS = "diffusers.modular_pipelines.modular_pipeline"
BLOCK_STOPPED = "\nError in block: "


def _not_of_stopped_blocks(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(BLOCK_STOPPED)


def without_stopped_blocks() -> AbstractContextManager[None]:
    """For a run of modular blocks: they log whatever stops them, with a traceback and a cancel too, before they pass it on."""
    return _filtered(BLOCKS, _not_of_stopped_blocks)


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
