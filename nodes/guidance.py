"""The node that sets how a model's prediction is guided, besides guidance_scale."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import comfy_host
from .wire_types import DiffusersModel


class RelaySetGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelaySetGuidance",
            display_name="Set Guidance",
            category=f"{comfy_host.CATEGORY}/model",
            description=(
                "Guides a Stable Diffusion or SDXL model in two more ways: guidance_rescale against washed-out colors, and perturbed attention guidance (PAG) for better structure. "
                "Use this for models of Diffusers Relay, and ComfyUI's RescaleCFG and PerturbedAttentionGuidance for models of ComfyUI's own loaders."
            ),
            inputs=[
                DiffusersModel.Input("model", tooltip="The model to change: Stable Diffusion or SDXL."),
                io.Float.Input(
                    "guidance_rescale",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much to undo the excess contrast that guidance_scale causes. Models with zero terminal SNR need about 0.7. 0: off. No effect if guidance_scale is 1 or less.",
                ),
                io.Float.Input(
                    "pag_scale",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="How strongly to steer away from a prediction with perturbed self-attention. diffusers' default is 3. 0: off. It also works without a prompt. Each step takes half as long again, or twice as long if guidance_scale is 1 or less.",
                ),
                io.String.Input(
                    "pag_layers",
                    default="mid",
                    tooltip="The layers that PAG perturbs: parts of their names as in diffusers, separated by commas, e.g. mid, down_blocks.2, up_blocks.1.attentions.0. Only used if pag_scale is above 0.",
                ),
            ],
            outputs=[DiffusersModel.Output(display_name="model", tooltip="The model with this guidance.")],
            **comfy_host.found_by(
                "guidance, cfg, cfg rescale, guidance rescale, pag, perturbed attention guidance, zero snr, v-prediction"
            ),
        )

    @classmethod
    def execute(cls, model: Any, guidance_rescale: float, pag_scale: float, pag_layers: str) -> io.NodeOutput:
        from ..pipelines.denoising.guidance import with_guidance

        return io.NodeOutput(with_guidance(model, guidance_rescale, pag_scale, pag_layers))
