"""The node that sets the sizes that SDXL reads beside a prompt."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import comfy_host
from .wire_types import DiffusersPrompt

MAX_SIZE = 16384
"""Pixels."""


def _pixels(tooltip: str, *, negative: bool = False) -> dict[str, Any]:
    """What the inputs share. Those for the negative prompt are optional and folded away."""
    more = {"optional": True, **comfy_host.advanced(io.Int.Input)} if negative else {}
    return {"default": 0, "min": 0, "max": MAX_SIZE, "tooltip": tooltip, **more}


class RelaySdxlSize(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelaySdxlSize",
            display_name="SDXL Size",
            category=f"{comfy_host.CATEGORY}/prompts",
            description=(
                "Sets the sizes that SDXL reads beside a prompt: those of the picture that it imitates. "
                "Use this for prompts of Diffusers Relay, and ComfyUI's CLIPTextEncodeSDXL for ComfyUI's own samplers."
            ),
            inputs=[
                DiffusersPrompt.Input(
                    "prompt",
                    tooltip="A prompt for SDXL base or refiner, from Encode Prompt or Mix Prompts. Its embeddings don't change.",
                ),
                io.Int.Input(
                    "original_width",
                    **_pixels(
                        "The width of the imitated picture before it was scaled for training. A small one gives a blurred picture. 0: the painted width."
                    ),
                ),
                io.Int.Input("original_height", **_pixels("As original_width, for the height. 0: the painted height.")),
                io.Int.Input(
                    "crop_left",
                    **_pixels(
                        "How many pixels of the imitated picture were cut off on the left. 0 gives a well-centered picture."
                    ),
                ),
                io.Int.Input(
                    "crop_top",
                    **_pixels(
                        "How many pixels of the imitated picture were cut off at the top. 0 gives a well-centered picture."
                    ),
                ),
                io.Int.Input(
                    "target_width",
                    **_pixels(
                        "The width of the imitated picture in training. 0: the painted width. The refiner doesn't read it."
                    ),
                ),
                io.Int.Input("target_height", **_pixels("As target_width, for the height. 0: the painted height.")),
                io.Int.Input(
                    "negative_original_width",
                    **_pixels("As original_width, for the negative prompt. 0: as for the prompt.", negative=True),
                ),
                io.Int.Input(
                    "negative_original_height",
                    **_pixels("As original_height, for the negative prompt. 0: as for the prompt.", negative=True),
                ),
                io.Int.Input("negative_crop_left", **_pixels("As crop_left, for the negative prompt.", negative=True)),
                io.Int.Input("negative_crop_top", **_pixels("As crop_top, for the negative prompt.", negative=True)),
                io.Int.Input(
                    "negative_target_width",
                    **_pixels("As target_width, for the negative prompt. 0: as for the prompt.", negative=True),
                ),
                io.Int.Input(
                    "negative_target_height",
                    **_pixels("As target_height, for the negative prompt. 0: as for the prompt.", negative=True),
                ),
            ],
            outputs=[
                DiffusersPrompt.Output(
                    display_name="prompt", tooltip="The prompt with these sizes, for the samplers of Diffusers Relay."
                )
            ],
            **comfy_host.found_by(
                "sdxl, micro-conditioning, original size, target size, crop, resolution, clip text encode sdxl"
            ),
        )

    @classmethod
    def execute(
        cls,
        prompt: Any,
        original_width: int,
        original_height: int,
        crop_left: int,
        crop_top: int,
        target_width: int,
        target_height: int,
        negative_original_width: int = 0,
        negative_original_height: int = 0,
        negative_crop_left: int = 0,
        negative_crop_top: int = 0,
        negative_target_width: int = 0,
        negative_target_height: int = 0,
    ) -> io.NodeOutput:
        from ..pipelines.model.prompt_sizes import with_sizes
        from ..pipelines.model.sdxl_sizes import PictureSizes, SdxlSizes, size_or_none

        sizes = SdxlSizes(
            PictureSizes(
                size_or_none(original_width, original_height),
                crop_left,
                crop_top,
                size_or_none(target_width, target_height),
            ),
            PictureSizes(
                size_or_none(negative_original_width, negative_original_height),
                negative_crop_left,
                negative_crop_top,
                size_or_none(negative_target_width, negative_target_height),
            ),
        )
        return io.NodeOutput(with_sizes(prompt, sizes))
