"""Nodes between pictures and latents, and from one latent space to another."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import comfy_host, sampling_inputs
from .wire_types import DiffusersModel

CATEGORY = f"{comfy_host.CATEGORY}/latent"


class RelayDecode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayDecode",
            display_name="Decode Latent (Diffusers)",
            category=CATEGORY,
            description="Latent to picture. A latent that is in another space than the model's is decoded by its own autoencoder, and the node says so.",
            inputs=[
                DiffusersModel.Input("model", tooltip="The model whose autoencoder decodes."),
                io.Latent.Input("latent", tooltip="From a sampler of Diffusers Relay or of ComfyUI."),
                io.Boolean.Input(
                    "tiled",
                    default=False,
                    tooltip="Decode large pictures in tiles: less memory, and near the same picture. Kandinsky's autoencoder can't.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The picture.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model: Any, latent: Any, tiled: bool) -> io.NodeOutput:
        from ..pipelines.latents.encode_decode import decode
        from ..pipelines.latents.latent_space import from_host

        return io.NodeOutput(decode(model, from_host(latent), tiled, comfy_host.runtime_for(cls)))


class RelayEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayEncode",
            display_name="Encode Image (Diffusers)",
            category=CATEGORY,
            description="Picture to latent, drawn from the encoder's distribution as diffusers' pipelines draw it.",
            inputs=[
                DiffusersModel.Input("model", tooltip="The model whose autoencoder encodes."),
                io.Image.Input("image", tooltip="The picture. An odd size is brought to the next multiple of 8."),
                sampling_inputs.seed("The draw from the encoder's distribution. Image i of a batch uses seed + i."),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="A latent in ComfyUI's scale.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model: Any, image: Any, seed: int) -> io.NodeOutput:
        from ..pipelines.latents.encode_decode import encode

        return io.NodeOutput(encode(model, image, seed, comfy_host.runtime_for(cls)).to_host())


class RelayConvertLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayConvertLatent",
            display_name="Convert Latent",
            category=CATEGORY,
            description="Brings a latent into the space of another model: untouched where both share a space, else decoded and encoded once.",
            inputs=[
                DiffusersModel.Input("model", tooltip="The model that is to read the latent."),
                io.Latent.Input(
                    "latent",
                    tooltip="From a sampler of Diffusers Relay: it knows which space it is in. One that does not know is taken to be in the model's.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The latent in the model's space.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model: Any, latent: Any) -> io.NodeOutput:
        from ..pipelines.latents.conversion import convert
        from ..pipelines.latents.encode_decode import autoencoder_for_wires
        from ..pipelines.latents.latent_space import from_host

        return io.NodeOutput(
            convert(from_host(latent), autoencoder_for_wires(model), comfy_host.runtime_for(cls)).to_host()
        )
