"""Kandinsky's hint: a depth map on a DIFFUSERS_CONTROL wire, which otherwise carries ControlNet units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..base.encoded_once import ENCODED, EncodingKey
from ..base.errors import RelayError
from ..base.images import Extent, as_rgb
from ..base.memory_size import SizedValue
from ..model.components import PipelineComponents
from .picture import fitted_picture

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class KandinskyHint(SizedValue):
    """The depth map for Kandinsky's depth decoder. On the wire, it is the only entry of a tuple."""

    depth: torch.Tensor
    """[1 or B, 3, H, W] float32 in 0..1; near is bright."""

    def tensors(self) -> list[torch.Tensor | None]:
        return [self.depth]


@dataclass(frozen=True, eq=False)
class FittedHint:
    """A hint in the size of a run, with one depth map per picture."""

    depth: torch.Tensor
    """[B, 3, height, width] float32 in 0..1."""


def make_hint(image: torch.Tensor) -> KandinskyHint:
    """Makes a hint of the same size from a depth map: IMAGE, grey, RGB or RGBA.

    Raises:
        RelayError: ``image`` is not a picture, is an empty batch, or has NaN or infinite values.
    """
    return KandinskyHint(as_rgb(image).movedim(-1, 1))


def take_hint(
    control: Sequence[Any], components: PipelineComponents, extent: Extent, batch: int
) -> tuple[tuple[FittedHint, ...], tuple[Any, ...]]:
    """Splits the value of a ``control`` input into the hint, scaled to the run, and all other entries.

    Args:
        control: the wire's value; empty if nothing is connected.
        components: the model that paints.
        extent: the painted size, in pixels.
        batch: the number of painted pictures.

    Returns:
        A tuple of the hint, empty if the model does not take one; and the other entries in their order.

    Raises:
        RelayError: the model does not take a hint, or needs one that is missing; Kandinsky gets another entry; or the
            hint has neither 1 nor ``batch`` depth maps.
    """
    family, source = components.family, components.source
    hints = [entry for entry in control if isinstance(entry, KandinskyHint)]
    others = tuple(entry for entry in control if not isinstance(entry, KandinskyHint))
    if others and family.takes_image_embeds:
        able = "Connect Kandinsky Hint" if family.takes_hint else "Leave control unconnected"
        raise RelayError(
            f"control: {source} ({family.title}) takes no ControlNets, which are for Stable Diffusion and SDXL. {able}."
        )
    if hints and not family.takes_hint:
        raise RelayError(
            f"control: {source} ({family.title}) takes no Kandinsky hint. Leave control unconnected, or load "
            "Kandinsky's depth ControlNet decoder (kandinsky-community/kandinsky-2-2-controlnet-depth)."
        )
    if not family.takes_hint:
        return (), others
    if not hints:
        raise RelayError(
            f"control: {source} ({family.title}) needs a depth map, and none is connected. Connect Kandinsky Hint, or "
            "load the plain decoder (kandinsky-community/kandinsky-2-2-decoder)."
        )
    (hint,) = hints
    return (FittedHint(_fitted(hint, extent, batch)),), others


def _fitted(hint: KandinskyHint, extent: Extent, batch: int) -> torch.Tensor:
    """[batch, 3, height, width], scaled by :func:`.fitted_picture` if the size differs."""
    depth = hint.depth
    if depth.shape[0] not in (1, batch):
        raise RelayError(
            f"control: the hint has {depth.shape[0]} depth maps, and {batch} "
            f"{'picture is' if batch == 1 else 'pictures are'} painted. Connect one for all, or one for each."
        )
    if tuple(depth.shape[-2:]) != (extent.height, extent.width):
        key = EncodingKey("control picture", (hint,), (extent,))
        depth = ENCODED.find(key)
        if depth is None:
            depth = fitted_picture(hint.depth.movedim(1, -1), extent).movedim(-1, 1)
            ENCODED.keep(key, depth, depth.nbytes)
    return depth.expand(batch, -1, -1, -1)
