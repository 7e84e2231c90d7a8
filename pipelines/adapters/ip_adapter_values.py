"""Values between the IP-Adapter nodes: a loaded IP-Adapter with its image encoder, and its uses with pictures and settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..base.memory_size import SizedValue, module_tensors
from .ip_adapter_kinds import ATTENTION, PROJECTION, AdapterKind

if TYPE_CHECKING:
    import torch


@cache
def _weights_class() -> type:
    import torch

    class IpAdapterWeights(torch.nn.Module):
        """The tensors of an IP-Adapter file, as one module for the memory manager. diffusers makes layers from them for each stage."""

        def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
            super().__init__()
            for key, tensor in tensors.items():
                self.register_parameter(key.replace(".", "/"), torch.nn.Parameter(tensor, requires_grad=False))

        @property
        def state_dict_of_script(self) -> dict[str, dict[str, torch.Tensor]]:
            """What diffusers' loader reads, with the tensors on their current device."""
            named = {name.replace("/", "."): tensor.data for name, tensor in self.named_parameters()}
            return {
                part.removesuffix("."): {k.removeprefix(part): v for k, v in named.items() if k.startswith(part)}
                for part in (PROJECTION, ATTENTION)
            }

    return IpAdapterWeights


def make_weights(tensors: Mapping[str, torch.Tensor]) -> Any:
    """The module with a file's tensors."""
    return _weights_class()(tensors)


@dataclass(frozen=True, eq=False)
class IpAdapter(SizedValue):
    """A loaded IP-Adapter. All uses share its modules."""

    title: str
    """The file's name, for messages."""
    kind: AdapterKind
    weights: Any
    """The module from :func:`make_weights`."""
    shapes: Mapping[str, tuple[int, ...]]
    """Key -> shape of each tensor in the file."""
    encoder: Any
    """A CLIPVisionModelWithProjection."""
    dtype: torch.dtype
    """Of the weights and of the encoder."""

    def tensors(self) -> list[torch.Tensor | None]:
        return [*module_tensors([self.weights, self.encoder])]


@dataclass(frozen=True, eq=False)
class IpAdapterUnit(SizedValue):
    """One use of an IP-Adapter in a run, with embedded pictures and the settings of diffusers' ``set_ip_adapter_scale``."""

    adapter: IpAdapter
    positive: torch.Tensor
    """The pictures' embeddings, [pictures, width], or [pictures, tokens, width] if the adapter reads layers."""
    negative: torch.Tensor
    """What stands for no picture, in the same shape."""
    weight: float = 1.0
    start: float = 0.0
    """Fraction of the steps before which it does nothing."""
    end: float = 1.0
    """Fraction of the steps after which it does nothing."""
    mask: torch.Tensor | None = None
    """MASK [1 or pictures, H, W]; in a run, [1, pictures, height, width] from :func:`.ip_adapter.fit_ip_adapters`."""

    @property
    def pictures(self) -> int:
        return int(self.positive.shape[0])

    def tensors(self) -> list[torch.Tensor | None]:
        return [*self.adapter.tensors(), self.positive, self.negative, self.mask]


def check_settings(weight: float, start: float, end: float) -> None:
    """
    Raises:
        RelayError: the weight is not finite, or ``start`` is not before ``end``, or one of them is outside 0..1.
    """
    if not math.isfinite(weight):
        raise RelayError(f"weight: {weight} can't be used. Enter a finite number.")
    check_range(start, end)


def check_range(start: float, end: float) -> None:
    """
    Raises:
        RelayError: ``start`` is not before ``end``, or one of them is outside 0..1.
    """
    if not 0.0 <= start < end <= 1.0:
        raise RelayError(
            f"start, end: an IP-Adapter can't be applied from {start:g} to {end:g} of the steps. "
            "start must be before end, and both between 0 and 1."
        )


def checked_mask(mask: torch.Tensor | None, pictures: int) -> torch.Tensor | None:
    """The mask as [1 or pictures, H, W] float32.

    Raises:
        RelayError: the shape is not a mask's, a value is NaN or infinite, or there is neither one mask nor one for each picture.
    """
    if mask is None:
        return None
    masks = mask.float()
    masks = masks[None] if masks.ndim == 2 else masks
    if masks.ndim != 3 or min(masks.shape) == 0 or not masks.isfinite().all():
        raise RelayError(f"mask: expected [batch, height, width] with values 0..1, got shape {list(mask.shape)}.")
    if masks.shape[0] not in (1, pictures):
        raise RelayError(
            f"mask: there are {masks.shape[0]} masks for {pictures} {'picture' if pictures == 1 else 'pictures'}. "
            "Connect one mask for all pictures, or one for each."
        )
    return masks.clamp(0, 1)


def stack_units(earlier: Sequence[Any], unit: IpAdapterUnit) -> tuple[IpAdapterUnit, ...]:
    """Appends ``unit`` to those before it."""
    return (*earlier, unit)
