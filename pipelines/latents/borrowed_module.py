"""The settings of an autoencoder's module, changed for one call. The module is shared, so each goes back as it was found."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..device.offload import cast

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


@contextmanager
def in_float32(module: Any, wanted: bool) -> Iterator[None]:
    """The module goes back to its dtype afterwards (exact: the widening loses nothing)."""
    import torch

    dtype = module.dtype
    if not wanted:
        yield
        return
    try:
        cast(module, torch.float32)
        yield
    finally:
        cast(module, dtype)


@contextmanager
def in_tiles(module: Any, wanted: bool, title: str) -> Iterator[None]:
    """
    Args:
        title: the model that the module came with, for the message.

    Raises:
        RelayError: ``wanted`` of an autoencoder that can't.
    """
    if not wanted:
        yield
        return
    if not can_tile(module):
        raise RelayError(
            f"tiled: the autoencoder of {title} ({type(module).__name__}) can't decode in tiles. Switch tiled off."
        )
    before = module.use_tiling
    try:
        module.enable_tiling()
        yield
    finally:
        module.use_tiling = before


@contextmanager
def in_slices(module: Any, wanted: bool) -> Iterator[None]:
    before = getattr(module, "use_slicing", False)
    try:
        if wanted:
            module.enable_slicing()
        yield
    finally:
        if wanted:
            module.use_slicing = before


def can_tile(module: Any) -> bool:
    """VQModel inherits ``enable_tiling`` and has no tiles."""
    return hasattr(module, "use_tiling")


def may_be_widened(dtype: torch.dtype, title: str) -> bool:
    """Whether what overflowed in ``dtype`` may be tried in float32: for that call alone, so that the same input always gives the same."""
    import torch

    if dtype != torch.float16:
        return False
    logger.info("the autoencoder of %s overflows in float16 here: running it again in float32", title)
    return True
