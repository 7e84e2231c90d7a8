"""Runs the denoise stage of diffusers' modular blocks, for families that use them. Latents go in and out in spatial shape.

The blocks are classes of the installed diffusers and get modules that are already loaded. Nothing is downloaded, and no code comes from a model.

Source: https://huggingface.co/docs/diffusers/modular_diffusers/overview
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..base.library_log import without_notes_on_guiders, without_stopped_blocks
from .job import DenoisingJob

if TYPE_CHECKING:
    import torch

STAGE = "denoise"
WATCHER = "relay_watcher"


def run_denoise_blocks(job: DenoisingJob, device: torch.device, blocks_class: str, **arguments: Any) -> torch.Tensor:
    """Latents in model scale, [B, C, h, w].

    Args:
        job: the run.
        device: where the denoiser is now.
        blocks_class: the family's ``...AutoBlocks``, by its name in ``diffusers.modular_pipelines``.
        arguments: what the stage takes besides the steps, the size, the generators, and the latents and strength to start from.

    Raises:
        RelayError: no step is left to run.
    """
    import diffusers.modular_pipelines

    # diffusers shares the blocks of a family between all its pipelines: put into them, the watcher would keep the job and its model
    blocks = deepcopy(getattr(diffusers.modular_pipelines, blocks_class)().sub_blocks[STAGE])
    watcher = _watcher_class()(job)
    for loop in _loops(blocks):
        loop.sub_blocks[WATCHER] = watcher
    with without_notes_on_guiders():
        pipeline = blocks.init_pipeline()
        # guidance applies above 1, as in the classic pipelines
        settings = {"guidance_scale": job.guidance_scale, "enabled": job.guidance_scale > 1}
        guider = pipeline.get_component_spec("guider").create(**settings)
    guide_every_call(guider, job.scheduler)
    own_class: Any = type(pipeline)
    pipeline.__class__ = _borrowed_class(own_class)
    pipeline.relay_device = device
    denoiser = job.components.family.denoiser
    pipeline.update_components(**{denoiser: job.components[denoiser]}, scheduler=job.scheduler, guider=guider)
    pipeline.set_progress_bar_config(disable=True)
    if job.latents is not None:
        arguments |= {"image_latents": job.latents.to(device), "strength": job.strength}
    with without_stopped_blocks():
        latents: torch.Tensor = pipeline(
            height=job.extent.height,
            width=job.extent.width,
            num_inference_steps=job.steps,
            generator=job.generators,
            output="latents",
            **arguments,
        )
    if job.on_step.steps == 0:
        raise RelayError(f"steps: none of the {job.steps} steps is left to run. Raise strength or steps.")
    return latents


def guide_every_call(guider: Any, scheduler: Any) -> None:
    """Applies guidance in all model calls of a run, even if the scheduler calls the model twice per step.

    diffusers' loop counts the calls, but gives the guider the number of steps, so guidance stops halfway through a run with Heun.
    test_modular.py shows when diffusers fixes this.
    """
    own = guider.set_state

    def set_state(*, step: int, num_inference_steps: int, timestep: Any) -> None:
        own(step=step, num_inference_steps=num_inference_steps * scheduler.order, timestep=timestep)

    guider.set_state = set_state


def _loops(block: Any) -> Iterator[Any]:
    """The blocks that run their sub-blocks once per step."""
    from diffusers.modular_pipelines import LoopSequentialPipelineBlocks

    for inner in block.sub_blocks.values():
        if isinstance(inner, LoopSequentialPipelineBlocks):
            yield inner
        elif getattr(inner, "sub_blocks", None):
            yield from _loops(inner)


@cache
def _borrowed_class(cls: Any) -> Any:
    """``cls`` with an explicit device, instead of the device of the first module that it finds."""
    return type(cls.__name__, (cls,), {"_execution_device": property(lambda self: self.relay_device)})


@cache
def _watcher_class() -> Any:
    from diffusers.modular_pipelines import ModularPipelineBlocks

    class Watcher(ModularPipelineBlocks):  # type: ignore[misc]
        """The last block of the loop: handles progress, cancel, preview and mask after each step."""

        def __init__(self, job: DenoisingJob) -> None:
            super().__init__()
            self._job = job

        def __deepcopy__(self, memo: object) -> Any:
            """The pipeline copies its blocks, but the job must stay the run's own."""
            return self

        @property
        def description(self) -> str:
            return "Reports the latents of each step to the run."

        def __call__(self, components: Any, block_state: Any, i: int, t: Any) -> tuple[Any, Any]:
            timesteps = block_state.timesteps
            block_state.latents = self._job.on_step.after_step(i, len(timesteps), timesteps, block_state.latents)
            return components, block_state

    return Watcher
