"""Processes large pictures in overlapping tiles with soft edges. The memory needed is that of one tile, whatever the picture's size.

Neither diffusers nor another library of the environment blends tiles within a run. (The tiled decoding of diffusers' autoencoders
does not distribute its tiles evenly, so the last ones can be slivers, and it keeps all of them on the device.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..base.images import Extent

if TYPE_CHECKING:
    import torch

LEAST_TILE = 64
TILE_STEP = 8
"""A tile's side is a multiple of this, so that it is a whole number of pixels at the deepest level of the UNet."""
OVERLAP = 0.25
"""The smallest part of a tile that overlaps its neighbour."""


@dataclass(frozen=True)
class Tiles:
    """Evenly distributed squares of ``size`` that cover ``extent``. A side that is no longer than ``size`` has one tile."""

    extent: Extent
    size: int

    @property
    def overlap(self) -> int:
        return int(self.size * OVERLAP)

    @property
    def largest(self) -> Extent:
        """The size of a tile."""
        return Extent(min(self.size, self.extent.width), min(self.size, self.extent.height))

    def __len__(self) -> int:
        return len(self._starts(self.extent.width)) * len(self._starts(self.extent.height))

    def __iter__(self) -> Iterator[tuple[slice, slice]]:
        """(rows, columns) of each tile, row by row."""
        for top in self._starts(self.extent.height):
            for left in self._starts(self.extent.width):
                rows = slice(top, min(top + self.size, self.extent.height))
                yield rows, slice(left, min(left + self.size, self.extent.width))

    def _starts(self, length: int) -> list[int]:
        """The first tile begins at 0 and the last one ends at ``length``."""
        if length <= self.size:
            return [0]
        gaps = -(-(length - self.size) // (self.size - self.overlap))
        return [round(i * (length - self.size) / gaps) for i in range(gaps + 1)]


def tiles_for(extent: Extent, tile_size: int) -> Tiles | None:
    """The tiles of a picture; None if ``tile_size`` is 0 or the picture is no larger.

    Raises:
        RelayError: as :func:`check_tile_size`.
    """
    check_tile_size(tile_size)
    if tile_size == 0 or max(extent.width, extent.height) <= tile_size:
        return None
    return Tiles(extent, tile_size)


def check_tile_size(tile_size: int) -> None:
    """
    Raises:
        RelayError: the size is not 0, and is below LEAST_TILE or not a multiple of TILE_STEP.
    """
    if tile_size != 0 and (tile_size < LEAST_TILE or tile_size % TILE_STEP):
        nearest = max(LEAST_TILE, round(tile_size / TILE_STEP) * TILE_STEP)
        raise RelayError(
            f"tile_size: tiles can't be {tile_size} pixels. Use 0 (the whole picture at once) or a multiple of {TILE_STEP} that is at least "
            f"{LEAST_TILE}. The nearest is {nearest}."
        )


def blended(
    whole: torch.Tensor,
    tiles: Tiles,
    run: Callable[[torch.Tensor], torch.Tensor],
    *,
    factor: int = 1,
    device: torch.device | None = None,
) -> torch.Tensor:
    """Calls ``run`` on each tile and blends the results, each with a weight that falls off towards its edges.

    Args:
        whole: [B, C, height, width] of the size of ``tiles.extent``.
        run: [B, C, h, w] -> [B, N, h * factor, w * factor].
        factor: how much ``run`` enlarges a tile.
        device: the device of the result; None: that of ``whole``.

    Returns:
        [B, N, height * factor, width * factor], float32.
    """
    import torch

    device = device or whole.device
    height, width = (side * factor for side in whole.shape[-2:])
    canvas, total = None, torch.zeros(height, width, device=device)
    for rows, columns in tiles:
        part = run(whole[..., rows, columns]).to(device, torch.float32)
        weight = _ramp(part.shape[-2], tiles.overlap * factor)[:, None] * _ramp(part.shape[-1], tiles.overlap * factor)
        weight = weight.to(device)
        if canvas is None:
            canvas = torch.zeros(*part.shape[:2], height, width, device=device)
        place = (..., _scaled(rows, factor), _scaled(columns, factor))
        canvas[place] += part * weight
        total[place] += weight
    assert canvas is not None
    return canvas.div_(total)


def _ramp(length: int, edge: int) -> torch.Tensor:
    """[length]: 1 in the middle, falling linearly over ``edge`` pixels at both ends, never 0."""
    import torch

    from_start = (torch.arange(length, dtype=torch.float32) + 0.5) / edge
    return torch.minimum(from_start, from_start.flip(0)).clamp(max=1)


def _scaled(part: slice, factor: int) -> slice:
    return slice(part.start * factor, part.stop * factor)


class TiledUnet:
    """Stands in for ``unet`` in one pipeline object: predicts the latent of the whole picture tile by tile.

    The noise, the schedule and the pipeline's arithmetic stay those of a run without tiles, and neighbouring tiles agree after
    every step (as in MultiDiffusion, https://arxiv.org/abs/2302.08113).
    """

    def __init__(self, unet: Any, tiles: Tiles, after_tile: Callable[[], None]) -> None:
        self.config = unet.config
        self.dtype = unet.dtype
        self._unet, self._tiles, self._after_tile = unet, tiles, after_tile

    def __call__(self, sample: torch.Tensor, timestep: Any, **conditions: Any) -> tuple[torch.Tensor]:
        """What the pipeline calls, with ``return_dict=False``."""

        def predict(part: torch.Tensor) -> torch.Tensor:
            prediction: torch.Tensor = self._unet(part, timestep, **conditions)[0]
            self._after_tile()
            return prediction

        return (blended(sample, self._tiles, predict).to(sample.dtype),)
