"""Changes settings of an autoencoder's module for one call. The module is shared, so each setting is restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..device.offload import OffloadPolicy, cast

if TYPE_CHECKING:
    import torch


@contextmanager
def in_float32(module: Any, enabled: bool) -> Iterator[None]:
    """Runs the module in float32 if ``enabled``. Casting it back afterwards is exact."""
    import torch

    dtype = module.dtype
    if not enabled:
        yield
        return
    try:
        cast(module, torch.float32)
        yield
    finally:
        cast(module, dtype)


@contextmanager
def in_tiles(module: Any, enabled: bool, title: str) -> Iterator[None]:
    """Runs the module in tiles if ``enabled``.

    Args:
        title: the model that the module belongs to, for the message.

    Raises:
        RelayError: the autoencoder can't run in tiles.
    """
    if not enabled:
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
def in_slices(module: Any, enabled: bool) -> Iterator[None]:
    before = getattr(module, "use_slicing", False)
    try:
        if enabled:
            module.enable_slicing()
        yield
    finally:
        if enabled:
            module.use_slicing = before


def can_tile(module: Any) -> bool:
    """Whether the module can run in tiles. VQModel inherits ``enable_tiling`` but can't."""
    return hasattr(module, "use_tiling")


def retry_in_float32(dtype: torch.dtype, title: str, policy: OffloadPolicy) -> bool:
    """Whether to repeat a call that overflowed in ``dtype`` in float32; the user is told.

    It applies to that call only, so that results stay reproducible.
    """
    import torch

    if dtype != torch.float16:
        return False
    policy.say(f"The autoencoder of {title} overflowed in float16, so it ran again in float32.")
    return True
