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
        from ..pipelines.base.images import grid

        return io.NodeOutput(grid(images, rows, columns))


def _check_url(url: str) -> None:
    from ..pipelines.downloads.url_address import check_url

    comfy_host.check_urls_allowed()
    check_url(url)


class RelayLoadImageFromUrl(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayLoadImageFromUrl",
            display_name="Load Image from URL",
            category=f"{comfy_host.CATEGORY}/image",
            description="A picture of the internet, as Load Image gives one of this machine.",
            inputs=[
                io.String.Input(
                    "url",
                    default="",
                    tooltip="https:// or http://, of the picture itself, at a public address. It is saved in the workflow. Where ComfyUI "
                    f"can be reached from other machines, nothing is fetched unless the environment variable {comfy_host.ALLOW_URL}=1 is set.",
                )
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="One picture, turned as its EXIF orientation says."),
                io.Mask.Output(display_name="mask", tooltip="1 where the picture is transparent, as Load Image's."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, url: str | None = None) -> bool | str:
        return comfy_host.refusal(_check_url, url)

    @classmethod
    def execute(cls, url: str) -> io.NodeOutput:
        from ..pipelines.downloads.url_image import load_image

        _check_url(url)
        loaded = load_image(url, comfy_host.runtime_for(cls).monitor)
        return io.NodeOutput(loaded.image, loaded.mask)
