"""Nodes that upscale: latents to twice their size, pictures to four times."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import comfy_host, sampling_inputs
from .wire_types import DiffusersModel, DiffusersPrompt

CATEGORY = f"{comfy_host.CATEGORY}/upscaling"
MAX_TILE = 4096


def _prompt(more: str = "") -> Any:
    return DiffusersPrompt.Input(
        "prompt", tooltip=f"The prompt from Encode Prompt with this model: what the picture shows.{more}"
    )


def _check_tile_size(tile_size: int) -> None:
    from ..pipelines.denoising.tiling import check_tile_size

    check_tile_size(tile_size)


class RelayLatentUpscale(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayLatentUpscale",
            display_name="Latent Upscale x2 (Diffusers)",
            category=CATEGORY,
            description=(
                "Doubles the width and height of a Stable Diffusion 1.x or 2.x latent without decoding it. A latent from another space is converted once, and the node says so. "
                "Use this for a sharp result at exactly twice the size, and ComfyUI's Upscale Latent to stretch a latent to any size."
            ),
            inputs=[
                DiffusersModel.Input("model", tooltip="The upscaler: stabilityai/sd-x2-latent-upscaler."),
                _prompt(" It is not used at guidance_scale 0."),
                io.Latent.Input(
                    "latent",
                    tooltip="The latent to upscale, of any size. It must not contain noise. Its noise_mask and batch index pass through.",
                ),
                sampling_inputs.steps(20, "Denoising steps. More steps take longer. The model's own example uses 20."),
                sampling_inputs.guidance_scale(
                    0.0,
                    "How closely to follow the prompt. 0 ignores the prompt, as in the model's own example; 1 or less turns the negative prompt off.",
                ),
                sampling_inputs.seed(),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="latent",
                    tooltip="The latent at twice the size, in Stable Diffusion's space and ComfyUI's scale.",
                )
            ],
            hidden=[io.Hidden.unique_id],
            **comfy_host.found_by(
                "upscale, upscaler, upscale x2, x2 upscaler, 2x, hires, hires fix, enlarge latent, increase resolution"
            ),
        )

    @classmethod
    def execute(
        cls, model: Any, prompt: Any, latent: Any, steps: int, guidance_scale: float, seed: int
    ) -> io.NodeOutput:
        from ..pipelines.latents.latent_space import from_host
        from ..pipelines.runs.latent_upscaling import LatentUpscaleSettings, upscale_latent

        settings = LatentUpscaleSettings(steps, guidance_scale, seed)
        runtime = comfy_host.runtime_for(cls, model)
        return io.NodeOutput(upscale_latent(model, prompt, settings, from_host(latent), runtime).to_host())


class RelaySuperResolution(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelaySuperResolution",
            display_name="Super Resolution x4 (Diffusers)",
            category=CATEGORY,
            description=(
                "Upscales a picture to four times its width and height. Large pictures can be processed in tiles, so that memory does not grow with the picture. "
                "Use this to paint new detail from a prompt, and ComfyUI's Upscale Image (using Model) for models such as ESRGAN, which are faster."
            ),
            inputs=[
                DiffusersModel.Input("model", tooltip="The upscaler: stabilityai/stable-diffusion-x4-upscaler."),
                _prompt(),
                sampling_inputs.steps(75, "Denoising steps. More steps take longer. The model's default is 75."),
                sampling_inputs.guidance_scale(
                    9.0,
                    "How closely to follow the prompt. Higher follows it more closely; 1 or less turns guidance and the negative prompt off. The model's default is 9.",
                ),
                io.Int.Input(
                    "noise_level",
                    default=20,
                    min=0,
                    max=350,
                    tooltip="How much noise to add to the picture first. Higher lets the model invent more detail. The model's default is 20.",
                ),
                sampling_inputs.seed(),
                io.Int.Input(
                    "tile_size",
                    default=0,
                    min=0,
                    max=MAX_TILE,
                    step=8,
                    tooltip=(
                        "The side of a tile in pixels of the input picture: 64 or more, in multiples of 8, or 0 for the whole picture at once. "
                        "Smaller tiles take less memory: besides the weights, about 0.3 GB at 64 and 1 GB at 128 (float32), and 4 times as much "
                        "at twice the size. The model was trained on 128."
                    ),
                ),
                *sampling_inputs.image_or_latent(
                    "The picture to upscale. Any size; it is scaled down to multiples of 4.",
                    "A latent from Diffusers Relay, which knows the model that made it. It is decoded by that model's autoencoder first.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The picture at four times the size.")],
            hidden=[io.Hidden.unique_id],
            **comfy_host.found_by(
                "upscale, upscaler, upscale x4, x4 upscaler, 4x, hires, superres, enlarge image, increase resolution, tiled upscale"
            ),
        )

    @classmethod
    def validate_inputs(cls, tile_size: int | None = None) -> bool | str:
        """Replaces the host's own check of this input, which only knows a minimum and a maximum."""
        return comfy_host.refusal(_check_tile_size, tile_size)

    @classmethod
    def execute(
        cls,
        model: Any,
        prompt: Any,
        steps: int,
        guidance_scale: float,
        noise_level: int,
        seed: int,
        tile_size: int,
        image: Any = None,
        latent: Any = None,
    ) -> io.NodeOutput:
        from ..pipelines.runs.super_resolution import SuperResolutionSettings, super_resolution

        settings = SuperResolutionSettings(steps, guidance_scale, noise_level, seed, tile_size)
        runtime = comfy_host.runtime_for(cls, model)
        read = sampling_inputs.read(latent)
        return io.NodeOutput(super_resolution(model, prompt, settings, runtime, image=image, latent=read))
