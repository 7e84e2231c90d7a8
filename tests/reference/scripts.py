"""The diffusers documentation's scripts as functions, written without the pack's code. The pack's graphs must match their results.

Each takes model folders (or hub ids), uses CPU generators, and returns float pictures [B, H, W, 3] in 0..1 (`output_type="np"`), or
latents as the pipeline returns them. `load` is passed to from_pretrained: dtype=torch.float16, variant="fp16" and so on.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import (
    AutoPipelineForImage2Image,
    AutoPipelineForText2Image,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    KandinskyV22Img2ImgPipeline,
    KandinskyV22Pipeline,
    KandinskyV22PriorPipeline,
)
from PIL import Image

Picture = Image.Image | list[Image.Image] | torch.Tensor


class Prior(NamedTuple):
    """The output of the Kandinsky prior: two tensors [1, width]."""

    image_embeds: torch.Tensor
    negative_image_embeds: torch.Tensor


def generator(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def loaded(pipeline_class: Any, model: Path | str, load: dict[str, Any]) -> Any:
    gc.collect()
    given = {"dtype": torch.float32, "use_safetensors": True, **load}
    given["torch_dtype"] = given.pop("dtype")  # the argument's name in diffusers 0.36 and later
    pipeline = pipeline_class.from_pretrained(model, **given)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


# --- Stable Diffusion 1.5


def sd15_text_to_image(
    model: Path | str,
    prompt: str,
    negative_prompt: str | None = None,
    *,
    width: int = 64,
    height: int = 64,
    steps: int = 4,
    guidance_scale: float = 7.5,
    seed: int = 0,
    output_type: str = "np",
    **load: Any,
) -> Any:
    pipeline = loaded(AutoPipelineForText2Image, model, load)
    return pipeline(
        prompt,
        negative_prompt=negative_prompt,
        width=width,
        height=height,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        generator=generator(seed),
        output_type=output_type,
    ).images


def sd15_euler_predictions(
    model: Path | str, prompt: str, *, width: int, height: int, steps: int, seed: int
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Each step's prediction of the final latents, and the latents after the step, both in the pipeline's scale."""
    pipeline = loaded(AutoPipelineForText2Image, model, {})
    predicted: list[torch.Tensor] = []
    noisy: list[torch.Tensor] = []

    class Telling(EulerDiscreteScheduler):
        def step(self, *arguments: Any, generator: Any = None, return_dict: bool = True, **others: Any) -> Any:
            told = super().step(*arguments, generator=generator, **others)
            predicted.append(told.pred_original_sample)
            noisy.append(told.prev_sample)
            return told if return_dict else (told.prev_sample,)

    pipeline.scheduler = Telling.from_config(pipeline.scheduler.config)
    pipeline(
        prompt,
        width=width,
        height=height,
        num_inference_steps=steps,
        guidance_scale=7.5,
        generator=generator(seed),
        output_type="latent",
    )
    return predicted, noisy


def sd15_image_to_image(
    model: Path | str,
    image: Picture,
    prompt: str,
    negative_prompt: str | None = None,
    *,
    strength: float = 0.8,
    steps: int = 5,
    guidance_scale: float = 7.5,
    seed: int = 0,
    output_type: str = "np",
    **load: Any,
) -> Any:
    """image: a picture, or latents from a pipeline with output_type="latent"."""
    pipeline = loaded(AutoPipelineForImage2Image, model, load)
    return pipeline(
        prompt,
        negative_prompt=negative_prompt,
        image=image,
        strength=strength,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        generator=generator(seed),
        output_type=output_type,
    ).images


def sd15_latent_chain(
    models: Sequence[Path | str],
    image: Picture,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    output_type: str = "np",
    **settings: Any,
) -> Any:
    """The guide's image-to-image-to-image: passes latents from each model to the next; only the last one decodes."""
    last = len(models) - 1
    for index, (model, prompt, seed) in enumerate(zip(models, prompts, seeds, strict=True)):
        kind = output_type if index == last else "latent"
        image = sd15_image_to_image(model, image, prompt, seed=seed, output_type=kind, **settings)
    return image


# --- SDXL


def sdxl_text_to_image(
    model: Path | str,
    prompt: str,
    negative_prompt: str | None = None,
    *,
    width: int = 64,
    height: int = 64,
    steps: int = 5,
    guidance_scale: float = 5.0,
    seed: int = 0,
    denoising_end: float | None = None,
    output_type: str = "np",
    **load: Any,
) -> Any:
    pipeline = loaded(AutoPipelineForText2Image, model, {"add_watermarker": False, **load})
    return pipeline(
        prompt,
        negative_prompt=negative_prompt,
        width=width,
        height=height,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        denoising_end=denoising_end,
        generator=generator(seed),
        output_type=output_type,
    ).images


def sdxl_image_to_image(
    model: Path | str,
    image: Picture,
    prompt: str,
    negative_prompt: str | None = None,
    *,
    strength: float = 0.3,
    steps: int = 10,
    guidance_scale: float = 7.5,
    seed: int = 0,
    denoising_start: float | None = None,
    denoising_end: float | None = None,
    aesthetic_score: float = 6.0,
    negative_aesthetic_score: float = 2.5,
    output_type: str = "np",
    **load: Any,
) -> Any:
    """The refiner, or the base as image-to-image (which ignores the scores)."""
    pipeline = loaded(AutoPipelineForImage2Image, model, {"add_watermarker": False, **load})
    return pipeline(
        prompt,
        negative_prompt=negative_prompt,
        image=image,
        strength=strength,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        denoising_start=denoising_start,
        denoising_end=denoising_end,
        aesthetic_score=aesthetic_score,
        negative_aesthetic_score=negative_aesthetic_score,
        generator=generator(seed),
        output_type=output_type,
    ).images


def sdxl_base_and_refiner(
    base: Path | str,
    refiner: Path | str,
    prompt: str,
    negative_prompt: str | None = None,
    *,
    split: float = 0.8,
    steps: int = 10,
    base_guidance_scale: float = 5.0,
    refiner_guidance_scale: float = 5.0,
    seeds: tuple[int, int] = (0, 0),
    output_type: str = "np",
    **settings: Any,
) -> Any:
    """The ensemble of experts: the base stops at `split` and passes on latents that still contain noise."""
    latents = sdxl_text_to_image(
        base,
        prompt,
        negative_prompt,
        steps=steps,
        guidance_scale=base_guidance_scale,
        denoising_end=split,
        seed=seeds[0],
        output_type="latent",
        **settings,
    )
    return sdxl_image_to_image(
        refiner,
        latents,
        prompt,
        negative_prompt,
        steps=steps,
        guidance_scale=refiner_guidance_scale,
        denoising_start=split,
        seed=seeds[1],
        output_type=output_type,
    )


# --- Kandinsky 2.2


def kandinsky_prior(
    model: Path | str,
    prompt: str,
    negative_prompt: str | None = None,
    *,
    steps: int = 4,
    guidance_scale: float = 4.0,
    seed: int = 0,
    **load: Any,
) -> Prior:
    pipeline = loaded(KandinskyV22PriorPipeline, model, load)
    embeds = pipeline(
        prompt,
        negative_prompt=negative_prompt,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        generator=generator(seed),
    )
    return Prior(embeds.image_embeds, embeds.negative_image_embeds)


def kandinsky_text_to_image(
    model: Path | str,
    embeds: Prior,
    *,
    width: int = 64,
    height: int = 64,
    steps: int = 4,
    guidance_scale: float = 4.0,
    seed: int = 0,
    output_type: str = "np",
    **load: Any,
) -> Any:
    pipeline = loaded(KandinskyV22Pipeline, model, load)
    return pipeline(
        image_embeds=embeds.image_embeds,
        negative_image_embeds=embeds.negative_image_embeds,
        width=width,
        height=height,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        generator=generator(seed),
        output_type=output_type,
    ).images


def kandinsky_image_to_image(
    model: Path | str,
    image: Picture,
    embeds: Prior,
    *,
    width: int = 64,
    height: int = 64,
    strength: float = 0.3,
    steps: int = 10,
    guidance_scale: float = 4.0,
    seed: int = 0,
    output_type: str = "np",
    **load: Any,
) -> Any:
    """width, height: the result's size.

    The pipeline calls `image_processor.preprocess(i, width, height)`, but the arguments are (height, width), so the picture becomes
    `width` pixels tall. It uses them nowhere else, so swapping them here undoes that. When diffusers fixes its call,
    `kandinsky_swaps_sizes` returns False and this function stays correct.
    """
    pipeline = loaded(KandinskyV22Img2ImgPipeline, model, load)
    if kandinsky_swaps_sizes(pipeline):
        width, height = height, width
    return pipeline(
        image=image,
        image_embeds=embeds.image_embeds,
        negative_image_embeds=embeds.negative_image_embeds,
        width=width,
        height=height,
        strength=strength,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        generator=generator(seed),
        output_type=output_type,
    ).images


def kandinsky_swaps_sizes(pipeline: KandinskyV22Img2ImgPipeline) -> bool:
    """Whether this diffusers still swaps height and width: runs one step on a picture that isn't square."""
    width = pipeline.unet.config.encoder_hid_dim
    nothing = torch.zeros(1, width, dtype=pipeline.unet.dtype)
    latents = pipeline(
        image=Image.new("RGB", (128, 64)),
        image_embeds=nothing,
        negative_image_embeds=nothing,
        width=128,
        height=64,
        strength=1.0,
        num_inference_steps=1,
        generator=generator(0),
        output_type="latent",
    ).images
    return latents.shape[-2] > latents.shape[-1]


# --- by hand: the expected results of a chain across latent spaces


@torch.no_grad()
def decode_latents(model: Path | str, latents: torch.Tensor, **load: Any) -> np.ndarray:
    """Decodes a pipeline's latents (scaled, or Kandinsky's unscaled) to pictures [B, H, W, 3]."""
    pipeline = loaded(DiffusionPipeline, model, load)
    if hasattr(pipeline, "movq"):
        pictures = pipeline.movq.decode(latents.to(pipeline.movq.dtype), force_not_quantize=True).sample
    else:
        pictures = pipeline.vae.decode(latents.to(pipeline.vae.dtype) / pipeline.vae.config.scaling_factor).sample
    return (pictures / 2 + 0.5).clamp(0, 1).float().permute(0, 2, 3, 1).numpy()


def write_like_host(array: np.ndarray) -> np.ndarray:
    """Pictures as the host's SaveImage writes them: it truncates instead of rounding."""
    return np.clip(255.0 * np.asarray(array, dtype=np.float32), 0, 255).astype(np.uint8)


def read_like_host(picture: Image.Image) -> torch.Tensor:
    """A picture as the host's LoadImage outputs it: [1, H, W, 3], float32 in 0..1."""
    return torch.from_numpy(np.array(picture.convert("RGB")).astype(np.float32) / 255.0)[None]


def soft_picture(width: int = 64, height: int = 64, seed: int = 271) -> Image.Image:
    """A picture to start from: soft blobs of colour, different in every quarter."""
    coarse = np.random.default_rng(seed).uniform(0, 255, size=(5, 5, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
