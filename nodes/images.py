"""Nodes for pictures."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import comfy_host


class RelayImageGrid(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayImageGrid",
            display_name="Image Grid",
            category=f"{comfy_host.CATEGORY}/image",
            description="The pictures of a batch side by side in one, row by row.",
            inputs=[
                io.Image.Input(
                    "images",
                    tooltip="A batch of pictures, as many as rows x columns. ComfyUI's Batch Images joins single ones.",
                ),
                io.Int.Input("rows", default=1, min=0, max=256, tooltip="Rows of the grid. 0: as many as it takes."),
                io.Int.Input(
                    "columns", default=0, min=0, max=256, tooltip="Columns of the grid. 0: as many as it takes."
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="One picture.")],
        )

    @classmethod
    def execute(cls, images: Any, rows: int, columns: int) -> io.NodeOutput:
        from ..pipelines.images import grid

        return io.NodeOutput(grid(images, rows, columns))
