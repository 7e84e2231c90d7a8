"""Kandinsky's hint: a depth map that goes over a DIFFUSERS_CONTROL wire, beside ControlNet units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..base.encoded_once import ENCODED, Wanted
from ..base.errors import RelayError
from ..base.images import Extent, as_rgb
from ..model.components import PipelineComponents
from .picture import fitted_picture

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class KandinskyHint:
    """What Kandinsky's depth decoder keeps to. On the wire it is the one entry of a tuple, where ControlNets have their units."""

    depth: torch.Tensor
    """[1 or B, 3, H, W] float32 in 0..1, near parts bright."""


@dataclass(frozen=True, eq=False)
class FittedHint:
    """A hint in the size of a run, one for each picture."""

    depth: torch.Tensor
    """[B, 3, height, width] float32 in 0..1."""


def make_hint(image: torch.Tensor) -> KandinskyHint:
    """A depth map as an IMAGE, grey, RGB or RGBA -> a hint of the same size.

    Raises:
        RelayError: no picture, an empty batch, values that are no numbers.
    """
    return KandinskyHint(as_rgb(image).movedim(-1, 1))


def take_hint(
    control: Sequence[Any], components: PipelineComponents, extent: Extent, batch: int
) -> tuple[tuple[FittedHint, ...], tuple[Any, ...]]:
    """What a ``control`` input holds, taken apart: the hint, fitted to the run, and all that is no hint.

    Args:
        control: the wire's value; empty where nothing is connected.
        components: the model that paints.
        extent: the size that it paints, in pixels.
        batch: how many pictures it paints.

    Returns:
        The hint if the model needs one, else nothing; and the other entries in their order.

    Raises:
        RelayError: a hint for a model that takes none, none for one that needs it, anything else for Kandinsky, a batch
            of depth maps that is neither 1 nor ``batch``.
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
    """Another size is scaled by :func:`.fitted_picture`."""
    depth = hint.depth
    if depth.shape[0] not in (1, batch):
        raise RelayError(
            f"control: the hint has {depth.shape[0]} depth maps, and {batch} "
            f"{'picture is' if batch == 1 else 'pictures are'} painted. Connect one for all, or one for each."
        )
    if tuple(depth.shape[-2:]) != (extent.height, extent.width):
        wanted = Wanted("control picture", (hint,), (extent,))
        depth = ENCODED.find(wanted)
        if depth is None:
            depth = fitted_picture(hint.depth.movedim(1, -1), extent).movedim(-1, 1)
            ENCODED.keep(wanted, depth, depth.nbytes)
    return depth.expand(batch, -1, -1, -1)
