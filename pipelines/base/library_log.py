"""Hides log messages and warnings of libraries that are wrong or mislead the user."""

from __future__ import annotations

import logging
import math
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

NAME = "diffusers.models.modeling_utils"
EMPTY = "should be kept in float32: []"
"""diffusers warns at every cast of a model, even if the list of modules in the warning is empty."""

SINGLE_FILE, UNUSED = "diffusers.loaders.single_file_model", "Some weights of the model checkpoint were not used"
CONFIGS = "diffusers.configuration_utils"
FOREIGN = "The config attributes "
OUTSIDE = re.compile(r"Should have t[ab][<>]=t[01] but got t[ab]=(\S+) and t[01]=(\S+?)\.?")
"""torchsde's warning for a time outside its interval. It rounds the ends to six digits, and then warns about the ends themselves."""
ROUNDED = 1e-6
OLD_CONFIG = r"The configuration file of (this scheduler|the unet)"


def _is_not_empty(record: logging.LogRecord) -> bool:
    return EMPTY not in record.getMessage()


def _not_of_foreign_attributes(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(FOREIGN)


@contextmanager
def _filtered(name: str, passes: Callable[[logging.LogRecord], bool]) -> Iterator[None]:
    logger = logging.getLogger(name)
    if passes in logger.filters:  # another thread has added it, and will remove it
        yield
        return
    logger.addFilter(passes)
    try:
        yield
    finally:
        logger.removeFilter(passes)


def without_empty_warning() -> AbstractContextManager[None]:
    """Hides the empty warning when diffusers' loaders cast a model; other warnings pass."""
    return _filtered(NAME, _is_not_empty)


def _not_of_unused_weights(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(UNUSED)


def without_unused_weights() -> AbstractContextManager[None]:
    """For a conversion where the pack raises an error for unused weights: diffusers would list all their keys."""
    return _filtered(SINGLE_FILE, _not_of_unused_weights)


def without_foreign_attributes() -> AbstractContextManager[None]:
    """For creating a run's scheduler from the model's: entries that only another class uses are ignored on purpose. Unused
    entries of the model's own config are reported when it is loaded, not at every run."""
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
    """For a run of modular blocks: they log every exception with a traceback, even a cancel, before they raise it."""
    return _filtered(BLOCKS, _not_of_stopped_blocks)


@contextmanager
def without_rounding_warnings() -> Iterator[None]:
    """For a step of a scheduler that draws noise with torchsde. Other warnings pass, also for a time that is far outside."""
    with warnings.catch_warnings(record=True) as caught:
        yield
    for warning in caught:
        times = OUTSIDE.fullmatch(str(warning.message))
        if times is None or not math.isclose(float(times[1]), float(times[2]), rel_tol=ROUNDED, abs_tol=ROUNDED):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


@contextmanager
def without_advice_on_configs() -> Iterator[None]:
    """For creating a pipeline: it advises editing an old model's config, but already runs with the values that it advises."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=OLD_CONFIG, category=FutureWarning)
        yield
