"""The trained modules as diffusers pipelines in memory, to evaluate them."""

from __future__ import annotations

from typing import Any

from small_models.parts import UNCLIP, scheduler
from small_models.upscalers import LOW_RES_SCHEDULER, X2_SCHEDULER, X4_SCHEDULER

from .clip import PICTURE_SIZE
from .schedules import KANDINSKY, SD15, SDXL
from .store import Store
from .tokenizer import tokenizer
from .widening import text_model

FAST = "DPMSolverMultistepScheduler"


def stable_diffusion(store: Store, unet: str = "unet_sd15", kind: str = "StableDiffusionPipeline", **more: Any) -> Any:
    return _built(
        kind,
        vae=store.load("vae_sd15"),
        text_encoder=text_model(store.load("text_l")),
        tokenizer=tokenizer(),
        unet=store.load(unet),
        scheduler=scheduler({**SD15, "_class_name": FAST}),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **more,
    )


def sdxl_base(store: Store, kind: str = "StableDiffusionXLPipeline", **more: Any) -> Any:
    return _built(
        kind,
        vae=store.load("vae_sdxl"),
        text_encoder=text_model(store.load("text_l")),
        text_encoder_2=store.load("text_g"),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer("!"),
        unet=store.load("unet_sdxl_base"),
        scheduler=scheduler(SDXL),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
        **more,
    )


def sdxl_refiner(store: Store) -> Any:
    return _built(
        "StableDiffusionXLImg2ImgPipeline",
        vae=store.load("vae_sdxl"),
        text_encoder=None,
        text_encoder_2=store.load("text_g"),
        tokenizer=None,
        tokenizer_2=tokenizer("!"),
        unet=store.load("unet_sdxl_refiner"),
        scheduler=scheduler(SDXL),
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )


def kandinsky_prior(store: Store) -> Any:
    from transformers import CLIPImageProcessor

    side = {"height": PICTURE_SIZE, "width": PICTURE_SIZE}
    return _built(
        "KandinskyV22PriorPipeline",
        prior=store.load("prior"),
        image_encoder=store.load("picture_g"),
        text_encoder=store.load("text_g"),
        tokenizer=tokenizer(),
        scheduler=scheduler(UNCLIP),
        image_processor=CLIPImageProcessor(size={"shortest_edge": PICTURE_SIZE}, crop_size=side),
    )


DECODERS = {
    "unet_kandinsky": "KandinskyV22Pipeline",
    "unet_kandinsky_depth": "KandinskyV22ControlnetPipeline",
    "unet_kandinsky_inpainting": "KandinskyV22InpaintPipeline",
}


def kandinsky_decoder(store: Store, unet: str = "unet_kandinsky") -> Any:
    return _built(DECODERS[unet], unet=store.load(unet), scheduler=scheduler(KANDINSKY), movq=store.load("movq"))


def x2_upscaler(store: Store) -> Any:
    return _built(
        "StableDiffusionLatentUpscalePipeline",
        vae=store.load("vae_sd15"),
        text_encoder=text_model(store.load("text_l")),
        tokenizer=tokenizer(),
        unet=store.load("unet_x2"),
        scheduler=scheduler(X2_SCHEDULER),
    )


def x4_upscaler(store: Store) -> Any:
    return _built(
        "StableDiffusionUpscalePipeline",
        vae=store.load("vae_x4"),
        text_encoder=text_model(store.load("text_g")),
        tokenizer=tokenizer("!"),
        unet=store.load("unet_x4"),
        low_res_scheduler=scheduler(LOW_RES_SCHEDULER),
        scheduler=scheduler(X4_SCHEDULER),
        max_noise_level=350,
    )


def _built(kind: str, **parts: Any) -> Any:
    import diffusers

    pipeline = getattr(diffusers, kind)(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
