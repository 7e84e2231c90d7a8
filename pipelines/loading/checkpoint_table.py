"""The kinds of checkpoints that the pack loads, one row each. A new kind is a row here and a folder in ``configs/``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..files.safetensors import Header
from .block_layout import diffusers_numbers, kind_numbers, original_numbers
from .checkpoint_keys import (
    OPEN_CLIP,
    VAES,
    clip_keys,
    flat_attention,
    open_clip_projection,
    prefixed,
    vae_keys,
    without_prefix,
)
from .checkpoint_layout import CheckpointLayout, DenoiserLayout, StoredComponent, Vocabulary
from .file_part import Part, clip_model
from .file_signs import LONE_UNETS, UNET_VARIANTS, Sign
from .prediction import FIRST_LAYERS, UNET, marked_or_measured_prediction, marked_prediction

ORIGINAL_FIRST_LAYER = FIRST_LAYERS[0]


def _unet(part: Part, place: str, header: Header, where: str) -> Part:
    config = json.loads((part.config / "config.json").read_text("utf-8"))
    shapes = without_prefix(header, place)
    if ORIGINAL_FIRST_LAYER in shapes:
        return replace(part, numbers=original_numbers(shapes, config, where), has_pruned_variants=True)
    numbers = diffusers_numbers(shapes, config, where)
    return replace(part, numbers=numbers, rename=prefixed(place, to=""), has_pruned_variants=True)


def _vae(part: Part, place: str, header: Header, where: str) -> Part:
    return replace(part, rename=vae_keys(place), reshape=flat_attention)


def _clip(part: Part, place: str, header: Header, where: str) -> Part:
    if place.endswith(OPEN_CLIP):
        return replace(part, convert=clip_model, reshape=open_clip_projection, is_split=True)
    rename = clip_keys(place, has_projection=part.class_name.endswith("WithProjection"))
    return replace(part, convert=clip_model, rename=rename)


def _clip_tokenizer(folder: Path, settings: Mapping[str, Any]) -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True, **settings)  # nosec B615


CLIP = Vocabulary(
    name="clip",
    title="CLIP's vocabulary",
    host_folder="comfy/sd1_tokenizer",
    files=("vocab.json", "merges.txt"),
    settings={"model_max_length": int, "pad_token": str},
    build=_clip_tokenizer,
)
STABLE_DIFFUSION_UNET = DenoiserLayout(
    title="UNet",
    component="unet",
    place=UNET,
    begins_with=("input_blocks.", "down_blocks."),
    first_layers=FIRST_LAYERS,
    always_has=("time_embed.0.weight", "time_embedding.linear_1.weight"),
    kind_numbers=kind_numbers,
    channels=(4, 9),  # a plain model, an inpainting model
    other_channels={
        5: "a Stable Diffusion 2 depth model",
        7: "the Stable Diffusion x4 upscaler",
        8: "an InstructPix2Pix or CosXL Edit, whose UNet also reads the picture to edit",
    },
    alone=LONE_UNETS,
    variants=UNET_VARIANTS,
)
LABELS = UNET + "label_emb."
"""Layers of SDXL's UNets for what they read besides the text."""
UNET_AND_VAE = {
    "unet": StoredComponent((UNET,), _unet),
    "vae": StoredComponent(VAES, _vae, always_has="decoder."),
}
SD1_TEXT = ("cond_stage_model.transformer.", "conditioner.embedders.0.transformer.")
SD2_TEXT = ("cond_stage_model.model.", "conditioner.embedders.0.model.")
SDXL_TEXT = ("conditioner.embedders.0.transformer.",)
SDXL_TEXT_2 = ("conditioner.embedders.1.model.", "conditioner.embedders.1.transformer.")
REFINER_TEXT = ("conditioner.embedders.0.model.",)

SDXL = CheckpointLayout(
    title="SDXL base",
    configs="sdxl",
    denoiser=STABLE_DIFFUSION_UNET,
    signs=(("conditioner.embedders.1.",),),
    incomplete=(Sign("an SDXL UNet with only one of its two text encoders", (SDXL_TEXT[0], LABELS)),),
    components={
        **UNET_AND_VAE,
        "text_encoder": StoredComponent(SDXL_TEXT, _clip),
        "text_encoder_2": StoredComponent(SDXL_TEXT_2, _clip),
    },
    vocabularies={"tokenizer": CLIP, "tokenizer_2": CLIP},
    scheduler_changes=marked_prediction,
)
LAYOUTS: tuple[CheckpointLayout, ...] = (
    replace(
        SDXL,
        title="Playground v2.5",
        configs="playground_v2_5",
        marks=("edm_mean", "edm_std"),
        has_own_vae=True,
        incomplete=(),
    ),
    replace(SDXL, title="CosXL", configs="cosxl", marks=("edm_vpred.sigma_max",), incomplete=()),
    SDXL,
    CheckpointLayout(
        title="SDXL refiner",
        configs="sdxl_refiner",
        denoiser=STABLE_DIFFUSION_UNET,
        signs=((*REFINER_TEXT, LABELS),),
        components={**UNET_AND_VAE, "text_encoder_2": StoredComponent(REFINER_TEXT, _clip)},
        vocabularies={"tokenizer_2": CLIP},
        scheduler_changes=marked_prediction,
    ),
    CheckpointLayout(
        title="Stable Diffusion 2.x",
        configs="sd2",
        denoiser=STABLE_DIFFUSION_UNET,
        signs=tuple((place,) for place in SD2_TEXT),
        components={**UNET_AND_VAE, "text_encoder": StoredComponent(SD2_TEXT, _clip)},
        vocabularies={"tokenizer": CLIP},
        scheduler_changes=marked_or_measured_prediction,
    ),
    CheckpointLayout(
        title="Stable Diffusion 1.x",
        configs="sd15",
        denoiser=STABLE_DIFFUSION_UNET,
        signs=tuple((place,) for place in SD1_TEXT),
        components={**UNET_AND_VAE, "text_encoder": StoredComponent(SD1_TEXT, _clip)},
        vocabularies={"tokenizer": CLIP},
        scheduler_changes=marked_prediction,
    ),
)
DENOISER_LAYOUTS = tuple(dict.fromkeys(layout.denoiser for layout in LAYOUTS))
