"""ControlNets in a run: checks that they fit the model, and builds the arguments of diffusers' ControlNet pipelines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..base.images import Extent
from ..base.monitor import Monitor
from ..latents.autoencoder import autoencoder_of
from ..model.components import PipelineComponents
from ..model.family import Task
from ..model.family_lookup import titles_of
from .units import ControlNetUnit, fit_picture, has_unions

if TYPE_CHECKING:
    import torch

SHARED_CONFIG = {
    "ControlNetModel": {
        "cross_attention_dim": "the width of the prompt embeddings",
        "addition_embed_type": "what is added to the time embedding",
        "projection_class_embeddings_input_dim": "the width of what is added to the time embedding",
        "block_out_channels": "the widths of the blocks",
        "layers_per_block": "the layers of each block",
    },
}
SHARED_CONFIG["ControlNetUnionModel"] = SHARED_CONFIG["ControlNetModel"]
"""ControlNet class -> config entries that are the same in it and in the denoiser that it was made for, with their meaning."""


def fit_controls(
    control: Sequence[Any], components: PipelineComponents, task: Task, extent: Extent, batch: int
) -> tuple[ControlNetUnit, ...]:
    """Checks the units of one run before anything runs, and scales their pictures to its size.

    Args:
        control: the value of the ``control`` input.
        components: the model that paints.
        task: the task of the run.
        extent: the painted size.
        batch: the number of painted pictures.

    Raises:
        RelayError: an entry is not a ControlNet unit, the model or the task does not take ControlNets, a ControlNet is
            for another family or has another dtype, or a unit has neither 1 nor ``batch`` pictures.
    """
    if not control:
        return ()
    family, source = components.family, components.source
    if not all(isinstance(unit, ControlNetUnit) for unit in control):
        raise RelayError(
            f"control: {source} ({family.title}) can't be steered by what is connected. Connect the output of Apply ControlNet (Diffusers)."
        )
    if task not in family.control_pipeline_classes:
        able = titles_of(lambda one: task in one.control_pipeline_classes)
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
    _check_inpainting_union(control, components, task)
    _check_pooling(control)
    return tuple(fit_picture(unit, extent) for unit in control)


def _check_inpainting_union(controls: Sequence[ControlNetUnit], components: PipelineComponents, task: Task) -> None:
    """Refuses a denoiser that sees the mask: diffusers' inpainting with ControlNet Unions only runs a plain one."""
    channels = components[components.family.denoiser].config.in_channels
    if task is Task.INPAINT and has_unions(controls) and channels != autoencoder_of(components).channels:
        raise RelayError(
            f"control: diffusers can't inpaint with a ControlNet Union ({controls[0].controlnet.title}) and a model for inpainting. "
            f"{components.source} is one. Use the plain model, with the Union's mode repaint if it has it, or an ordinary ControlNet."
        )


def _check_fits(unit: ControlNetUnit, components: PipelineComponents) -> None:
    family, controlnet, title = components.family, unit.controlnet.module, unit.controlnet.title
    class_name = type(controlnet).__name__
    if not any(kind is not None and class_name in kind.names for kind in (family.controlnet, family.controlnet_union)):
        raise RelayError(
            f"control: {title} is a {class_name}, which {components.source} ({family.title}) can't use. Load a ControlNet for {family.title}."
        )
    denoiser = components[family.denoiser]
    for name, meaning in SHARED_CONFIG[class_name].items():
        in_controlnet, in_model = _plain(controlnet.config.get(name)), _plain(denoiser.config.get(name))
        if in_controlnet != in_model:
            raise RelayError(
                f"control: {title} was made for another kind of model than {components.source} ({family.title}): "
                f"{name} ({meaning}) is {in_controlnet} in the ControlNet and {in_model} in the model. Load a ControlNet for "
                f"{family.title}."
            )
    for name, expected in (("in_channels", autoencoder_of(components).channels), ("conditioning_channels", 3)):
        if controlnet.config.get(name, expected) != expected:
            raise RelayError(
                f"control: {title} has {controlnet.config[name]} {name}, but a ControlNet for {family.title} has {expected}. "
                "Load another ControlNet."
            )
    if controlnet.dtype != components.dtype:
        raise RelayError(
            f"control: {title} is loaded in {_dtype(controlnet.dtype)} and {components.source} in {_dtype(components.dtype)}. "
            "Choose the same dtype in both loaders."
        )


def _plain(value: Any) -> Any:
    """A list with the same value for every block becomes that value, because diffusers accepts both forms."""
    if isinstance(value, (list, tuple)):
        return value[0] if len(set(value)) == 1 else list(value)
    return value


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _pooled(controls: Sequence[ControlNetUnit]) -> list[bool]:
    """Which units have a ControlNet whose output is averaged over the picture: a shuffle ControlNet."""
    return [bool(unit.controlnet.module.config.get("global_pool_conditions")) for unit in controls]


def _check_pooling(controls: Sequence[ControlNetUnit]) -> None:
    pooled = _pooled(controls)
    if pooled[0] and not all(pooled):  # diffusers adds the others to its small output in place
        raise RelayError(
            f"control: {controls[0].controlnet.title} is a shuffle ControlNet, and diffusers can't add the output of other ControlNets to its own. "
            "Apply it after the others."
        )


def say_pooling(controls: Sequence[ControlNetUnit], monitor: Monitor) -> None:
    """Says what a shuffle ControlNet does after others: diffusers asks only the first ControlNet for ``global_pool_conditions``."""
    pooled = _pooled(controls)
    if any(pooled) and not pooled[0]:
        shuffle, first = controls[pooled.index(True)].controlnet.title, controls[0].controlnet.title
        monitor.say(
            f"{shuffle} is a shuffle ControlNet, but diffusers asks only the first ControlNet ({first}) whether it is one. So it also steers "
            "the prediction for the negative prompt here."
        )


def control_modules(controls: Sequence[ControlNetUnit]) -> list[torch.nn.Module]:
    """The modules of a run's ControlNets, each one once. They are on the device together with the denoiser."""
    return list({id(unit.controlnet.module): unit.controlnet.module for unit in controls}.values())


def control_nets(controls: Sequence[ControlNetUnit]) -> list[torch.nn.Module]:
    """The modules as a pipeline gets them: one for each unit, but a ControlNet Union once for all its modes."""
    return control_modules(controls) if has_unions(controls) else [unit.controlnet.module for unit in controls]


def control_arguments(controls: Sequence[ControlNetUnit], task: Task) -> dict[str, Any]:
    """The additional arguments of the ControlNet pipelines; empty for a run without ControlNets.

    For a single ControlNet, ``image`` and scale are plain values; for several, they are lists. For ControlNet Unions, all are lists.
    """
    if not controls:
        return {}
    if has_unions(controls):
        return _union_arguments(controls)
    pictures = [unit.image.movedim(-1, 1) for unit in controls]  # [1 or B, 3, H, W] in 0..1
    scales = [unit.conditioning_scale for unit in controls]
    single = len(controls) == 1
    return {
        "image" if task is Task.TEXT_TO_IMAGE else "control_image": pictures[0] if single else pictures,
        "controlnet_conditioning_scale": scales[0] if single else scales,
        "control_guidance_start": [unit.start for unit in controls],
        "control_guidance_end": [unit.end for unit in controls],
        # off is their default, and those with PAG that don't know it are only run without it
        **({"guess_mode": True} if controls[0].guess_mode else {}),
    }


def _union_arguments(controls: Sequence[ControlNetUnit]) -> dict[str, Any]:
    return {
        "control_image": [unit.image.movedim(-1, 1) for unit in controls],  # each [1 or B, 3, H, W] in 0..1
        "control_mode": [unit.mode for unit in controls],
        "controlnet_conditioning_scale": [unit.conditioning_scale for unit in controls],
        "control_guidance_start": [unit.start for unit in controls],
        "control_guidance_end": [unit.end for unit in controls],
        "guess_mode": controls[0].guess_mode,
    }


def step_callback_to(
    end: float, scheduler: Any, on_step: Callable[..., dict[str, Any]]
) -> Callable[..., dict[str, Any]]:
    """``callback_on_step_end`` for a run that stops at ``end``.

    Unlike the SDXL pipeline without ControlNets, the one with ControlNets also counts the steps that it skips, so that
    the progress would never reach its end.
    """
    trained = scheduler.config.num_train_timesteps
    cutoff = round(trained - end * trained)  # as the pipeline computes it

    def counted(pipeline: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        pipeline._num_timesteps = int((pipeline.scheduler.timesteps >= cutoff).sum())
        return on_step(pipeline, step, timestep, values)

    return counted
