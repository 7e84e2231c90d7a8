"""Nodes that change a model: each gives a new view of the same weights."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..pipelines.components import SchedulerChoice
from ..pipelines.family import KARRAS_DIFFUSION_SCHEDULERS
from ..pipelines.schedulers import SIGMA_FLAGS, TIMESTEP_SPACINGS, with_scheduler
from . import comfy_host
from .wire_types import DiffusersModel

CATEGORY = f"{comfy_host.CATEGORY}/model"
DEFAULT = "default"


class RelaySetScheduler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelaySetScheduler",
            display_name="Set Scheduler",
            category=CATEGORY,
            description="The same model with another scheduler. The weights are shared; other branches of the graph keep theirs.",
            inputs=[
                DiffusersModel.Input("model", tooltip="The model to change."),
                io.Combo.Input(
                    "scheduler",
                    options=[DEFAULT, *KARRAS_DIFFUSION_SCHEDULERS],
                    default=DEFAULT,
                    tooltip="A scheduler of diffusers. default: the model's own. The Kandinsky decoder runs with DDPM and DDIM only.",
                ),
                io.Combo.Input(
                    "sigmas",
                    options=[DEFAULT, *SIGMA_FLAGS],
                    default=DEFAULT,
                    tooltip="The spacing of the noise levels. default: as the model has it.",
                ),
                io.Combo.Input(
                    "timestep_spacing",
                    options=[DEFAULT, *TIMESTEP_SPACINGS],
                    default=DEFAULT,
                    tooltip="How the steps are laid over the schedule. default: as the model has it.",
                ),
            ],
            outputs=[DiffusersModel.Output(display_name="model", tooltip="The model with this scheduler.")],
        )

    @classmethod
    def validate_inputs(cls, scheduler: str | None = None) -> bool | str:
        return comfy_host.refusal(
            lambda value: comfy_host.check_choice("scheduler", value, [DEFAULT, *KARRAS_DIFFUSION_SCHEDULERS]),
            scheduler,
        )

    @classmethod
    def execute(cls, model: Any, scheduler: str, sigmas: str, timestep_spacing: str) -> io.NodeOutput:
        chosen = [None if value == DEFAULT else value for value in (scheduler, sigmas, timestep_spacing)]
        return io.NodeOutput(with_scheduler(model, SchedulerChoice(*chosen)))


class RelaySetVae(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelaySetVae",
            display_name="Set VAE",
            category=CATEGORY,
            description="The same model with the autoencoder of another.",
            inputs=[
                DiffusersModel.Input("model", tooltip="The model to change."),
                DiffusersModel.Input(
                    "vae_from", tooltip="The model whose autoencoder is taken; it must be of the same kind."
                ),
            ],
            outputs=[DiffusersModel.Output(display_name="model", tooltip="The model with the other autoencoder.")],
        )

    @classmethod
    def execute(cls, model: Any, vae_from: Any) -> io.NodeOutput:
        from ..pipelines.autoencoder import with_autoencoder

        return io.NodeOutput(with_autoencoder(model, vae_from))
