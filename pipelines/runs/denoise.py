"""The denoising stage of every run. Only the denoiser, its ControlNets and IP-Adapters are on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..adapters.ip_adapter import active_ip_adapters, ip_adapter_modules
from ..adapters.lora import active_loras
from ..base.errors import RelayError
from ..control.fitting import control_modules
from ..denoising.guidance import attention_kept
from ..denoising.job import DenoisingJob, denoising_bytes
from ..denoising.optimising import in_force
from ..device.offload import Stage
from ..device.runtime import Runtime
from ..families.family_runs import run_of
from .result_check import check_painted

if TYPE_CHECKING:
    import torch


def denoise(jobs: Sequence[DenoisingJob], runtime: Runtime) -> list[torch.Tensor]:
    """Returns each job's latents in model scale, on the output device.

    Args:
        jobs: runs of one model at one size, usually only one. They run one after the other.
        runtime: the devices, and the monitor for progress and cancel.

    Raises:
        RelayError: no step lies before ``denoising_end``, or the latents have NaN or infinite values.
    """
    first = jobs[0]
    components = first.components
    run = run_of(components.family, first.task)
    denoiser = components.family.denoiser
    networks = [components[denoiser], *control_modules(first.controls)]
    modules = [*networks, *ip_adapter_modules(first.ip_adapters)]
    runtime.monitor.check()
    previews = runtime.monitor.expect_latents()
    painted = []
    with (
        runtime.policy.on_device(Stage.DENOISE, modules, denoising_bytes(first)) as device,
        active_loras(components, [denoiser]),
        in_force(components, networks, runtime.monitor),
        attention_kept(components),
        active_ip_adapters(components, first.ip_adapters),
    ):
        for job in jobs:
            if previews:
                job.on_step.show_clean(job.scheduler)
            latents = run(job, device)
            if job.on_step.steps == 0:
                if job.denoising_end is None:  # a fault of the family's module: its runs can't be cancelled
                    raise RuntimeError(f"{components.family.name}: the run reported no step")
                raise RelayError(
                    f"denoising_end, steps: none of the {job.steps} steps lies before {job.denoising_end:g}. Raise denoising_end or steps."
                )
            check_painted(latents, components)
            painted.append(latents)
    output_device = runtime.policy.output_device()
    return [latents.to(output_device) for latents in painted]
