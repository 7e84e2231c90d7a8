"""Writes the trained models as folders with the published models' layouts, configs, schedulers and flags."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from small_models.parts import UNCLIP, save
from small_models.upscalers import LOW_RES_SCHEDULER, X2_SCHEDULER, X4_SCHEDULER

from . import pipelines
from .ip_adapter import widened
from .native import native_weights, save_native
from .schedules import KANDINSKY, SD15, SDXL
from .store import Store
from .tokenizer import write_tokenizer
from .widening import widen_cross_attention, widen_text_encoder

SD15_TEXT_COPIES = 8
"""96 x 8 = 768, SD1.5's text width, by which ComfyUI's own sampler recognises it."""
CARD = (
    "---\nprior:\n- kandinsky-community/kandinsky-2-2-prior\ntags:\n- text-to-image\n- kandinsky\n---\n"
    "A stand-in: see devtools/tiny_world/README.md.\n"
)
"""The entry in the published decoders' model cards from which diffusers' combined pipelines find the prior."""


def lay_out_sd15(store: Store, folder: Path, *, unet: str) -> Path:
    """unet: the name of SD1.5's UNet, a fine-tune's, or the inpainting copy's."""
    kind = "StableDiffusionInpaintPipeline" if unet == "unet_inpainting" else "StableDiffusionPipeline"
    pipeline = pipelines.stable_diffusion(store, unet, kind)
    pipeline.register_modules(
        text_encoder=widen_text_encoder(pipeline.text_encoder, SD15_TEXT_COPIES),
        unet=widen_cross_attention(pipeline.unet, SD15_TEXT_COPIES),
    )
    return _saved(pipeline, folder, SD15)


def lay_out_sdxl_base(store: Store, folder: Path) -> Path:
    return _saved(pipelines.sdxl_base(store), folder, SDXL)


def lay_out_sdxl_refiner(store: Store, folder: Path) -> Path:
    return _saved(pipelines.sdxl_refiner(store), folder, SDXL)


def lay_out_kandinsky_prior(store: Store, folder: Path) -> Path:
    return _saved(pipelines.kandinsky_prior(store), folder, UNCLIP)


def lay_out_kandinsky_decoder(store: Store, folder: Path, *, unet: str) -> Path:
    """unet: a key of pipelines.DECODERS."""
    _saved(pipelines.kandinsky_decoder(store, unet), folder, KANDINSKY)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    return folder


def lay_out_x2(store: Store, folder: Path) -> Path:
    return _saved(pipelines.x2_upscaler(store), folder, X2_SCHEDULER)


def lay_out_x4(store: Store, folder: Path) -> Path:
    _saved(pipelines.x4_upscaler(store), folder, X4_SCHEDULER)
    low_res = folder / "low_res_scheduler" / "scheduler_config.json"
    low_res.write_text(json.dumps(LOW_RES_SCHEDULER, indent=2), encoding="utf-8")
    return folder


def lay_out_controlnet(store: Store, folder: Path) -> Path:
    """The depth ControlNet of the SD1.5 stand-in."""
    wide = widen_cross_attention(store.load("controlnet_depth"), SD15_TEXT_COPIES)
    wide.save_pretrained(folder, safe_serialization=True)
    return folder


def lay_out_ip_adapter(store: Store, folder: Path) -> Path:
    """The SD1.5 stand-in's IP-Adapter, with the encoder that reads its pictures."""
    adapter = widened(load_file(store.file("ip_adapter")), SD15_TEXT_COPIES)
    _saved_tensors(adapter, folder / "models" / IP_ADAPTER_FILE)
    store.load("picture_g").half().save_pretrained(folder / "models" / "image_encoder", safe_serialization=True)
    return folder


def lay_out_all(store: Store, folder: Path) -> dict[str, Path]:
    """Writes every model to a folder of its name. Returns {name: folder}."""
    return {name: lay_out(store, folder / name) for name, lay_out in MODELS.items()}


MODELS: dict[str, Callable[[Store, Path], Path]] = {
    "sd15": partial(lay_out_sd15, unet="unet_sd15"),
    "sd15_inpaint": partial(lay_out_sd15, unet="unet_inpainting"),
    "comic": partial(lay_out_sd15, unet="unet_comic"),
    "pixel": partial(lay_out_sd15, unet="unet_pixel"),
    "elden_ring": partial(lay_out_sd15, unet="unet_ring"),
    "sdxl_base": lay_out_sdxl_base,
    "sdxl_refiner": lay_out_sdxl_refiner,
    "kandinsky_prior": lay_out_kandinsky_prior,
    "kandinsky_decoder": partial(lay_out_kandinsky_decoder, unet="unet_kandinsky"),
    "kandinsky_inpaint": partial(lay_out_kandinsky_decoder, unet="unet_kandinsky_inpainting"),
    "kandinsky_depth": partial(lay_out_kandinsky_decoder, unet="unet_kandinsky_depth"),
    "x2_upscaler": lay_out_x2,
    "x4_upscaler": lay_out_x4,
    "controlnet_depth": lay_out_controlnet,
    "ip_adapter": lay_out_ip_adapter,
}
"""{name: function that writes the model}. relay_dev.hub_cache maps hub ids to these names."""


def lay_out_checkpoint(store: Store, folder: Path) -> Path:
    """SD1.5's stand-in as a file for ComfyUI's own loader, without a text encoder."""
    return save_native(native_weights(store.load("unet_native"), store.load("taesd"), SD15_TEXT_COPIES), folder)


def lay_out_loras(store: Store, folder: Path) -> list[Path]:
    return [_saved_tensors(load_file(store.file(name)), folder / file) for name, file in LORAS.items()]


def lay_out_embedding(store: Store, folder: Path) -> Path:
    """Fits the written SD1.5, whose text encoder is wider than the trained one."""
    known = load_file(store.file("embedding_ember"))
    return _saved_tensors(
        {token: vector.repeat(SD15_TEXT_COPIES) for token, vector in known.items()}, folder / EMBEDDING_FILE
    )


def _saved_tensors(tensors: dict[str, Any], file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file, metadata={"format": "pt"})
    return file


LORA_FILE = "pixel-art-lora.safetensors"
LCM_LORA_FILE = "lcm-lora-sdv1-5.safetensors"
LORAS = {"lora_pixel": LORA_FILE, "lora_lcm": LCM_LORA_FILE}
IP_ADAPTER_FILE = "ip-adapter_sd15.safetensors"
EMBEDDING_FILE = "ember.safetensors"


def _saved(pipeline: Any, folder: Path, scheduler_config: dict[str, Any]) -> Path:
    save(pipeline, folder, scheduler_config)
    for part in ("tokenizer", "tokenizer_2"):
        found = pipeline.components.get(part)
        if found is not None:  # as in the published CLIPs, not as transformers writes them today
            write_tokenizer(folder / part, found.pad_token)
    return folder
