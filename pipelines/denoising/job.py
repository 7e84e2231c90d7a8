"""One denoising run, as the family modules see it, and the diffusers pipeline object that is borrowed for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from ..base.errors import RelayError
from ..base.images import Extent
from ..base.library_log import without_advice_on_configs
from ..control.units import ControlNetUnit
from ..device.working_memory import joint_transformer_bytes, unet_bytes
from ..latents.autoencoder import autoencoder_of
from ..model.components import PipelineComponents
from ..model.embeds import ImageEmbeds, PromptEmbeds
from ..model.family import Task
from ..model.laws import Guidance, StepMemory
from .masked_picture import EncodedPictures, Given, MaskedPicture
from .step_callback import StepWatcher
from .whole_steps import begun_whole, ended_whole, has_two_calls

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class DenoisingJob:
    """Everything that a family module hands to its pipeline's ``__call__``."""

    task: Task
    components: PipelineComponents
    prompt: PromptEmbeds | ImageEmbeds
    scheduler: Any
    """The run's own."""
    generators: list[torch.Generator]
    """One an image: their number is the batch."""
    steps: int
    guidance_scale: float
    on_step: StepWatcher
    extent: Extent
    """Pixels."""
    latents: torch.Tensor | None = None
    """Image-to-image and inpainting: the picture to start from, in model scale and the model's dtype."""
    strength: float = 1.0
    denoising_start: float | None = None
    denoising_end: float | None = None
    controls: tuple[ControlNetUnit, ...] = ()
    """ControlNets that steer the run, their pictures fitted to ``extent``."""
    painted_into: MaskedPicture | None = None
    """Inpainting: the mask, and what is seen through it."""
    extras: tuple[object, ...] = ()
    """What one family alone needs, each of a type of its own; others leave it unread."""

    @property
    def batch(self) -> int:
        return len(self.generators)

    def own(self, kind: type[T]) -> T:
        """The one of ``extras`` that is a ``kind``.

        Raises:
            LookupError: none is, which the run that made the job has to rule out.
        """
        for value in self.extras:
            if isinstance(value, kind):
                return value
        raise LookupError(f"the job has no {kind.__name__}")

    def common_arguments(self) -> dict[str, Any]:
        """What every pipeline's ``__call__`` takes alike."""
        return {
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance_scale,
            "generator": self.generators,
            "output_type": "latent",
            "callback_on_step_end": self.on_step,
        }


def borrow_pipeline(job: DenoisingJob, device: torch.device, without: Mapping[str, Any]) -> Any:
    """diffusers' stock pipeline round the shared modules, for one run on ``device``.

    Args:
        job: the run.
        device: where the denoiser is now. A pipeline would guess it from whichever module it holds first, and the
            autoencoder, read for its config only, may be elsewhere.
        without: constructor arguments beside the modules; the text encoders are None, because embeddings are passed.
    """
    family = job.components.family
    modules = {name: job.components[name] for name in (family.denoiser, family.autoencoder) if name}
    if job.controls:
        nets = [unit.controlnet.module for unit in job.controls]
        modules["controlnet"] = nets[0] if len(nets) == 1 else nets
    borrowed_class = _borrowed_class(family.pipeline_class(job.task, control=bool(job.controls)))
    with without_advice_on_configs():
        pipeline = borrowed_class(**modules, scheduler=job.scheduler, **without)
    pipeline.relay_device = device
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def borrow_inpainting_pipeline(
    job: DenoisingJob, device: torch.device, without: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """:func:`borrow_pipeline`, and the arguments that give it the job's picture and mask.

    The pipeline would encode the picture, and the picture less what is masked, itself. It is handed a dummy of that size, and
    the latents through a stand-in for its autoencoder.
    """
    import torch

    painted_into = job.painted_into
    assert painted_into is not None and job.latents is not None
    pipeline = borrow_pipeline(job, device, without)
    begin = [Given(one) for one in job.latents.split(1)] if painted_into.begin_is_read else []
    pipeline.vae = EncodedPictures(pipeline.vae, [*begin, *painted_into.masked])
    width, height = job.extent.width, job.extent.height
    return pipeline, {
        "image": torch.zeros(job.batch, 3, height, width),
        "mask_image": painted_into.mask,
        "width": width,
        "height": height,
        "strength": job.strength,
    }


def denoising_bytes(job: DenoisingJob) -> int:
    """For a sampling run: its batch, twice where guidance runs in one batch with it, and its ControlNets."""
    components, family = job.components, job.components.family
    denoiser = components[family.denoiser]
    rows = job.batch * (2 if job.guidance_scale > 1 and family.guidance is Guidance.ONE_BATCH else 1)
    latent_pixels = job.extent.width * job.extent.height // autoencoder_of(components).factor ** 2
    if family.memory is StepMemory.UNET:
        return unet_bytes(denoiser, rows=rows, latent_pixels=latent_pixels, controlnets=len(job.controls))
    assert isinstance(job.prompt, PromptEmbeds)
    text_tokens = job.prompt.positive.hidden.shape[1]
    return joint_transformer_bytes(denoiser, rows=rows, latent_pixels=latent_pixels, text_tokens=text_tokens)


@cache
def _borrowed_class(cls: Any) -> Any:
    """``cls`` with its device said instead of guessed, and an empty schedule refused instead of run.

    diffusers returns an empty latent where no step is left at a strength; the timesteps are kept for the mask.
    """

    def get_timesteps(self: Any, *args: Any, **kwargs: Any) -> Any:
        timesteps, count = cls.get_timesteps(self, *args, **kwargs)
        asked: int = args[0] if args else kwargs["num_inference_steps"]
        if kwargs.get("denoising_start") is not None and has_two_calls(self.scheduler):
            timesteps = begun_whole(self.scheduler, timesteps, kwargs["denoising_start"])
            count = len(timesteps)
        if len(timesteps) == 0:
            raise RelayError(
                f"steps: none of the {asked} steps is left to run. Raise strength or steps, or lower denoising_start."
            )
        self.relay_timesteps = timesteps
        if self.relay_end is not None:
            timesteps = ended_whole(self.scheduler, timesteps, self.relay_end, asked)
        return timesteps, count

    members: dict[str, Any] = {"_execution_device": property(lambda self: self.relay_device)}
    members |= {"relay_timesteps": None, "relay_end": None}
    if hasattr(cls, "get_timesteps"):
        members["get_timesteps"] = get_timesteps
    return type(cls.__name__, (cls,), members)


def repeat(tensor: torch.Tensor, batch: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """[1, ...] -> [batch, ...], on the device and in the dtype of the denoiser."""
    return tensor.to(device=device, dtype=dtype).repeat(batch, *(1 for _ in tensor.shape[1:]))
