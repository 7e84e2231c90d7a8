"""Nodes that change a model's scheduler or VAE. Each outputs a new view of the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..pipelines.base.errors import RelayError
from ..pipelines.denoising.noise_law import schedulers_to_choose
from ..pipelines.denoising.schedulers import (
    ALGORITHM_TYPES,
    MOST_SHIFT,
    PREDICTION_TYPES,
    SIGMA_FLAGS,
    TIMESTEP_SPACINGS,
    with_scheduler,
)
from ..pipelines.model.components import SchedulerChoice
from . import comfy_host
from .wire_types import DiffusersModel

CATEGORY = f"{comfy_host.CATEGORY}/model"
DEFAULT = "default"
NONE = "none"
SCHEDULERS = [DEFAULT, *schedulers_to_choose()]


class RelaySetScheduler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelaySetScheduler",
            display_name="Set Scheduler",
            category=CATEGORY,
            description=(
                "Gives a model another scheduler. The weights are shared, and other branches of the graph keep their scheduler. "
                "Use this for models of Diffusers Relay; ComfyUI's own samplers have inputs for it."
            ),
            inputs=[
                DiffusersModel.Input("model", tooltip="The model to change."),
                io.Combo.Input(
                    "scheduler",
                    options=SCHEDULERS,
                    default=DEFAULT,
                    tooltip="The diffusers scheduler to use. default: the model's own. A scheduler that can't run the model is refused, with a list of those that can.",
                ),
                io.Combo.Input(
                    "sigmas",
                    options=[DEFAULT, *SIGMA_FLAGS],
                    default=DEFAULT,
                    tooltip="How the noise levels are spaced. default: the model's own setting.",
                ),
                io.Combo.Input(
                    "timestep_spacing",
                    options=[DEFAULT, *TIMESTEP_SPACINGS],
                    default=DEFAULT,
                    tooltip="How the steps are spread over the training schedule. default: the model's own setting.",
                ),
                io.Combo.Input(
                    "prediction_type",
                    options=[DEFAULT, *PREDICTION_TYPES],
                    default=DEFAULT,
                    optional=True,
                    tooltip="What the model was trained to predict. default: the model's own setting. Change it if a checkpoint gives only noise because nothing in it says that it is a v-prediction model.",
                    **comfy_host.advanced(io.Combo.Input),
                ),
                io.Boolean.Input(
                    "rescale_betas_zero_snr",
                    default=False,
                    optional=True,
                    tooltip="Start from pure noise (zero terminal SNR), for models that were trained so. Use it with the timestep_spacing trailing, and with guidance_rescale in Set Guidance. off: the model's own setting.",
                    **comfy_host.advanced(io.Boolean.Input),
                ),
                io.Combo.Input(
                    "algorithm_type",
                    options=[DEFAULT, *ALGORITHM_TYPES],
                    default=DEFAULT,
                    optional=True,
                    tooltip="Only for DPMSolverMultistep, DPMSolverSinglestep and EDMDPMSolverMultistep: sde-dpmsolver++ adds noise at each step. default: the scheduler's own setting.",
                    **comfy_host.advanced(io.Combo.Input),
                ),
                io.Boolean.Input(
                    "euler_at_final",
                    default=False,
                    optional=True,
                    tooltip="Only for DPMSolverMultistep and EDMDPMSolverMultistep: end with an Euler step, which avoids artifacts with few steps. off: the scheduler's own setting.",
                    **comfy_host.advanced(io.Boolean.Input),
                ),
                io.Float.Input(
                    "shift",
                    default=0.0,
                    min=0.0,
                    max=MOST_SHIFT,
                    step=0.1,
                    optional=True,
                    tooltip="Only for flow matching models, such as SD3 and Flux.1: higher values spend more of the steps on the composition, and fewer on details. 0: the model's own, which for Flux.1 dev depends on the size.",
                    **comfy_host.advanced(io.Float.Input),
                ),
            ],
            outputs=[DiffusersModel.Output(display_name="model", tooltip="The model with this scheduler.")],
            **comfy_host.found_by(
                "scheduler, sampler, euler, dpm++, ddim, lcm, tcd, karras, sigmas, timestep spacing, v-prediction, zero snr, flow, shift, modelsamplingflux"
            ),
        )

    @classmethod
    def validate_inputs(cls, scheduler: str | None = None) -> bool | str:
        return comfy_host.refusal(
            lambda value: comfy_host.check_choice("scheduler", value, SCHEDULERS),
            scheduler,
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        scheduler: str,
        sigmas: str,
        timestep_spacing: str,
        prediction_type: str = DEFAULT,
        rescale_betas_zero_snr: bool = False,
        algorithm_type: str = DEFAULT,
        euler_at_final: bool = False,
        shift: float = 0.0,
    ) -> io.NodeOutput:
        choice = SchedulerChoice(
            _or_none(scheduler),
            _or_none(sigmas),
            _or_none(timestep_spacing),
            _or_none(prediction_type),
            rescale_betas_zero_snr,
            _or_none(algorithm_type),
            euler_at_final,
            shift or None,
        )
        return io.NodeOutput(with_scheduler(model, choice))


def _or_none(value: str) -> str | None:
    return None if value == DEFAULT else value


def _check_vae_file(value: str) -> None:
    if value != NONE:
        comfy_host.pick_file("vae_file", value, "vae")


class RelaySetVae(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelaySetVae",
            display_name="Set VAE",
            category=CATEGORY,
            description=(
                "Gives a model another autoencoder (VAE), taken from another model or from a file. "
                "Use this for models of Diffusers Relay, and ComfyUI's Load VAE for ComfyUI's own nodes."
            ),
            inputs=[
                DiffusersModel.Input("model", tooltip="The model to change."),
                DiffusersModel.Input(
                    "vae_from",
                    optional=True,
                    tooltip="The model to take the autoencoder from. It must be of the same kind. Connect this, or choose a vae_file.",
                ),
                io.Combo.Input(
                    "vae_file",
                    options=[NONE, *comfy_host.safetensors_files("vae")],
                    default=NONE,
                    optional=True,
                    tooltip="A safetensors file in models/vae, made for this kind of model. none: use the autoencoder of vae_from.",
                ),
            ],
            outputs=[DiffusersModel.Output(display_name="model", tooltip="The model with the other autoencoder.")],
            **comfy_host.found_by("vae, load vae, autoencoder, taesd"),
        )

    @classmethod
    def validate_inputs(cls, vae_file: str | None = None) -> bool | str:
        return comfy_host.refusal(_check_vae_file, vae_file)

    @classmethod
    def fingerprint_inputs(cls, vae_file: str = NONE, **_: Any) -> str:
        """Changes when the file changes."""
        return NONE if vae_file == NONE else comfy_host.state_of_file("vae", vae_file)

    @classmethod
    def execute(cls, model: Any, vae_from: Any = None, vae_file: str = NONE) -> io.NodeOutput:
        from ..pipelines.latents.other_autoencoder import with_vae_file, with_vae_of
        from ..pipelines.loading.single_parts import load_vae_file

        if (vae_from is None) == (vae_file == NONE):
            raise RelayError(
                "vae_from, vae_file: use exactly one of them. Connect a model to vae_from and set vae_file to none, or choose a file "
                "and leave vae_from unconnected."
            )
        if vae_from is not None:
            return io.NodeOutput(with_vae_of(model, vae_from))
        path = Path(comfy_host.pick_file("vae_file", vae_file, "vae"))
        module = load_vae_file(path, model.dtype, family=model.family, source=vae_file)
        return io.NodeOutput(with_vae_file(model, module, source=vae_file))
