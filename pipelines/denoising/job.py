"""One denoising run, as the family modules see it, and the diffusers pipeline object that is built for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from ..adapters.ip_adapter import scales_at
from ..adapters.ip_adapter_values import IpAdapterUnit
from ..base.errors import RelayError
from ..base.images import Extent
from ..base.library_log import without_advice_on_configs
from ..control.fitting import control_nets
from ..control.units import ControlNetUnit, has_unions
from ..device.working_memory import joint_transformer_bytes, single_stream_bytes, transformer_bytes, unet_bytes
from ..latents.autoencoder import autoencoder_of
from ..model.components import PipelineComponents
from ..model.embeds import ImageEmbeds, PromptEmbeds
from ..model.family import Task
from ..model.laws import Guidance, StepMemory
from .masked_picture import EncodedPictures, FixedLatents, MaskedPicture
from .step_callback import StepWatcher
from .whole_steps import begun_whole, ended_whole, has_two_calls

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class DenoisingJob:
    """Everything that a family module passes to its pipeline's ``__call__``."""

    task: Task
    components: PipelineComponents
    prompt: PromptEmbeds | ImageEmbeds
    scheduler: Any
    """A scheduler object that only this run uses."""
    generators: list[torch.Generator]
    """One per image; their number is the batch size."""
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
    """ControlNets for the run, with pictures that fit ``extent``."""
    ip_adapters: tuple[IpAdapterUnit, ...] = ()
    """IP-Adapters for the run, with masks that fit ``extent``."""
    masked_picture: MaskedPicture | None = None
    """Inpainting: the mask and the masked picture."""
    eta: float = 0.0
    """0 to 1, for schedulers that read it."""
    true_cfg_scale: float = 1.0
    """Above 1: guides away from the negative prompt, besides a guidance scale that the denoiser reads."""
    extras: tuple[object, ...] = ()
    """Values that only one family needs, each of its own type. Other families ignore them."""

    @property
    def batch(self) -> int:
        return len(self.generators)

    @property
    def is_guided(self) -> bool:
        """Whether the pipeline predicts with and without the prompt in one batch."""
        family = self.components.family
        if self.guidance_scale <= 1 or family.guidance is not Guidance.ONE_BATCH:
            return False
        return self.components[family.denoiser].config.get("time_cond_proj_dim") is None

    def own(self, kind: type[T]) -> T:
        """The value in ``extras`` that is a ``kind``.

        Raises:
            LookupError: there is none. The run that makes the job must prevent this.
        """
        for value in self.extras:
            if isinstance(value, kind):
                return value
        raise LookupError(f"the job has no {kind.__name__}")

    def common_arguments(self) -> dict[str, Any]:
        """Arguments that every pipeline's ``__call__`` takes."""
        return {
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance_scale,
            "generator": self.generators,
            "output_type": "latent",
            "callback_on_step_end": self.on_step,
        }


def borrow_pipeline(job: DenoisingJob, device: torch.device, without: Mapping[str, Any]) -> Any:
    """diffusers' stock pipeline around the shared modules, for one run on ``device``.

    Args:
        job: the run.
        device: where the denoiser is now. A pipeline would take the device of its first module, and that may be the
            autoencoder, which is used only for its config and may be on another device.
        without: constructor arguments besides the modules. The text encoders are None, because embeddings are passed.
    """
    family = job.components.family
    modules = {name: job.components[name] for name in (family.denoiser, family.autoencoder) if name}
    if job.controls:
        nets = control_nets(job.controls)
        modules["controlnet"] = nets[0] if len(nets) == 1 else nets
    guidance = job.components.guidance
    layers = {"pag_applied_layers": list(guidance.pag_layers)} if guidance.has_pag else {}
    kind = {"control": bool(job.controls), "union": has_unions(job.controls), "pag": guidance.has_pag}
    borrowed_class = _borrowed_class(family.pipeline_class(job.task, **kind))
    with without_advice_on_configs():
        pipeline = borrowed_class(**modules, scheduler=job.scheduler, **without, **layers)
    pipeline.relay_device, pipeline.relay_ip_adapters = device, job.ip_adapters
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def borrow_inpainting_pipeline(
    job: DenoisingJob, device: torch.device, without: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """As :func:`borrow_pipeline`, with the arguments that pass the job's picture and mask.

    The pipeline would encode the picture and the masked picture itself. Instead it gets a dummy of that size, and a stand-in for
    its autoencoder that returns the latents.
    """
    import torch

    masked_picture = job.masked_picture
    assert masked_picture is not None and job.latents is not None
    pipeline = borrow_pipeline(job, device, without)
    begin = [FixedLatents(one) for one in job.latents.split(1)] if masked_picture.encodes_picture else []
    pipeline.vae = EncodedPictures(pipeline.vae, [*begin, *masked_picture.masked])
    width, height = job.extent.width, job.extent.height
    return pipeline, {
        "image": torch.zeros(job.batch, 3, height, width),
        "mask_image": masked_picture.mask,
        "width": width,
        "height": height,
        "strength": job.strength,
    }


def legacy_callback(pipeline: Any, job: DenoisingJob) -> Callable[[int, Any, torch.Tensor], None]:
    """The ``callback`` for a pipeline of :func:`borrow_pipeline` that does not support ``callback_on_step_end``.

    Such a pipeline ignores what its callback returns, so with a mask the latents are changed in place.
    """

    def callback(step: int, timestep: Any, latents: torch.Tensor) -> None:
        timesteps = pipeline.scheduler.timesteps if pipeline.relay_timesteps is None else pipeline.relay_timesteps
        total = -(-len(timesteps) // pipeline.scheduler.order)
        kept = job.on_step.after_step(step, total, timesteps, latents)
        if kept is not latents:
            latents.copy_(kept)

    return callback


def denoising_bytes(job: DenoisingJob) -> int:
    """Working memory of a sampling run, in bytes: its batch (more rows if guidance runs in the same batch), its ControlNets and
    what its IP-Adapters make of their pictures."""
    components, family = job.components, job.components.family
    denoiser = components[family.denoiser]
    rows = job.batch * (2 if job.guidance_scale > 1 and family.guidance is Guidance.ONE_BATCH else 1)
    if components.guidance.has_pag:
        rows += job.batch  # the perturbed prediction
    latent_pixels = job.extent.width * job.extent.height // autoencoder_of(components).factor ** 2
    if family.memory is StepMemory.UNET:
        pictures = sum(
            transformer_bytes(
                denoiser,
                rows=rows,
                tokens=unit.positive[..., 0].numel() + unit.pictures * unit.adapter.kind.tokens,
                width=width,
            )
            for unit in job.ip_adapters
            for width in [max(unit.positive.shape[-1], unit.adapter.kind.text_width)]
        )
        nets = len(control_nets(job.controls))
        return pictures + unet_bytes(denoiser, rows=rows, latent_pixels=latent_pixels, controlnets=nets)
    assert isinstance(job.prompt, PromptEmbeds)
    text_tokens = job.prompt.positive.hidden.shape[1]
    if family.memory is StepMemory.SINGLE_STREAM:
        patches = latent_pixels // family.packed**2
        return single_stream_bytes(denoiser, rows=rows, patches=patches, text_tokens=text_tokens)
    return joint_transformer_bytes(denoiser, rows=rows, latent_pixels=latent_pixels, text_tokens=text_tokens)


@cache
def _borrowed_class(cls: Any) -> Any:
    """``cls`` with an explicit device, and with an error for an empty schedule.

    diffusers returns an empty latent if the strength leaves no step. The timesteps are kept for the mask.
    """

    def get_timesteps(self: Any, *args: Any, **kwargs: Any) -> Any:
        timesteps, count = cls.get_timesteps(self, *args, **kwargs)
        steps: int = args[0] if args else kwargs["num_inference_steps"]
        if kwargs.get("denoising_start") is not None and has_two_calls(self.scheduler):
            timesteps = begun_whole(self.scheduler, timesteps, kwargs["denoising_start"])
            count = len(timesteps)
        if len(timesteps) == 0:
            raise RelayError(
                f"steps: none of the {steps} steps is left to run. Raise strength or steps, or lower denoising_start."
            )
        self.relay_timesteps = timesteps
        if self.relay_end is not None:
            timesteps = ended_whole(self.scheduler, timesteps, self.relay_end, steps)
        return timesteps, count

    def before_step(self: Any, step: int) -> None:
        if self.relay_ip_adapters and step < self.num_timesteps:
            self.set_ip_adapter_scale(scales_at(self.relay_ip_adapters, step, self.num_timesteps))

    def progress_bar(self: Any, *args: Any, **kwargs: Any) -> Any:  # called once, just before the first step
        before_step(self, 0)
        return cls.progress_bar(self, *args, **kwargs)

    members: dict[str, Any] = {"_execution_device": property(lambda self: self.relay_device)}
    members |= {"relay_timesteps": None, "relay_end": None, "relay_ip_adapters": ()}
    members |= {"relay_before_step": before_step, "progress_bar": progress_bar}
    if hasattr(cls, "get_timesteps"):
        members["get_timesteps"] = get_timesteps
    return type(cls.__name__, (cls,), members)


def repeat(tensor: torch.Tensor, batch: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """[1, ...] -> [batch, ...], on the device and in the dtype of the denoiser."""
    return tensor.to(device=device, dtype=dtype).repeat(batch, *(1 for _ in tensor.shape[1:]))
