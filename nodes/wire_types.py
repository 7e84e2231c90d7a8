"""The pack's own socket types, and the classes of the values that each type of link carries."""

from __future__ import annotations

from collections.abc import Mapping

from comfy_api.latest import io

DiffusersModel = io.Custom("DIFFUSERS_MODEL")
DiffusersPrompt = io.Custom("DIFFUSERS_PROMPT")
DiffusersControlNet = io.Custom("DIFFUSERS_CONTROLNET")
DiffusersControl = io.Custom("DIFFUSERS_CONTROL")
DiffusersIpAdapter = io.Custom("DIFFUSERS_IP_ADAPTER")
DiffusersIpAdapterImage = io.Custom("DIFFUSERS_IP_ADAPTER_IMAGE")


def models() -> tuple[type, ...]:
    """The classes of the values that hold a model's weights."""
    from ..pipelines.adapters.ip_adapter_values import IpAdapter
    from ..pipelines.control.units import ControlNet
    from ..pipelines.model.components import PipelineComponents

    return PipelineComponents, ControlNet, IpAdapter


def carried(io_type: str) -> tuple[type, ...] | None:
    """The classes of the values that a link of type ``io_type`` carries, or None for a type that only the host knows."""
    import torch

    from ..pipelines.adapters.ip_adapter_values import IpAdapter
    from ..pipelines.control.units import ControlNet
    from ..pipelines.model.components import PipelineComponents
    from ..pipelines.model.embeds import ImageEmbeds, PromptEmbeds

    classes: dict[str, tuple[type, ...]] = {
        io.Image.io_type: (torch.Tensor,),
        io.Mask.io_type: (torch.Tensor,),
        io.Latent.io_type: (Mapping,),
        DiffusersModel.io_type: (PipelineComponents,),
        DiffusersPrompt.io_type: (PromptEmbeds, ImageEmbeds),
        DiffusersControlNet.io_type: (ControlNet,),
        # ControlNet units in the order in which they were applied, or one Kandinsky hint
        DiffusersControl.io_type: (tuple,),
        DiffusersIpAdapter.io_type: (IpAdapter,),
        # IP-Adapter units in the order in which they were applied
        DiffusersIpAdapterImage.io_type: (tuple,),
    }
    return classes.get(io_type)
