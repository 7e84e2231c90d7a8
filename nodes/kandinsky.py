"""Nodes that only Kandinsky has a use for."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import comfy_host
from .wire_types import DiffusersControl


class RelayKandinskyHint(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayKandinskyHint",
            display_name="Kandinsky Hint",
            category=f"{comfy_host.CATEGORY}/control",
            description="A depth map that Kandinsky 2.2's depth ControlNet decoder paints along.",
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip=(
                        "The depth map, near parts bright: grey, RGB or RGBA (alpha is left out); one for all pictures of the batch, or one for each. "
                        "Another size than the painted one is stretched to it (lanczos)."
                    ),
                ),
            ],
            outputs=[
                DiffusersControl.Output(
                    display_name="control",
                    tooltip="For the control input of Text to Image (Diffusers) or Image to Image (Diffusers), with Kandinsky's depth ControlNet decoder.",
                )
            ],
        )

    @classmethod
    def execute(cls, image: Any) -> io.NodeOutput:
        from ..pipelines.control.kandinsky_hint import make_hint

        return io.NodeOutput((make_hint(image),))
