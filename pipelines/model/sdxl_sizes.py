"""The sizes that SDXL reads beside a prompt: its micro-conditioning, section 2.2 of https://huggingface.co/papers/2307.01952"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..base.images import Extent


@dataclass(frozen=True)
class PictureSizes:
    """The sizes for one prompt. None: as the pipeline decides."""

    original: Extent | None = None
    crop_left: int = 0
    """Pixels."""
    crop_top: int = 0
    target: Extent | None = None

    @property
    def crop(self) -> tuple[int, int]:
        """(top, left), as diffusers takes it."""
        return self.crop_top, self.crop_left


@dataclass(frozen=True)
class SdxlSizes:
    """The sizes for a prompt and its negative prompt."""

    prompt: PictureSizes
    negative: PictureSizes = PictureSizes()
    """If nothing is set, the pipeline decides."""

    def arguments(self, painted: Extent) -> dict[str, Any]:
        """For the ``__call__`` of diffusers' SDXL pipelines, whose sizes are (height, width).

        The text-to-image pipelines ignore the negative sizes unless both are given, so the unset one is filled in here, as the
        image-to-image pipelines do it themselves.

        Args:
            painted: the size of the run's pictures.
        """
        original, target = self.prompt.original or painted, self.prompt.target or painted
        given = {
            "original_size": _height_and_width(original),
            "crops_coords_top_left": self.prompt.crop,
            "target_size": _height_and_width(target),
        }
        if self.negative == PictureSizes():
            return given
        return given | {
            "negative_original_size": _height_and_width(self.negative.original or original),
            "negative_crops_coords_top_left": self.negative.crop,
            "negative_target_size": _height_and_width(self.negative.target or target),
        }


def size_or_none(width: int, height: int) -> Extent | None:
    """The size that a node's inputs give; None if both are 0, which stands for an unset size."""
    return Extent(width, height) if width or height else None


def _height_and_width(extent: Extent) -> tuple[int, int]:
    return extent.height, extent.width
