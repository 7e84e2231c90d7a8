"""The function for each task of each family, in one table that mypy checks. See :mod:`..model.family_table` for the families' facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from ..model.family import ModelFamily, Task
from ..model.family_table import (
    FLUX,
    KANDINSKY22_DECODER,
    KANDINSKY22_DEPTH,
    LATENT_CONSISTENCY,
    LATENT_UPSCALER,
    SDXL_BASE,
    SDXL_REFINER,
    STABLE_DIFFUSION,
    STABLE_DIFFUSION_3,
    SUPER_RESOLUTION,
)
from . import (
    flux,
    kandinsky22,
    kandinsky22_depth,
    latent_consistency,
    sdxl,
    stable_diffusion,
    stable_diffusion_3,
    upscalers,
)

if TYPE_CHECKING:
    import torch

    from ..denoising.job import DenoisingJob


class Run(Protocol):
    """One task of a family: calls diffusers' pipeline for the job, whose denoiser is on ``device``."""

    def __call__(self, job: DenoisingJob, device: torch.device) -> torch.Tensor:
        """Latents in model scale, [B, C, h, w]."""
        ...


RUNS: Mapping[str, Mapping[Task, Run]] = {
    STABLE_DIFFUSION.name: {
        Task.TEXT_TO_IMAGE: stable_diffusion.text_to_image,
        Task.IMAGE_TO_IMAGE: stable_diffusion.image_to_image,
        Task.INPAINT: stable_diffusion.inpaint,
    },
    LATENT_CONSISTENCY.name: {
        Task.TEXT_TO_IMAGE: latent_consistency.text_to_image,
        Task.IMAGE_TO_IMAGE: latent_consistency.image_to_image,
    },
    SDXL_BASE.name: {
        Task.TEXT_TO_IMAGE: sdxl.text_to_image,
        Task.IMAGE_TO_IMAGE: sdxl.image_to_image,
        Task.INPAINT: sdxl.inpaint,
    },
    SDXL_REFINER.name: {
        Task.IMAGE_TO_IMAGE: sdxl.image_to_image,
        Task.INPAINT: sdxl.inpaint,
    },
    STABLE_DIFFUSION_3.name: {
        Task.TEXT_TO_IMAGE: stable_diffusion_3.text_to_image,
        Task.IMAGE_TO_IMAGE: stable_diffusion_3.image_to_image,
        Task.INPAINT: stable_diffusion_3.inpaint,
    },
    FLUX.name: {
        Task.TEXT_TO_IMAGE: flux.text_to_image,
        Task.IMAGE_TO_IMAGE: flux.image_to_image,
        Task.INPAINT: flux.inpaint,
    },
    KANDINSKY22_DECODER.name: {
        Task.TEXT_TO_IMAGE: kandinsky22.text_to_image,
        Task.IMAGE_TO_IMAGE: kandinsky22.image_to_image,
        Task.INPAINT: kandinsky22.inpaint,
    },
    KANDINSKY22_DEPTH.name: {
        Task.TEXT_TO_IMAGE: kandinsky22_depth.text_to_image,
        Task.IMAGE_TO_IMAGE: kandinsky22_depth.image_to_image,
    },
    LATENT_UPSCALER.name: {Task.LATENT_UPSCALE: upscalers.upscale_latent},
    SUPER_RESOLUTION.name: {Task.SUPER_RESOLUTION: upscalers.super_resolution},
}
"""Keys are the families' names. The Kandinsky prior makes no latents and is not here; see :mod:`.kandinsky22_prior`."""


def run_of(family: ModelFamily, task: Task) -> Run:
    return RUNS[family.name][task]
