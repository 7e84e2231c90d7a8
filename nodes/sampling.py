"""Nodes that denoise."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import comfy_host, sampling_inputs

CATEGORY = f"{comfy_host.CATEGORY}/sampling"
MAX_BATCH = 4096


def _check_size(width: int, height: int) -> None:
    from ..pipelines.base.images import Extent, check_extent

    check_extent(
        Extent(width, height), sampling_inputs.SIZE_STEP, "A diffusers model", greatest=sampling_inputs.MAX_SIZE
    )


class RelayTextToImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayTextToImage",
            display_name="Text to Image (Diffusers)",
            category=CATEGORY,
            description=(
                "Paints a picture from a prompt with diffusers' own text-to-image pipeline. "
                "Use this for models of Diffusers Relay, and ComfyUI's KSampler for models of ComfyUI's own loaders."
            ),
            inputs=[
                sampling_inputs.model(),
                sampling_inputs.prompt(),
                *sampling_inputs.size(),
                io.Int.Input("batch_size", default=1, min=1, max=MAX_BATCH, tooltip="How many pictures to paint."),
                sampling_inputs.steps(),
                sampling_inputs.guidance_scale(),
                sampling_inputs.seed(),
                sampling_inputs.denoising_end(),
                sampling_inputs.control(),
                sampling_inputs.eta(),
                sampling_inputs.ip_adapter(),
                sampling_inputs.true_cfg_scale(),
            ],
            outputs=[sampling_inputs.latent_output()],
            hidden=[io.Hidden.unique_id],
            **comfy_host.found_by("txt2img, text2img, t2i, text2image, generate, sampler, ksampler, base"),
        )

    @classmethod
    def validate_inputs(cls, width: int | None = None, height: int | None = None) -> bool | str:
        """Replaces the host's own check of these two inputs, which only knows a minimum and a maximum."""
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
        eta: float = 0.0,
        ip_adapter: Any = (),
        true_cfg_scale: float = 1.0,
    ) -> io.NodeOutput:
        from ..pipelines.runs.sampling import TextToImageSettings, text_to_image

        settings = TextToImageSettings(
            width, height, batch_size, steps, guidance_scale, seed, denoising_end, eta, true_cfg_scale
        )
        runtime = comfy_host.runtime_for(cls, model)
        return io.NodeOutput(
            text_to_image(model, prompt, settings, runtime, control=control, ip_adapter=ip_adapter).to_host()
        )


class RelayImageToImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayImageToImage",
            display_name="Image to Image (Diffusers)",
            category=CATEGORY,
            description=(
                "Repaints a picture or a latent with diffusers' own image-to-image pipeline. A latent in the model's own space is used directly; one from another space is converted once, and the node says so. "
                "Use this for models of Diffusers Relay, and ComfyUI's KSampler with denoise below 1 for models of ComfyUI's own loaders."
            ),
            inputs=[
                sampling_inputs.model(),
                sampling_inputs.prompt(),
                sampling_inputs.strength(
                    0.8,
                    "How much to change. 1 ignores the picture; lower values keep more of it. Only steps x strength steps run. Not used when the run continues a noisy latent (denoising_start).",
                ),
                sampling_inputs.steps(),
                sampling_inputs.guidance_scale(),
                sampling_inputs.seed(),
                io.Float.Input(
                    "denoising_start",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip=f"{sampling_inputs.HAVE_RANGE} The fraction of the run at which to continue a latent that still contains noise; strength is then not used. 0: continue where the latent was left.",
                    **comfy_host.advanced(io.Float.Input),
                ),
                sampling_inputs.denoising_end(),
                *sampling_inputs.image_or_latent(
                    "The picture to repaint. Any size; it is scaled down to the next multiple of 8. SD3 and Flux.1 only take multiples of 16, and Kandinsky multiples of 64.",
                    "The latent to repaint. Its noise_mask and batch index are respected.",
                ),
                sampling_inputs.control(),
                io.Float.Input(
                    "aesthetic_score",
                    default=6.0,
                    min=0.0,
                    max=10.0,
                    step=0.1,
                    optional=True,
                    tooltip="SDXL refiner only: the aesthetic score to aim for. Higher asks for a more pleasing picture. The model's default is 6.",
                    **comfy_host.advanced(io.Float.Input),
                ),
                io.Float.Input(
                    "negative_aesthetic_score",
                    default=2.5,
                    min=0.0,
                    max=10.0,
                    step=0.1,
                    optional=True,
                    tooltip="SDXL refiner only: the aesthetic score to steer away from. The model's default is 2.5.",
                    **comfy_host.advanced(io.Float.Input),
                ),
                sampling_inputs.eta(),
                sampling_inputs.ip_adapter(),
                sampling_inputs.true_cfg_scale(),
            ],
            outputs=[sampling_inputs.latent_output()],
            hidden=[io.Hidden.unique_id],
            **comfy_host.found_by(
                "img2img, i2i, image2image, sampler, ksampler, denoise, strength, refiner, refine, hires, hires fix, restyle, style transfer, variation"
            ),
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
        eta: float = 0.0,
        ip_adapter: Any = (),
        true_cfg_scale: float = 1.0,
    ) -> io.NodeOutput:
        from ..pipelines.families.sdxl import AestheticScores
        from ..pipelines.runs.sampling import ImageToImageSettings, image_to_image

        settings = ImageToImageSettings(
            strength,
            steps,
            guidance_scale,
            seed,
            denoising_start,
            denoising_end,
            AestheticScores(aesthetic_score, negative_aesthetic_score),
            eta,
            true_cfg_scale,
        )
        runtime = comfy_host.runtime_for(cls, model)
        read = sampling_inputs.read(latent)
        latents = image_to_image(
            model, prompt, settings, runtime, image=image, latent=read, control=control, ip_adapter=ip_adapter
        )
        return io.NodeOutput(latents.to_host())
