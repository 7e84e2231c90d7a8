"""Nodes for pictures."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import comfy_host

MORE_IMAGES = tuple(f"image_{number}" for number in range(2, 10))


class RelayImageGrid(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayImageGrid",
            display_name="Image Grid",
            category=f"{comfy_host.CATEGORY}/image",
            description="Puts pictures side by side into one picture, row by row.",
            inputs=[
                io.Image.Input(
                    "images",
                    tooltip="The first picture, or a batch of pictures. Together with image_2 to image_9: exactly rows x columns pictures.",
                ),
                io.Int.Input("rows", default=1, min=0, max=256, tooltip="Number of rows. 0: as many as needed."),
                io.Int.Input("columns", default=0, min=0, max=256, tooltip="Number of columns. 0: as many as needed."),
                *(
                    io.Image.Input(
                        name, optional=True, tooltip="The next picture or batch, of the same size as the first."
                    )
                    for name in MORE_IMAGES
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The grid as one picture.")],
        )

    @classmethod
    def execute(cls, images: Any, rows: int, columns: int, **more: Any) -> io.NodeOutput:
        from ..pipelines.base.images import grid, joined

        named = {"images": images} | {name: more[name] for name in MORE_IMAGES if more.get(name) is not None}
        return io.NodeOutput(grid(joined(named), rows, columns))


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
            description="Downloads a picture from the internet. The outputs are the same as those of Load Image.",
            inputs=[
                io.String.Input(
                    "url",
                    default="",
                    tooltip="The http:// or https:// address of the picture itself, on a public server. It is saved in the workflow. If other machines "
                    f"can reach this ComfyUI, nothing is fetched unless the environment variable {comfy_host.ALLOW_URL}=1 is set.",
                )
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The picture, rotated by its EXIF orientation."),
                io.Mask.Output(display_name="mask", tooltip="1 where the picture is transparent, as in Load Image."),
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
