"""Values between the ControlNet nodes: a loaded ControlNet, and units that add a picture and settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..base.encoded_once import ENCODED, EncodingKey
from ..base.errors import RelayError
from ..base.images import as_unclamped_rgb, extent_of
from ..base.memory_size import SizedValue, module_tensors
from .picture import fitted_picture

if TYPE_CHECKING:
    import torch

    from ..base.images import Extent


@dataclass(frozen=True, eq=False)
class ControlNet(SizedValue):
    """A loaded ControlNet. All units and runs share its module."""

    title: str
    """The repo id or folder name, for messages."""
    module: Any
    """An object of one of diffusers' ControlNet classes, see :attr:`.ModelFamily.controlnet`."""

    def tensors(self) -> list[torch.Tensor | None]:
        return [*module_tensors([self.module])]


@dataclass(frozen=True, eq=False)
class ControlNetUnit(SizedValue):
    """One use of a ControlNet in a run, with the settings of diffusers' ControlNet pipelines.

    Source: https://huggingface.co/docs/diffusers/using-diffusers/controlnet
    """

    controlnet: ControlNet
    image: torch.Tensor
    """The control picture: IMAGE [1 or B, H, W, 3] float32 in 0..1. An inpainting ControlNet reads -1 as a hole."""
    conditioning_scale: float = 1.0
    """Factor for the ControlNet's output."""
    start: float = 0.0
    """Fraction of the steps before which it does nothing."""
    end: float = 1.0
    """Fraction of the steps after which it does nothing."""
    guess_mode: bool = False
    """Only steer the prompt's half of the guidance, with a stronger effect in deeper layers. The same for all units of a run."""

    def tensors(self) -> list[torch.Tensor | None]:
        return [*self.controlnet.tensors(), self.image]


def make_unit(
    controlnet: ControlNet,
    image: torch.Tensor,
    conditioning_scale: float = 1.0,
    start: float = 0.0,
    end: float = 1.0,
    guess_mode: bool = False,
) -> ControlNetUnit:
    """Checks the values and makes a unit.

    Raises:
        RelayError: ``image`` is not a picture, the range is empty or not within 0..1, or the scale is not finite.
    """
    check_range(start, end)
    if not math.isfinite(conditioning_scale):
        raise RelayError(f"conditioning_scale: {conditioning_scale} can't be used. Enter a finite number.")
    return ControlNetUnit(
        controlnet, as_unclamped_rgb(image), float(conditioning_scale), float(start), float(end), guess_mode
    )


def check_range(start: float, end: float) -> None:
    """
    Raises:
        RelayError: ``start`` is not before ``end``, or one of them is outside 0..1.
    """
    if not 0.0 <= start < end <= 1.0:
        raise RelayError(
            f"start, end: a ControlNet can't be applied from {start:g} to {end:g} of the steps. "
            "start must be before end, and both between 0 and 1."
        )


def stack_units(earlier: Sequence[Any], unit: ControlNetUnit) -> tuple[ControlNetUnit, ...]:
    """Appends ``unit`` to the units that were applied before it.

    Raises:
        RelayError: an earlier entry is not a ControlNet unit, or has another ``guess_mode``.
    """
    for other in earlier:
        if not isinstance(other, ControlNetUnit):
            raise RelayError(
                "control: what is connected is not a ControlNet, and can't be combined with one. Connect the output of another "
                "Apply ControlNet (Diffusers), or leave control unconnected."
            )
        if other.guess_mode != unit.guess_mode:
            raise RelayError(
                f"guess_mode: it is {_on(unit.guess_mode)} for {unit.controlnet.title} and {_on(other.guess_mode)} for "
                f"{other.controlnet.title}, which is connected to control. A run uses a single value: use the same setting in both nodes."
            )
    return (*earlier, unit)


def fit_picture(unit: ControlNetUnit, extent: Extent) -> ControlNetUnit:
    """The unit with its picture scaled to ``extent`` by :func:`.fitted_picture`."""
    if extent_of(unit.image) == extent:
        return unit
    key = EncodingKey("control picture", (unit,), (extent,))
    fitted = ENCODED.find(key)
    if fitted is None:
        fitted = fitted_picture(unit.image, extent)
        ENCODED.keep(key, fitted, fitted.nbytes)
    return replace(unit, image=fitted)


def _on(value: bool) -> str:
    return "on" if value else "off"
