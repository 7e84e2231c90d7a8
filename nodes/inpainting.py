"""The node that repaints a part of a picture."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import sampling_inputs
from .comfy_host import CATEGORY, runtime_for


class RelayInpaint(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayInpaint",
            display_name="Inpaint (Diffusers)",
            category=f"{CATEGORY}/sampling",
            description=(
                "Repaints what a mask marks with diffusers' own inpainting pipelines, and keeps the rest of the latent as it is. Runs models "
                "for inpainting and plain ones."
            ),
            inputs=[
                sampling_inputs.model(),
                sampling_inputs.prompt(),
                io.Mask.Input(
                    "mask",
                    tooltip="1 = repaint, as in ComfyUI; from 0.5 on a value counts as 1. Another size is stretched to the picture's. One for all pictures of a batch, or one for each.",
                ),
                sampling_inputs.strength(
                    1.0,
                    "How much to change what is masked: 1 forgets it, below that it is the start. Of the steps, steps x strength are run. Kandinsky's inpainting decoder knows 1 only.",
                ),
                sampling_inputs.steps(),
                sampling_inputs.guidance_scale(),
                sampling_inputs.seed(),
                *sampling_inputs.image_or_latent(
                    "The picture to repaint in, of any size: an odd one is brought to the next multiple of 8.",
                    "The latent to repaint in. Where it has a noise_mask of its own, only what both masks mark is repainted.",
                ),
                sampling_inputs.control(),
            ],
            outputs=[sampling_inputs.latent_output()],
            hidden=[io.Hidden.unique_id],
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
    ) -> io.NodeOutput:
        from ..pipelines.runs.inpainting import InpaintSettings, inpaint

        settings = InpaintSettings(strength, steps, guidance_scale, seed)
        read = sampling_inputs.read(latent)
        runtime = runtime_for(cls, model)
        latents = inpaint(model, prompt, mask, settings, runtime, image=image, latent=read, control=control)
        return io.NodeOutput(latents.to_host())
