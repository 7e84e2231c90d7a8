"""The noise of each image of a batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .latent_space import Latents

if TYPE_CHECKING:
    import torch

SEED_RANGE = 2**64


def generators(seed: int, indices: Iterable[int]) -> list[torch.Generator]:
    """One CPU generator per image with ``seed + index`` modulo 2**64: the same noise on every device, whatever the batch."""
    import torch

    return [torch.Generator().manual_seed((seed + index) % SEED_RANGE) for index in indices]


def generators_for(latent: Latents | None, seed: int, batch: int) -> list[torch.Generator]:
    """The :func:`generators` of a batch, using the latent's batch_index if it has one."""
    index = latent.batch_index if latent is not None else None
    return generators(seed, range(batch) if index is None else index)


def copies_of(originals: Sequence[torch.Generator]) -> list[torch.Generator]:
    """Generators that draw the same values as the originals will, and don't change them."""
    return [type(one)(device=one.device).set_state(one.get_state()) for one in originals]
