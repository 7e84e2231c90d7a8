"""Diffusers Relay: Hugging Face diffusers on ComfyUI's canvas. See README.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension

__version__ = "0.1.0"
WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> ComfyExtension:
    """The entry point that ComfyUI calls once. The extension lists all nodes of the pack."""
    from comfy_api.latest import ComfyExtension, io

    from .nodes import (
        adapters,
        control,
        exported_script,
        guidance,
        images,
        inpainting,
        ip_adapter,
        kandinsky,
        latents,
        loaders,
        model_options,
        optimize,
        prompts,
        sampling,
        sdxl_size,
        upscaling,
    )
    from .nodes.checked import checked

    class DiffusersRelay(ComfyExtension):
        async def get_node_list(self) -> list[type[io.ComfyNode]]:
            nodes = [
                loaders.RelayLoadModel,
                loaders.RelayLoadModelFromHub,
                control.RelayLoadControlNet,
                control.RelayLoadControlNetFromHub,
                adapters.RelayLoadLora,
                adapters.RelayLoadTextualInversion,
                ip_adapter.RelayLoadIpAdapter,
                ip_adapter.RelayLoadIpAdapterFromHub,
                model_options.RelaySetScheduler,
                guidance.RelaySetGuidance,
                model_options.RelaySetVae,
                optimize.RelayOptimize,
                prompts.RelayEncodePrompt,
                prompts.RelayKandinskyPrior,
                prompts.RelayImagePrompt,
                prompts.RelayMixPrompts,
                sdxl_size.RelaySdxlSize,
                sampling.RelayTextToImage,
                sampling.RelayImageToImage,
                inpainting.RelayInpaint,
                control.RelayApplyControlNet,
                ip_adapter.RelayIpAdapterImage,
                kandinsky.RelayKandinskyHint,
                upscaling.RelayLatentUpscale,
                upscaling.RelaySuperResolution,
                latents.RelayDecode,
                latents.RelayEncode,
                latents.RelayConvertLatent,
                images.RelayImageGrid,
                images.RelayLoadImageFromUrl,
            ]
            return [checked(node) for node in nodes]

    exported_script.add_route()  # not in on_load, which ComfyUI 0.3.75 does not call
    return DiffusersRelay()
