"""The nodes that can be written, with what each of them is in a script."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ..inputs import Inputs
from ..script import Script
from . import control, latents, loaders, masks, pictures, prompts, sampling, upscaling

Write = Callable[[Inputs, Script], tuple[Any, ...]]
"""Writes a node's lines and returns what its outputs are."""


@dataclass(frozen=True)
class Writer:
    display_name: str
    write: Write


def primitive(inputs: Inputs, script: Script) -> tuple[Any, ...]:
    """A number or text of the graph stands where it is used."""
    inputs.ignore("control_after_generate")
    value = inputs.node.inputs.get("value")
    inputs.ignore("value")
    if type(value) not in (int, float, str, bool):
        raise inputs.wrong("value", value, "a number, text, true or false")
    script.line("# its value stands where it is used")
    return (value,)


OURS: Mapping[str, Writer] = {
    "RelayLoadModel": Writer("Load Diffusers Model", loaders.load_model),
    "RelayLoadModelFromHub": Writer("Load Diffusers Model from Hub", loaders.load_model_from_hub),
    "RelayLoadControlNet": Writer("Load ControlNet (Diffusers)", loaders.load_controlnet),
    "RelayLoadControlNetFromHub": Writer("Load ControlNet from Hub (Diffusers)", loaders.load_controlnet_from_hub),
    "RelayLoadLora": Writer("Load LoRA (Diffusers)", loaders.load_lora),
    "RelayLoadTextualInversion": Writer("Load Textual Inversion", loaders.load_textual_inversion),
    "RelaySetScheduler": Writer("Set Scheduler", loaders.set_scheduler),
    "RelaySetGuidance": Writer("Set Guidance", loaders.set_guidance),
    "RelaySetVae": Writer("Set VAE", loaders.set_vae),
    "RelayOptimize": Writer("Optimize", loaders.optimize),
    "RelayEncodePrompt": Writer("Encode Prompt", prompts.encode_prompt),
    "RelayKandinskyPrior": Writer("Kandinsky Prior", prompts.kandinsky_prior),
    "RelayImagePrompt": Writer("Image Prompt", prompts.image_prompt),
    "RelayMixPrompts": Writer("Mix Prompts", prompts.mix_prompts),
    "RelaySdxlSize": Writer("SDXL Size", prompts.sdxl_size),
    "RelayTextToImage": Writer("Text to Image (Diffusers)", sampling.text_to_image),
    "RelayImageToImage": Writer("Image to Image (Diffusers)", sampling.image_to_image),
    "RelayInpaint": Writer("Inpaint (Diffusers)", sampling.inpaint),
    "RelayApplyControlNet": Writer("Apply ControlNet (Diffusers)", control.apply_controlnet),
    "RelayKandinskyHint": Writer("Kandinsky Hint", control.kandinsky_hint),
    "RelayLatentUpscale": Writer("Latent Upscale x2 (Diffusers)", upscaling.latent_upscale),
    "RelaySuperResolution": Writer("Super Resolution x4 (Diffusers)", upscaling.super_resolution),
    "RelayDecode": Writer("Decode Latent (Diffusers)", latents.decode),
    "RelayEncode": Writer("Encode Image (Diffusers)", latents.encode),
    "RelayConvertLatent": Writer("Convert Latent", latents.convert),
    "RelayImageGrid": Writer("Image Grid", pictures.image_grid),
    "RelayLoadImageFromUrl": Writer("Load Image from URL", pictures.load_image_from_url),
}
OF_THE_HOST: Mapping[str, Writer] = {
    "LoadImage": Writer("Load Image", pictures.load_image),
    "LoadImageMask": Writer("Load Image (as Mask)", pictures.load_image_mask),
    "SaveImage": Writer("Save Image", pictures.save_image),
    "PreviewImage": Writer("Preview Image", pictures.preview_image),
    "ImageScale": Writer("Upscale Image", pictures.image_scale),
    "ImageScaleBy": Writer("Upscale Image By", pictures.image_scale_by),
    "ImageBatch": Writer("Batch Images", pictures.image_batch),
    "ImageCrop": Writer("Image Crop", pictures.image_crop),
    "ImageCompositeMasked": Writer("ImageCompositeMasked", pictures.image_composite),
    "ImageInvert": Writer("Invert Image", pictures.invert_image),
    "EmptyImage": Writer("EmptyImage", pictures.empty_image),
    "SolidMask": Writer("SolidMask", masks.solid_mask),
    "InvertMask": Writer("InvertMask", masks.invert_mask),
    "MaskComposite": Writer("MaskComposite", masks.mask_composite),
    "GrowMask": Writer("GrowMask", masks.grow_mask),
    "MaskToImage": Writer("Convert Mask to Image", masks.mask_to_image),
    "ImageToMask": Writer("Convert Image to Mask", masks.image_to_mask),
    "EmptyLatentImage": Writer("Empty Latent Image", latents.empty_latent),
    "LatentUpscale": Writer("Upscale Latent", latents.latent_upscale),
    "LatentUpscaleBy": Writer("Upscale Latent By", latents.latent_upscale_by),
    "SetLatentNoiseMask": Writer("Set Latent Noise Mask", latents.set_noise_mask),
    **{
        f"Primitive{kind}": Writer(kind, primitive) for kind in ("String", "StringMultiline", "Int", "Float", "Boolean")
    },
}
WRITERS: Mapping[str, Writer] = MappingProxyType({**OURS, **OF_THE_HOST})
