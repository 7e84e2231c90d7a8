"""Rescaled guidance, perturbed attention guidance (PAG), true_cfg_scale and eta: checks that a run's pipeline reads them, and its arguments for them."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..base.monitor import Monitor
from ..control.units import ControlNetUnit, has_unions
from ..model.components import PipelineComponents
from ..model.embeds import PromptEmbeds
from ..model.family import ModelFamily, Task
from ..model.family_lookup import titles_of
from ..model.guidance import GuidanceOptions
from ..model.laws import Guidance
from .schedulers import build_scheduler

if TYPE_CHECKING:
    from .job import DenoisingJob

LAYER = re.compile(r"[A-Za-z0-9_.]+")
"""diffusers takes a regular expression. Some of them never come to an end, so only plain names are passed on."""
NO_RESCALE_WITH_PAG = frozenset({"StableDiffusionPAGInpaintPipeline"})
"""diffusers' classes that take both, but stop with an UnboundLocalError if both are used; test_guidance.py shows when that is fixed."""


def with_guidance(
    components: PipelineComponents, rescale: float, pag_scale: float, pag_layers: str
) -> PipelineComponents:
    """A view of the model with other guidance.

    Args:
        components: the model.
        rescale: 0 to 1.
        pag_scale: 0 turns PAG off.
        pag_layers: names of layers, separated by commas, as diffusers' ``pag_applied_layers``.

    Raises:
        RelayError: a value is out of range, the family's pipelines don't read it, or the denoiser has no such layer.
    """
    family, source = components.family, components.source
    if not (math.isfinite(rescale) and 0 <= rescale <= 1):
        raise RelayError(f"guidance_rescale: {rescale:g} is not between 0 and 1.")
    if not (math.isfinite(pag_scale) and pag_scale >= 0):
        raise RelayError(f"pag_scale: {pag_scale:g} is below 0. Use 0 to turn it off, or a positive number such as 3.")
    if rescale and not _tasks_with(family, "guidance_rescale"):
        raise RelayError(
            f"guidance_rescale: the pipelines of {source} ({family.title}) don't use it. Families that do: "
            f"{titles_of(lambda one: bool(_tasks_with(one, 'guidance_rescale')))}. Set it to 0."
        )
    if pag_scale and not family.pag_pipeline_classes:
        raise RelayError(
            f"pag_scale: diffusers has no PAG for {source} ({family.title}). Families that have it: "
            f"{titles_of(lambda one: bool(one.pag_pipeline_classes))}. Set it to 0."
        )
    layers = tuple(part.strip() for part in pag_layers.split(",") if part.strip())
    if pag_scale:
        _check_layers(layers, components)
    return components.with_changes(guidance=GuidanceOptions(rescale, pag_scale, layers if pag_scale else ()))


def check_guidance(components: PipelineComponents, task: Task, controls: Sequence[ControlNetUnit], eta: float) -> None:
    """Refuses guidance and eta that the run would ignore.

    Args:
        components: the model, with its guidance.
        task: the task of the run.
        controls: its ControlNets.
        eta: the input.

    Raises:
        RelayError: diffusers has no PAG pipeline for the task, or its pipeline or scheduler does not read a value that is set.
    """
    family, source, guidance = components.family, components.source, components.guidance
    controlled, union = bool(controls), has_unions(controls)
    what = f"{task.value}{' with ControlNet Unions' if union else ' with ControlNets' if controlled else ''}"
    if guidance.has_pag and union:
        raise RelayError(
            f"pag_scale: diffusers has no PAG for {what}. Set it to 0 in Set Guidance, or use an ordinary ControlNet."
        )
    if guidance.has_pag:
        classes = family.pag_control_pipeline_classes if controlled else family.pag_pipeline_classes
        if task not in classes:
            raise RelayError(
                f"pag_scale: diffusers has no PAG for {what} with {source} ({family.title}). It has it for: "
                f"{', '.join(_with_pag(family))}. Set it to 0 in Set Guidance."
            )
    cls: Any = family.pipeline_class(task, control=controlled, union=union, pag=guidance.has_pag)
    takes = inspect.signature(cls.__call__).parameters
    if guidance.rescale and "guidance_rescale" not in takes:
        raise RelayError(
            f"guidance_rescale: diffusers' {what} with {source} ({family.title}) doesn't use it. It is used in: "
            f"{', '.join(_tasks_with(family, 'guidance_rescale'))}. Set it to 0 in Set Guidance."
        )
    if guidance.rescale and guidance.has_pag and cls.__name__ in NO_RESCALE_WITH_PAG:
        raise RelayError(
            f"guidance_rescale, pag_scale: diffusers can't combine them in {what} with {source} ({family.title}). "
            "Set one of them to 0 in Set Guidance."
        )
    if controlled and controls[0].guess_mode and "guess_mode" not in takes:
        raise RelayError(
            f"guess_mode, pag_scale: diffusers can't combine them in {what} with {source} ({family.title}). "
            "Switch guess_mode off, or set pag_scale to 0 in Set Guidance."
        )
    _check_eta(eta, "eta" in takes, components)


def check_guess_mode(controls: Sequence[ControlNetUnit], guidance_scale: float) -> None:
    """
    Raises:
        RelayError: ``guess_mode`` is on for a ControlNet Union in a run with guidance, where diffusers stops with a RuntimeError
            (test_control_union.py shows when that is fixed).
    """
    if has_unions(controls) and controls[0].guess_mode and guidance_scale > 1:
        raise RelayError(
            f"guess_mode, guidance_scale: with a ControlNet Union ({controls[0].controlnet.title}), diffusers can't use guess_mode at a "
            f"guidance_scale above 1 (it is {guidance_scale:g}). Switch guess_mode off in Apply ControlNet (Diffusers)."
        )


def _check_eta(eta: float, is_taken: bool, components: PipelineComponents) -> None:
    if not (math.isfinite(eta) and 0 <= eta <= 1):
        raise RelayError(f"eta: {eta:g} is not between 0 and 1.")
    if not eta:
        return
    if not is_taken:
        raise RelayError(
            f"eta: the pipelines of {components.source} ({components.family.title}) don't use it. Set eta to 0."
        )
    scheduler = build_scheduler(components)
    if "eta" not in inspect.signature(scheduler.step).parameters:
        raise RelayError(
            f"eta: {type(scheduler).__name__} doesn't use it. Set eta to 0, or choose a scheduler that uses it in Set Scheduler, such as DDIMScheduler."
        )


def families_with_true_cfg() -> str:
    """The titles of the families that read ``true_cfg_scale``, for a message."""
    return titles_of(lambda family: family.has_true_cfg)


def check_true_cfg(components: PipelineComponents, true_cfg_scale: float) -> None:
    """
    Raises:
        RelayError: ``true_cfg_scale`` is below 1, or is set for a family whose pipelines do not read it.
    """
    if not (math.isfinite(true_cfg_scale) and true_cfg_scale >= 1):
        raise RelayError(
            f"true_cfg_scale: {true_cfg_scale:g} is too small. Use 1 to turn it off, or a larger number such as 4."
        )
    if true_cfg_scale > 1 and not components.family.has_true_cfg:
        raise RelayError(
            f"true_cfg_scale: the pipelines of {components.source} ({components.family.title}) don't use it. Families that do: "
            f"{families_with_true_cfg()}. Set it to 1."
        )


def say_unused_guidance(job: DenoisingJob, monitor: Monitor) -> None:
    """Tells the user which of the run's guidance its model does not read."""
    components, family = job.components, job.components.family
    if family.guidance is not Guidance.EMBEDDED:
        return
    what = f"{components.source} ({family.title})"
    if components[family.denoiser].config.get("guidance_embeds") is False:
        monitor.say(f"guidance_scale is not used: {what} was trained without it.")
    if isinstance(job.prompt, PromptEmbeds) and job.prompt.has_negative and job.true_cfg_scale <= 1:
        instead = " Set true_cfg_scale above 1 to use it." if family.has_true_cfg else ""
        monitor.say(f"The negative prompt is not used: guidance_scale of {what} needs none.{instead}")


def guidance_arguments(job: DenoisingJob) -> dict[str, Any]:
    """The arguments of a pipeline's ``__call__`` for what is set; empty if nothing is."""
    guidance, arguments = job.components.guidance, dict[str, Any]()
    if guidance.rescale:
        arguments["guidance_rescale"] = guidance.rescale
    if guidance.has_pag:
        arguments["pag_scale"] = guidance.pag_scale
    if job.eta:
        arguments["eta"] = job.eta
    return arguments


@contextmanager
def attention_kept(components: PipelineComponents) -> Iterator[None]:
    """Restores the denoiser's attention processors after a run with PAG: if it is cancelled, diffusers leaves its own in place."""
    if not components.guidance.has_pag:
        yield
        return
    denoiser = components[components.family.denoiser]
    before = dict(denoiser.attn_processors)
    try:
        yield
    finally:
        denoiser.set_attn_processor(before)


def _check_layers(layers: Sequence[str], components: PipelineComponents) -> None:
    own = self_attention_layers(components)
    there_are = f"{components.source} has: mid, {', '.join(own)}"
    if not layers:
        raise RelayError(f"pag_layers: it is empty. Enter names of layers, separated by commas. {there_are}.")
    for layer in layers:
        if not LAYER.fullmatch(layer):
            raise RelayError(
                f"pag_layers: {layer!r} is not the name of a layer. Use letters, digits, dots and underscores, and commas between names. {there_are}."
            )
        if not any(re.search(layer, name) for name in own):
            raise RelayError(f"pag_layers: {layer!r} matches no layer with self-attention. {there_are}.")


def self_attention_layers(components: PipelineComponents) -> list[str]:
    """The names of the denoiser's blocks with self-attention, which are those that PAG can perturb."""
    from diffusers.models.attention_processor import Attention

    names = [
        name.split(".transformer_blocks")[0]
        for name, module in components[components.family.denoiser].named_modules()
        if isinstance(module, Attention) and not module.is_cross_attention
    ]
    return list(dict.fromkeys(names))


def _tasks_with(family: ModelFamily, argument: str) -> list[str]:
    """The tasks whose pipelines take an argument, for a message."""
    found = []
    kinds: dict[str, tuple[Mapping[Task, str], dict[str, bool]]] = {
        "": (family.pipeline_classes, {}),
        " with ControlNets": (family.control_pipeline_classes, {"control": True}),
        " with ControlNet Unions": (family.union_pipeline_classes, {"union": True}),
    }
    for words, (classes, kind) in kinds.items():
        for task in classes:
            cls: Any = family.pipeline_class(task, **kind)
            if argument in inspect.signature(cls.__call__).parameters:
                found.append(f"{task.value}{words}")
    return found


def _with_pag(family: ModelFamily) -> list[str]:
    plain = [task.value for task in family.pag_pipeline_classes]
    return plain + [f"{task.value} with ControlNets" for task in family.pag_control_pipeline_classes]
