"""The node that repaints part of a picture."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import sampling_inputs
from .comfy_host import CATEGORY, found_by, runtime_for


class RelayInpaint(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayInpaint",
            display_name="Inpaint (Diffusers)",
            category=f"{CATEGORY}/sampling",
            description=(
                "Repaints the masked area with diffusers' own inpainting pipelines, and keeps the rest of the latent unchanged. Works with inpainting models and with plain ones. "
                "Use this for models of Diffusers Relay, and ComfyUI's VAE Encode (for Inpainting) with KSampler for models of ComfyUI's own loaders."
            ),
            inputs=[
                sampling_inputs.model(),
                sampling_inputs.prompt(),
                io.Mask.Input(
                    "mask",
                    tooltip="1 = repaint, as in ComfyUI; values from 0.5 up count as 1, unless soft_mask is on. A mask of another size is stretched to the picture's size. One mask for the whole batch, or one for each picture.",
                ),
                sampling_inputs.strength(
                    1.0,
                    "How much to change the masked area. 1 ignores what is there; lower values keep more of it. Only steps x strength steps run. Kandinsky's inpainting decoder needs 1.",
                ),
                sampling_inputs.steps(),
                sampling_inputs.guidance_scale(),
                sampling_inputs.seed(),
                *sampling_inputs.image_or_latent(
                    "The picture to inpaint. Any size; it is scaled down to the next multiple of 8. SD3 and Flux.1 only take multiples of 16, and Kandinsky multiples of 64.",
                    "The latent to inpaint. If it has a noise_mask, only the area that both masks cover is repainted.",
                ),
                sampling_inputs.control(),
                sampling_inputs.eta(),
                sampling_inputs.ip_adapter(),
                io.Int.Input(
                    "padding_mask_crop",
                    default=0,
                    min=0,
                    max=sampling_inputs.MAX_SIZE,
                    optional=True,
                    tooltip="Above 0: only the masked area with that many pixels around it is painted, at the model's own size, and put back into the picture. For Stable Diffusion and SDXL, with image. 0: the whole picture.",
                ),
                io.Boolean.Input(
                    "soft_mask",
                    default=False,
                    optional=True,
                    tooltip="Use the mask's grey values: the lower the value, the later in the run repainting begins there (differential diffusion). Off: the mask has hard edges.",
                ),
                sampling_inputs.true_cfg_scale(),
            ],
            outputs=[sampling_inputs.latent_output()],
            hidden=[io.Hidden.unique_id],
            **found_by(
                "inpainting, outpaint, mask, fill, repaint, remove object, sampler, only masked, crop and stitch, detailer, differential diffusion, soft inpainting"
            ),
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        prompt: Any,
        mask: Any,
        strength: float,
        steps: int,
        guidance_scale: float,
        seed: int,
        image: Any = None,
        latent: Any = None,
        control: Any = (),
        eta: float = 0.0,
        ip_adapter: Any = (),
        padding_mask_crop: int = 0,
        soft_mask: bool = False,
        true_cfg_scale: float = 1.0,
    ) -> io.NodeOutput:
        from ..pipelines.runs.inpainting import InpaintSettings, inpaint

        settings = InpaintSettings(
            strength, steps, guidance_scale, seed, eta, padding_mask_crop, soft_mask, true_cfg_scale
        )
        read = sampling_inputs.read(latent)
        runtime = runtime_for(cls, model)
        latents = inpaint(
            model, prompt, mask, settings, runtime, image=image, latent=read, control=control, ip_adapter=ip_adapter
        )
        return io.NodeOutput(latents.to_host())
