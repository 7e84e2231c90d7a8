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
from ..model.component_classes import CONTROLNET_UNION
from .picture import fitted_picture
from .unions import NO_MODE, mode_number

if TYPE_CHECKING:
    import torch

    from ..base.images import Extent


@dataclass(frozen=True, eq=False)
class ControlNet(SizedValue):
    """A loaded ControlNet. All units and runs share its module."""

    title: str
    """The repo id or folder name, for messages."""
    module: Any
    """An object of one of diffusers' ControlNet classes, see :attr:`.ModelFamily.controlnet` and :attr:`.ModelFamily.controlnet_union`."""

    @property
    def control_types(self) -> int:
        """The number of modes of a ControlNet Union; 0 for an ordinary ControlNet."""
        is_union = type(self.module).__name__ in CONTROLNET_UNION.names
        return int(self.module.config.num_control_type) if is_union else 0

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
    mode: int | None = None
    """For a ControlNet Union, the kind of the picture: diffusers' ``control_mode``. None for an ordinary ControlNet."""

    def tensors(self) -> list[torch.Tensor | None]:
        return [*self.controlnet.tensors(), self.image]


def make_unit(
    controlnet: ControlNet,
    image: torch.Tensor,
    conditioning_scale: float = 1.0,
    start: float = 0.0,
    end: float = 1.0,
    guess_mode: bool = False,
    mode: str = NO_MODE,
) -> ControlNetUnit:
    """Checks the values and makes a unit. ``mode``: for a ControlNet Union, one of :data:`.unions.MODES`.

    Raises:
        RelayError: ``image`` is not a picture, the range is empty or not within 0..1, the scale is not finite, or the mode does
            not belong to the ControlNet.
    """
    number = mode_number(controlnet.title, mode, controlnet.control_types)
    check_range(start, end)
    if not math.isfinite(conditioning_scale):
        raise RelayError(f"conditioning_scale: {conditioning_scale} can't be used. Enter a finite number.")
    return ControlNetUnit(
        controlnet, as_unclamped_rgb(image), float(conditioning_scale), float(start), float(end), guess_mode, number
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
        RelayError: an earlier entry is not a ControlNet unit, has another ``guess_mode``, or can't run together with ``unit``.
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
    units = (*earlier, unit)
    _check_unions(units)
    return units


def _check_unions(units: Sequence[ControlNetUnit]) -> None:
    """Refuses what diffusers' pipelines for ControlNet Unions can't combine."""
    ordinary = [unit for unit in units if unit.mode is None]
    unions = [unit for unit in units if unit.mode is not None]
    if ordinary and unions:
        raise RelayError(
            f"control: diffusers can't combine a ControlNet Union ({unions[0].controlnet.title}) with an ordinary ControlNet "
            f"({ordinary[0].controlnet.title}). Apply the ControlNet Union once for each picture, or use only ordinary ControlNets."
        )
    names = {id(unit.controlnet.module): unit.controlnet.title for unit in unions}
    if 1 < len(names) < len(unions):
        raise RelayError(
            f"control: with several ControlNet Unions ({', '.join(names.values())}), diffusers takes one picture for each, not {len(unions)} "
            "pictures. Use one Union for all pictures, or each of them once."
        )


def has_unions(units: Sequence[ControlNetUnit]) -> bool:
    """Whether the ControlNets of a run are ControlNet Unions."""
    return any(unit.mode is not None for unit in units)


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
