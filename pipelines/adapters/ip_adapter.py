"""IP-Adapters in a run: they are part of the shared UNet only while a stage runs, and their layers are diffusers' own.

Source: https://huggingface.co/docs/diffusers/using-diffusers/ip_adapter
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..base.images import Extent, to_pil
from ..model.components import PipelineComponents
from ..model.family import ModelFamily, Task
from ..model.family_lookup import titles_of
from .ip_adapter_kinds import ATTENTION
from .ip_adapter_values import IpAdapterUnit

if TYPE_CHECKING:
    import torch

CROSS_ATTENTION = "attn2.processor"
"""The end of the names of the processors that read the prompt, in diffusers' UNets."""


def fit_ip_adapters(
    units: Sequence[Any], components: PipelineComponents, task: Task, extent: Extent, *, control: bool
) -> tuple[IpAdapterUnit, ...]:
    """Checks the IP-Adapters of one run before anything runs, and scales their masks to its size.

    Args:
        units: the value of the ``ip_adapter`` input.
        components: the model that paints.
        task: the task of the run.
        extent: the painted size.
        control: whether the run has ControlNets.

    Raises:
        RelayError: the model's pipeline for the task takes no IP-Adapter, or one was made for another kind of model, has another
            dtype, or can't be combined with an option of the model.
    """
    if not units:
        return ()
    family, source = components.family, components.source
    if not takes_ip_adapters(family, task, control=control, pag=components.guidance.has_pag):
        able = titles_of(lambda one: takes_ip_adapters(one, task, control=False, pag=False))
        raise RelayError(
            f"ip_adapter: {source} ({family.title}) can't use an IP-Adapter in {task.value}. Leave ip_adapter unconnected, or use a "
            f"model that can: {able}."
        )
    if components.options.attention == "sliced":
        raise RelayError(
            "ip_adapter: diffusers can't combine an IP-Adapter with sliced attention. Set attention to auto in Optimize (Diffusers)."
        )
    for unit in units:
        _check_fits(unit, components)
    return tuple(
        unit if unit.mask is None else replace(unit, mask=_fitted_mask(unit.mask, unit.pictures, extent))
        for unit in units
    )


def takes_ip_adapters(family: ModelFamily, task: Task, *, control: bool, pag: bool) -> bool:
    """Whether diffusers' pipeline for the task loads IP-Adapters into its UNet and takes embedded pictures."""
    from diffusers.loaders import IPAdapterMixin

    classes = {
        (False, False): family.pipeline_classes,
        (True, False): family.control_pipeline_classes,
        (False, True): family.pag_pipeline_classes,
        (True, True): family.pag_control_pipeline_classes,
    }[control, pag]
    if task not in classes:
        return False
    cls: Any = family.pipeline_class(task, control=control, pag=pag)
    return issubclass(cls, IPAdapterMixin) and "ip_adapter_image_embeds" in inspect.signature(cls.__call__).parameters


def _check_fits(unit: IpAdapterUnit, components: PipelineComponents) -> None:
    adapter, family, source = unit.adapter, components.family, components.source
    denoiser = components[family.denoiser]
    width = denoiser.config.cross_attention_dim
    if adapter.kind.text_width != width:
        raise RelayError(
            f"ip_adapter: {adapter.title} was made for another kind of model than {source} ({family.title}): it is for prompt embeddings "
            f"with a width of {adapter.kind.text_width}, and the model's have {width}. {_made_for(width)}"
        )
    own = {key: shape for key, shape in adapter.shapes.items() if key.startswith(ATTENTION)}
    if own != _expected_shapes(denoiser):
        raise RelayError(
            f"ip_adapter: the layers of {adapter.title} are not those of {source} ({family.title}). It was made for another kind of "
            f"model, or the model is a pruned or distilled one. {_made_for(width)}"
        )
    if adapter.dtype != components.dtype:
        raise RelayError(
            f"ip_adapter: {adapter.title} is loaded in {_name(adapter.dtype)} and {source} in {_name(components.dtype)}. "
            "Choose the same dtype in both loaders."
        )


def _made_for(width: int) -> str:
    known = {768: "Stable Diffusion 1.5 (names with sd15)", 2048: "SDXL (names with sdxl)"}
    return f"Load an IP-Adapter for {known.get(width, 'this kind of model')}."


def _expected_shapes(unet: Any) -> dict[str, tuple[int, ...]]:
    """Key -> shape of the attention tensors of an IP-Adapter for ``unet``. Files number its layers 1, 3, 5 and so on."""
    shapes: dict[str, tuple[int, ...]] = {}
    names = [name for name in unet.attn_processors if name.endswith(CROSS_ATTENTION)]
    for index, name in enumerate(names):
        shape = tuple(unet.get_submodule(name.removesuffix(".processor")).to_k.weight.shape)
        shapes |= {f"{ATTENTION}{2 * index + 1}.to_{part}_ip.weight": shape for part in "kv"}
    return shapes


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _fitted_mask(masks: torch.Tensor, pictures: int, extent: Extent) -> torch.Tensor:
    """[1 or pictures, H, W] -> [1, pictures, height, width] of 0 and 1, as diffusers' processor makes it from PIL masks."""
    from diffusers.image_processor import IPAdapterMaskProcessor

    grey = [to_pil(one[..., None].expand(-1, -1, 3)).convert("L") for one in masks]
    fitted = IPAdapterMaskProcessor().preprocess(grey, height=extent.height, width=extent.width)
    return fitted[:, 0].expand(pictures, -1, -1)[None].contiguous()


def ip_adapter_modules(units: Sequence[IpAdapterUnit]) -> list[torch.nn.Module]:
    """The modules with the weights of a run's IP-Adapters, each one once. They are on the device together with the UNet."""
    return list({id(unit.adapter.weights): unit.adapter.weights for unit in units}.values())


def ip_adapter_arguments(units: Sequence[IpAdapterUnit], guided: bool, device: torch.device) -> dict[str, Any]:
    """The additional arguments of the pipelines' ``__call__``; empty for a run without IP-Adapters.

    ``guided``: whether the pipeline predicts with and without the prompt in one batch.
    """
    import torch

    if not units:
        return {}
    arguments: dict[str, Any] = {
        "ip_adapter_image_embeds": [
            torch.stack([unit.negative, unit.positive] if guided else [unit.positive]).to(device) for unit in units
        ]
    }
    if any(unit.mask is not None for unit in units):
        masks = [None if unit.mask is None else unit.mask.to(device) for unit in units]
        arguments["cross_attention_kwargs"] = {"ip_adapter_masks": masks}
    return arguments


def scales_at(units: Sequence[IpAdapterUnit], step: int, total: int) -> list[float]:
    """The weight of each IP-Adapter in a step. A step counts if it lies completely between start and end, as for ControlNets."""
    return [unit.weight if step / total >= unit.start and (step + 1) / total <= unit.end else 0.0 for unit in units]


@contextmanager
def active_ip_adapters(components: PipelineComponents, units: Sequence[IpAdapterUnit]) -> Iterator[None]:
    """Inside this context, the IP-Adapters are part of the model's UNet. Afterwards the UNet is as before, even after an error.

    The weights must be on the UNet's device; their memory is shared, not copied.
    """
    import torch

    if not units:
        yield
        return
    unet: Any = components[components.family.denoiser]
    processors = dict(unet.attn_processors)
    projection, kind = unet.encoder_hid_proj, unet.config.encoder_hid_dim_type
    try:
        with torch.inference_mode(False):  # otherwise the layers would share memory with inference tensors
            unet._load_ip_adapter_weights([unit.adapter.weights.state_dict_of_script for unit in units])
        yield
    finally:
        # before the processors, because some projections have processors of their own
        del unet.encoder_hid_proj
        unet.encoder_hid_proj = projection
        unet.config.encoder_hid_dim_type = kind
        unet.set_attn_processor(processors)
