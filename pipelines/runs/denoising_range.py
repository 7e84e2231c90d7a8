"""Which part of the noise schedule a run goes over: ``denoising_start`` and ``denoising_end``, in families that have them."""

from __future__ import annotations

from ..base.errors import RelayError
from ..device.runtime import Runtime
from ..latents.latent_space import Latents
from ..model.components import PipelineComponents
from ..model.family_table import titles_of


def families_with_range() -> str:
    """The titles of the families that can begin and stop within the schedule, for a message."""
    return titles_of(lambda family: family.has_denoising_range)


def denoising_start(
    components: PipelineComponents, asked: float, latent: Latents | None, runtime: Runtime
) -> float | None:
    """Where to go on; None: from the clean picture, by strength."""
    family = components.family
    if latent is not None and latent.noise_is_void:
        runtime.monitor.say("The latent was changed after the run that left noise in it: it is taken to be clean.")
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
        runtime.monitor.say(f"The latent was left at {left:g}; denoising_start {asked:g} is used as asked.")
    return start


def denoising_end(components: PipelineComponents, end: float, start: float | None) -> float | None:
    """None: to the end."""
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


def check_clean(latent: Latents, components: PipelineComponents, runtime: Runtime) -> None:
    """For a run that only knows a clean picture: refuses a latent that still holds noise."""
    if latent.noise_left is not None:
        raise RelayError(
            f"latent: it was left at denoising_end {latent.noise_left:g} and still holds noise, which {components.source} "
            f"({components.family.title}) would take for the picture. Let the model before this one run to the end."
        )
    if latent.noise_is_void:
        runtime.monitor.say("The latent was changed after the run that left noise in it: it is taken to be clean.")
