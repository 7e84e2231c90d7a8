"""The noise of each image of a batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .latent_space import Latents

if TYPE_CHECKING:
    import torch

SEED_RANGE = 2**64


def generators(seed: int, indices: Iterable[int]) -> list[torch.Generator]:
    """One CPU generator an image, ``seed + index`` modulo 2**64: the same on every device, alone or in a batch."""
    import torch

    return [torch.Generator().manual_seed((seed + index) % SEED_RANGE) for index in indices]


def generators_for(latent: Latents | None, seed: int, batch: int) -> list[torch.Generator]:
    """:func:`generators` of a batch, by the latent's batch_index where it has one."""
    index = latent.batch_index if latent is not None else None
    return generators(seed, range(batch) if index is None else index)


def copies_of(originals: Sequence[torch.Generator]) -> list[torch.Generator]:
    """Generators that draw what the originals are about to draw, and leave those as they are."""
    return [type(one)(device=one.device).set_state(one.get_state()) for one in originals]
