"""The inputs and the output that the sampling nodes share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..pipelines.denoising.guidance import families_with_true_cfg
from ..pipelines.model.family_lookup import size_step
from ..pipelines.runs.denoising_range import families_with_range
from .comfy_host import advanced
from .wire_types import DiffusersControl, DiffusersIpAdapterImage, DiffusersModel, DiffusersPrompt

if TYPE_CHECKING:
    from ..pipelines.latents.latent_space import Latents

MAX_SIZE = 16384
"""Pixels."""
SIZE_STEP = size_step()
"""Every family's sizes are multiples of this. The host needs it before a model is connected; the run checks the model's own multiple."""
STEPS = "Denoising steps of a full run. More steps take longer. The models' defaults: 50 for Stable Diffusion and SDXL, 28 for SD3 and Flux.1 dev, 4 for Flux.1 schnell, 100 for the Kandinsky decoder."
GUIDANCE_SCALE = "How closely to follow the prompt. Higher follows it more closely; 1 or less turns guidance and the negative prompt off. The models' defaults: 7.5 for Stable Diffusion, 5 for SDXL, 7 for SD3, 3.5 for Flux.1 dev, 4 for Kandinsky. Flux.1 schnell does not use it."
SEED = "The seed for the noise. Picture i of a batch uses seed + i (the first has i = 0), so each can be painted again on its own."
HAVE_RANGE = f"Only for: {families_with_range()}."
EITHER = "Connect either image or latent."


def model() -> Any:
    return DiffusersModel.Input("model", tooltip="The model that paints.")


def prompt() -> Any:
    return DiffusersPrompt.Input(
        "prompt",
        tooltip="The prompt from Encode Prompt with this model. For Kandinsky: from Kandinsky Prior, Image Prompt or Mix Prompts.",
    )


def size() -> list[io.Input]:
    options: dict[str, Any] = {
        "default": 512,
        "min": SIZE_STEP,
        "max": MAX_SIZE,
        "step": SIZE_STEP,
        "tooltip": (
            f"Size in pixels. Most models need a multiple of {SIZE_STEP}; another size is refused, with the nearest ones that fit. "
            "Models paint best at the size that they were trained for, such as 512 for SD1.5 and 1024 for SDXL."
        ),
    }
    return [io.Int.Input("width", **options), io.Int.Input("height", **options)]


def strength(default: float, tooltip: str) -> Any:
    return io.Float.Input("strength", default=default, min=0.0, max=1.0, step=0.01, tooltip=tooltip)


def steps(default: int = 50, tooltip: str = STEPS) -> Any:
    return io.Int.Input("steps", default=default, min=1, max=1000, tooltip=tooltip)


def guidance_scale(default: float = 7.5, tooltip: str = GUIDANCE_SCALE) -> Any:
    return io.Float.Input("guidance_scale", default=default, min=0.0, max=100.0, step=0.1, tooltip=tooltip)


def seed(tooltip: str = SEED) -> Any:
    return io.Int.Input("seed", default=0, min=0, max=2**64 - 1, control_after_generate=True, tooltip=tooltip)


def denoising_end() -> Any:
    return io.Float.Input(
        "denoising_end",
        default=1.0,
        min=0.0,
        max=1.0,
        step=0.01,
        optional=True,
        tooltip=f"{HAVE_RANGE} Below 1, the run stops at that fraction and leaves the noise in the latent, so that another such model can continue.",
        **advanced(io.Float.Input),
    )


def eta() -> Any:
    return io.Float.Input(
        "eta",
        default=0.0,
        min=0.0,
        max=1.0,
        step=0.01,
        optional=True,
        tooltip="Only for DDIM and TCD, with Stable Diffusion and SDXL: how much new noise each step adds. 0: none. For TCD, diffusers' documentation uses 0.3.",
        **advanced(io.Float.Input),
    )


def true_cfg_scale() -> Any:
    return io.Float.Input(
        "true_cfg_scale",
        default=1.0,
        min=1.0,
        max=100.0,
        step=0.1,
        optional=True,
        tooltip=f"Only for {families_with_true_cfg()}: above 1, the run is guided away from the negative prompt, and takes twice as long. 1: the negative prompt is not used.",
        **advanced(io.Float.Input),
    )


def image_or_latent(image: str, latent: str) -> list[io.Input]:
    """The image and latent inputs, of which exactly one must be connected. The arguments are their tooltips."""
    return [
        io.Image.Input("image", optional=True, tooltip=f"{image} {EITHER}"),
        io.Latent.Input("latent", optional=True, tooltip=f"{latent} {EITHER}"),
    ]


def read(latent: Any) -> Latents | None:
    """The latent at a latent input, or None if nothing is connected."""
    from ..pipelines.latents.latent_space import from_host

    return None if latent is None else from_host(latent)


def control() -> Any:
    return DiffusersControl.Input(
        "control",
        optional=True,
        tooltip="ControlNets from Apply ControlNet (Diffusers). For Kandinsky's depth ControlNet decoder: a depth map from Kandinsky Hint.",
    )


def ip_adapter() -> Any:
    return DiffusersIpAdapterImage.Input(
        "ip_adapter",
        optional=True,
        tooltip="Pictures that steer the run, from IP-Adapter Image. For Stable Diffusion and SDXL.",
    )


def latent_output() -> Any:
    return io.Latent.Output(
        display_name="latent",
        tooltip="A latent in ComfyUI's scale, for the next model, Decode Latent (Diffusers), or ComfyUI's own nodes.",
    )
