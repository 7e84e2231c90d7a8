"""The part of the noise schedule that a run covers: ``denoising_start`` and ``denoising_end``, for families that support them."""

from __future__ import annotations

from ..base.errors import RelayError
from ..denoising.job import DenoisingJob
from ..denoising.schedulers import SIGMA_FLAGS
from ..device.runtime import Runtime
from ..latents.latent_space import Latents
from ..model.components import PipelineComponents
from ..model.family_lookup import titles_of


def families_with_range() -> str:
    """The titles of the families that can start and stop within the schedule, for a message."""
    return titles_of(lambda family: family.has_denoising_range)


def denoising_start(
    components: PipelineComponents, asked: float, latent: Latents | None, runtime: Runtime
) -> float | None:
    """Where the run starts in the schedule; None if it starts from the clean picture and uses ``strength``.

    Args:
        asked: the input ``denoising_start``; 0 follows the latent's tag.

    Raises:
        RelayError: the start is not between 0 and 1, or the family can't start there.
    """
    family = components.family
    if latent is not None and latent.noise_is_void:
        runtime.monitor.say("The latent was changed after a run left noise in it, so it is treated as clean.")
    left = latent.noise_left if latent is not None else None
    start = asked or left
    if start is None:
        return None
    if not 0 < start < 1:
        raise RelayError(f"denoising_start: {start:g} is not between 0 (follow the latent) and 1.")
    if not family.has_denoising_range:
        reason = (
            f"denoising_start is {start:g}"
            if asked
            else f"the latent was left at denoising_end {start:g} and still holds noise"
        )
        raise RelayError(
            f"latent, denoising_start: {reason}, and {components.source} ({family.title}) can't go on from there. "
            f"Families that can: {families_with_range()}. "
            f"{'Set denoising_start to 0.' if left is None else 'Let the model before this one run to the end.'}"
        )
    if left is not None and left != start:
        runtime.monitor.say(f"The latent was left at {left:g}; denoising_start {asked:g} is used instead.")
    return start


def denoising_end(components: PipelineComponents, end: float, start: float | None) -> float | None:
    """Where the run stops in the schedule; None if it runs to the end.

    Raises:
        RelayError: the end is out of range or not after ``start``, or the family can't stop there.
    """
    if end == 1.0:
        return None
    if not 0 < end < 1:
        raise RelayError(f"denoising_end: {end:g} is not above 0 and up to 1.")
    if not components.family.has_denoising_range:
        raise RelayError(
            f"denoising_end: {components.source} ({components.family.title}) always runs to the end and can't stop at {end:g}. "
            f"Families that can: {families_with_range()}. Set it to 1."
        )
    if start is not None and start >= end:
        raise RelayError(
            f"denoising_start, denoising_end: {start:g} is not before {end:g}. Raise denoising_end or lower denoising_start."
        )
    return end


def say_steps_in_range(job: DenoisingJob, runtime: Runtime) -> None:
    """Tells the user how many steps a finished run had, if it covered a part of a schedule with respaced sigmas.

    The part is cut at a noise level, and with respaced sigmas that is not the same fraction of the steps.
    """
    spacing = next((name for name, flag in SIGMA_FLAGS.items() if job.scheduler.config.get(flag)), None)
    if spacing is None or (job.denoising_start is None and job.denoising_end is None):
        return
    ran = -(-job.on_step.steps // job.scheduler.order)
    runtime.monitor.say(
        f"{ran} of {job.steps} steps ran: denoising_start and denoising_end cut at a noise level, which {spacing} sigmas place elsewhere."
    )


def check_clean(latent: Latents, components: PipelineComponents, runtime: Runtime) -> None:
    """Refuses a latent that still holds noise, for runs that start from a clean picture."""
    if latent.noise_left is not None:
        raise RelayError(
            f"latent: it was left at denoising_end {latent.noise_left:g} and still holds noise, which {components.source} "
            f"({components.family.title}) would treat as part of the picture. Let the model before this one run to the end."
        )
    if latent.noise_is_void:
        runtime.monitor.say("The latent was changed after a run left noise in it, so it is treated as clean.")
