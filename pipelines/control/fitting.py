"""ControlNets in a run: what fits which model, and what diffusers' ControlNet pipelines are called with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..base.images import Extent
from ..latents.autoencoder import autoencoder_of
from ..model.components import PipelineComponents
from ..model.family import Task
from ..model.family_table import FAMILIES
from .units import ControlNetUnit, fit_picture

if TYPE_CHECKING:
    import torch

SAME_IN_BOTH = {
    "cross_attention_dim": "the width of the prompt embeddings",
    "addition_embed_type": "what is added to the time embedding",
    "projection_class_embeddings_input_dim": "the width of what is added to the time embedding",
    "block_out_channels": "the widths of the blocks",
    "layers_per_block": "the layers of each block",
}
"""Config entries that a ControlNet has from the UNet that it was made for."""


def fit_controls(
    control: Sequence[Any], components: PipelineComponents, task: Task, extent: Extent, batch: int
) -> tuple[ControlNetUnit, ...]:
    """The units for one run, their pictures in its size; everything that can't work is refused before anything runs.

    Args:
        control: what the ``control`` input holds.
        components: the model that paints.
        task: what the run is.
        extent: the size that it paints.
        batch: how many pictures it paints.

    Raises:
        RelayError: no ControlNet units, a model or task that takes none, a ControlNet of another family or dtype, a
            batch of control pictures that is neither 1 nor ``batch``.
    """
    if not control:
        return ()
    family, source = components.family, components.source
    if not all(isinstance(unit, ControlNetUnit) for unit in control):
        raise RelayError(
            f"control: {source} ({family.title}) can't be steered by what is connected. Connect the output of Apply ControlNet (Diffusers)."
        )
    if task not in family.control_pipeline_classes:
        able = ", ".join(f.title for f in FAMILIES if task in f.control_pipeline_classes)
        raise RelayError(
            f"control: {source} ({family.title}) takes no ControlNets in {task.value}. Leave control unconnected, or use a model "
            f"that takes them: {able}."
        )
    for unit in control:
        _check_fits(unit, components)
        if unit.image.shape[0] not in (1, batch):
            raise RelayError(
                f"control: {unit.controlnet.title} was given {unit.image.shape[0]} control pictures, and {batch} "
                f"{'picture is' if batch == 1 else 'pictures are'} painted. Connect one picture for all, or one for each."
            )
    return tuple(fit_picture(unit, extent) for unit in control)


def _check_fits(unit: ControlNetUnit, components: PipelineComponents) -> None:
    unet, net, title = components[components.family.denoiser], unit.controlnet.module, unit.controlnet.title
    for name, meaning in SAME_IN_BOTH.items():
        theirs, ours = _plain(net.config.get(name)), _plain(unet.config.get(name))
        if theirs != ours:
            raise RelayError(
                f"control: {title} was made for another kind of model than {components.source} ({components.family.title}): "
                f"{name} ({meaning}) is {theirs} in the ControlNet and {ours} in the model. Load a ControlNet for "
                f"{components.family.title}."
            )
    for name, wanted in (("in_channels", autoencoder_of(components).channels), ("conditioning_channels", 3)):
        if net.config.get(name, wanted) != wanted:
            raise RelayError(
                f"control: {title} has {net.config[name]} {name}, but a ControlNet for {components.family.title} has {wanted}. "
                "Load another ControlNet."
            )
    if net.dtype != components.dtype:
        raise RelayError(
            f"control: {title} is loaded in {_dtype(net.dtype)} and {components.source} in {_dtype(components.dtype)}. "
            "Choose the same dtype in both loaders."
        )


def _plain(value: Any) -> Any:
    """A list that every block has alike counts as the one value: diffusers takes both forms."""
    if isinstance(value, (list, tuple)):
        return value[0] if len(set(value)) == 1 else list(value)
    return value


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def control_modules(controls: Sequence[ControlNetUnit]) -> list[torch.nn.Module]:
    """Each ControlNet of a run once, to be on the device beside the denoiser."""
    return list({id(unit.controlnet.module): unit.controlnet.module for unit in controls}.values())


def control_arguments(controls: Sequence[ControlNetUnit], task: Task) -> dict[str, Any]:
    """What the ControlNet pipelines take beside the others' arguments; nothing for a run with no ControlNet.

    A single ControlNet takes plain values, and several take lists.
    """
    if not controls:
        return {}
    pictures = [unit.image.movedim(-1, 1) for unit in controls]  # [1 or B, 3, H, W] in 0..1
    scales = [unit.conditioning_scale for unit in controls]
    single = len(controls) == 1
    return {
        "image" if task is Task.TEXT_TO_IMAGE else "control_image": pictures[0] if single else pictures,
        "controlnet_conditioning_scale": scales[0] if single else scales,
        "control_guidance_start": [unit.start for unit in controls],
        "control_guidance_end": [unit.end for unit in controls],
        "guess_mode": controls[0].guess_mode,
    }


def step_callback_to(
    end: float, scheduler: Any, on_step: Callable[..., dict[str, Any]]
) -> Callable[..., dict[str, Any]]:
    """``callback_on_step_end`` for a run that stops at ``end``.

    The SDXL ControlNet pipeline counts the steps that it then leaves out too, where its sister without ControlNets does
    not: progress would stop short of its end.
    """
    trained = scheduler.config.num_train_timesteps
    cutoff = round(trained - end * trained)  # as the pipeline has it

    def counted(pipeline: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        pipeline._num_timesteps = int((pipeline.scheduler.timesteps >= cutoff).sum())
        return on_step(pipeline, step, timestep, values)

    return counted
