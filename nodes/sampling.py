"""Nodes that denoise."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import comfy_host
from .wire_types import DiffusersControl, DiffusersModel, DiffusersPrompt

CATEGORY = f"{comfy_host.CATEGORY}/sampling"
MAX_SIZE = 16384
MAX_BATCH = 4096


def _model() -> Any:
    return DiffusersModel.Input("model", tooltip="The model that paints.")


def _prompt() -> Any:
    return DiffusersPrompt.Input(
        "prompt",
        tooltip="From Encode Prompt with this model; for Kandinsky from Kandinsky Prior, Image Prompt or Mix Prompts.",
    )


def _steps() -> Any:
    return io.Int.Input(
        "steps",
        default=50,
        min=1,
        max=1000,
        tooltip="Denoising steps of a full run. The models' defaults: 50 for Stable Diffusion and SDXL, 100 for the Kandinsky decoder.",
    )


def _guidance_scale() -> Any:
    return io.Float.Input(
        "guidance_scale",
        default=7.5,
        min=0.0,
        max=100.0,
        step=0.1,
        tooltip="How closely to follow the prompt; up to 1 switches guidance and the negative prompt off. The models' defaults: 7.5 for Stable Diffusion, 5 for SDXL, 4 for Kandinsky.",
    )


def _seed() -> Any:
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=2**64 - 1,
        control_after_generate=True,
        tooltip="The noise. Image i of a batch uses seed + i, so each can be made again alone.",
    )


def _denoising_end() -> Any:
    return io.Float.Input(
        "denoising_end",
        default=1.0,
        min=0.0,
        max=1.0,
        step=0.01,
        optional=True,
        tooltip="SDXL only. Below 1 the run stops at that fraction and leaves its noise in the latent, for another SDXL model to go on with.",
    )


def _control() -> Any:
    return DiffusersControl.Input(
        "control",
        optional=True,
        tooltip="ControlNet units, from Apply ControlNet; for Kandinsky's depth ControlNet decoder a depth map, from Kandinsky Hint.",
    )


def _latent_output() -> Any:
    return io.Latent.Output(
        display_name="latent",
        tooltip="A latent in ComfyUI's scale, for the next model, Decode Latent, or ComfyUI's own nodes.",
    )


def _check_size(width: int, height: int) -> None:
    from ..pipelines.images import Extent, check_extent

    check_extent(Extent(width, height), 8, "A diffusers model", greatest=MAX_SIZE)


class RelayTextToImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayTextToImage",
            display_name="Text to Image (Diffusers)",
            category=CATEGORY,
            description="Paints from a prompt with diffusers' own text-to-image pipeline.",
            inputs=[
                _model(),
                _prompt(),
                io.Int.Input(
                    "width",
                    default=512,
                    min=8,
                    max=MAX_SIZE,
                    step=8,
                    tooltip="Pixels, a multiple of 8; for Kandinsky of 64. SDXL is made for 1024.",
                ),
                io.Int.Input(
                    "height",
                    default=512,
                    min=8,
                    max=MAX_SIZE,
                    step=8,
                    tooltip="Pixels, a multiple of 8; for Kandinsky of 64. SDXL is made for 1024.",
                ),
                io.Int.Input("batch_size", default=1, min=1, max=MAX_BATCH, tooltip="How many pictures."),
                _steps(),
                _guidance_scale(),
                _seed(),
                _denoising_end(),
                _control(),
            ],
            outputs=[_latent_output()],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, width: int | None = None, height: int | None = None) -> bool | str:
        """In the place of the host's own check of these two, which knows a least and a greatest value only."""
        return comfy_host.refusal(_check_size, width, height)

    @classmethod
    def execute(
        cls,
        model: Any,
        prompt: Any,
        width: int,
        height: int,
        batch_size: int,
        steps: int,
        guidance_scale: float,
        seed: int,
        denoising_end: float = 1.0,
        control: Any = (),
    ) -> io.NodeOutput:
        from ..pipelines.run import TextToImageSettings, text_to_image

        settings = TextToImageSettings(width, height, batch_size, steps, guidance_scale, seed, denoising_end)
        runtime = comfy_host.runtime_for(cls, model)
        return io.NodeOutput(text_to_image(model, prompt, settings, runtime, control=control).to_host())


class RelayImageToImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayImageToImage",
            display_name="Image to Image (Diffusers)",
            category=CATEGORY,
            description=(
                "Repaints a picture or a latent with diffusers' own image-to-image pipeline. A latent of the same space goes straight in; "
                "one of another space is converted once, and the node says so."
            ),
            inputs=[
                _model(),
                _prompt(),
                io.Float.Input(
                    "strength",
                    default=0.8,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much to change: 1 forgets the picture. Of the steps, steps x strength are run. Not used where denoising_start is in force.",
                ),
                _steps(),
                _guidance_scale(),
                _seed(),
                io.Float.Input(
                    "denoising_start",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="SDXL only. Where to go on in a latent that still holds noise; strength is then not used. 0: follow the latent, which knows where it was left.",
                ),
                _denoising_end(),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The picture to repaint, of any size: an odd one is brought to the next multiple of 8. Connect either image or latent.",
                ),
                io.Latent.Input(
                    "latent",
                    optional=True,
                    tooltip="The latent to repaint; its noise_mask and batch index are kept to. Connect either image or latent.",
                ),
                _control(),
                io.Float.Input(
                    "aesthetic_score",
                    default=6.0,
                    min=0.0,
                    max=10.0,
                    step=0.1,
                    optional=True,
                    tooltip="SDXL refiner only: the beauty that the prompt asks for. The model's default is 6.",
                ),
                io.Float.Input(
                    "negative_aesthetic_score",
                    default=2.5,
                    min=0.0,
                    max=10.0,
                    step=0.1,
                    optional=True,
                    tooltip="SDXL refiner only: the beauty of what is to be kept out. The model's default is 2.5.",
                ),
            ],
            outputs=[_latent_output()],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        prompt: Any,
        strength: float,
        steps: int,
        guidance_scale: float,
        seed: int,
        denoising_start: float = 0.0,
        denoising_end: float = 1.0,
        image: Any = None,
        latent: Any = None,
        control: Any = (),
        aesthetic_score: float = 6.0,
        negative_aesthetic_score: float = 2.5,
    ) -> io.NodeOutput:
        from ..pipelines.latent_space import from_host
        from ..pipelines.run import ImageToImageSettings, image_to_image

        settings = ImageToImageSettings(
            strength,
            steps,
            guidance_scale,
            seed,
            denoising_start,
            denoising_end,
            aesthetic_score,
            negative_aesthetic_score,
        )
        runtime = comfy_host.runtime_for(cls, model)
        read = None if latent is None else from_host(latent)
        latents = image_to_image(model, prompt, settings, runtime, image=image, latent=read, control=control)
        return io.NodeOutput(latents.to_host())
