"""Nodes for Kandinsky only."""

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
            description="Turns a depth map into the hint that Kandinsky 2.2's depth ControlNet decoder follows.",
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip=(
                        "The depth map; near is bright. Grey, RGB or RGBA (alpha is ignored). One for the whole batch, or one for each picture. "
                        "It is stretched to the painted size (lanczos) if its size differs."
                    ),
                ),
            ],
            outputs=[
                DiffusersControl.Output(
                    display_name="control",
                    tooltip="For the control input of a sampling node, with Kandinsky's depth ControlNet decoder.",
                )
            ],
            **comfy_host.found_by("depth, depth map, controlnet, control, kandinsky"),
        )

    @classmethod
    def execute(cls, image: Any) -> io.NodeOutput:
        from ..pipelines.control.kandinsky_hint import make_hint

        return io.NodeOutput((make_hint(image),))
