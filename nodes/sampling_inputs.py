"""The inputs and the output that the sampling nodes have alike."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .wire_types import DiffusersControl, DiffusersModel, DiffusersPrompt


def model() -> Any:
    return DiffusersModel.Input("model", tooltip="The model that paints.")


def prompt() -> Any:
    return DiffusersPrompt.Input(
        "prompt",
        tooltip="From Encode Prompt with this model; for Kandinsky from Kandinsky Prior, Image Prompt or Mix Prompts.",
    )


def steps() -> Any:
    return io.Int.Input(
        "steps",
        default=50,
        min=1,
        max=1000,
        tooltip="Denoising steps of a full run. The models' defaults: 50 for Stable Diffusion and SDXL, 100 for the Kandinsky decoder.",
    )


def guidance_scale() -> Any:
    return io.Float.Input(
        "guidance_scale",
        default=7.5,
        min=0.0,
        max=100.0,
        step=0.1,
        tooltip="How closely to follow the prompt; up to 1 switches guidance and the negative prompt off. The models' defaults: 7.5 for Stable Diffusion, 5 for SDXL, 4 for Kandinsky.",
    )


def seed() -> Any:
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=2**64 - 1,
        control_after_generate=True,
        tooltip="The noise. Image i of a batch uses seed + i, so each can be made again alone.",
    )


def denoising_end() -> Any:
    return io.Float.Input(
        "denoising_end",
        default=1.0,
        min=0.0,
        max=1.0,
        step=0.01,
        optional=True,
        tooltip="SDXL only. Below 1 the run stops at that fraction and leaves its noise in the latent, for another SDXL model to go on with.",
    )


def control() -> Any:
    return DiffusersControl.Input(
        "control",
        optional=True,
        tooltip="ControlNet units, from Apply ControlNet (Diffusers); for Kandinsky's depth ControlNet decoder a depth map, from Kandinsky Hint.",
    )


def latent_output() -> Any:
    return io.Latent.Output(
        display_name="latent",
        tooltip="A latent in ComfyUI's scale, for the next model, Decode Latent (Diffusers), or ComfyUI's own nodes.",
    )
