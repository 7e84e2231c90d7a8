"""Nodes that convert between pictures and latents, and between latent spaces."""

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
            description=(
                "Decodes a latent to a picture. A latent from another space than the model's is decoded by the autoencoder of the model that made it, and the node says so. "
                "Use this with a model of Diffusers Relay, and ComfyUI's VAE Decode with a VAE of ComfyUI's own loaders."
            ),
            inputs=[
                DiffusersModel.Input("model", tooltip="The model whose autoencoder decodes."),
                io.Latent.Input("latent", tooltip="From a sampler of Diffusers Relay or of ComfyUI."),
                io.Boolean.Input(
                    "tiled",
                    default=False,
                    tooltip="Decode large pictures in tiles. It takes less memory and gives nearly the same picture. Kandinsky's autoencoder can't do this.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The decoded pictures.")],
            hidden=[io.Hidden.unique_id],
            **comfy_host.found_by("vae decode, decode, latent to image, vae decode tiled"),
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
            description=(
                "Encodes a picture to a latent, sampled from the encoder's distribution as in diffusers' pipelines. "
                "Use this with a model of Diffusers Relay, and ComfyUI's VAE Encode with a VAE of ComfyUI's own loaders."
            ),
            inputs=[
                DiffusersModel.Input("model", tooltip="The model whose autoencoder encodes."),
                io.Image.Input(
                    "image", tooltip="The picture. Any size; it is scaled down to the next size that the model can use."
                ),
                sampling_inputs.seed(
                    "The seed for sampling from the encoder's distribution. Picture i of a batch uses seed + i (the first has i = 0)."
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="A latent in ComfyUI's scale.")],
            hidden=[io.Hidden.unique_id],
            **comfy_host.found_by("vae encode, encode, image to latent"),
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
            description=(
                "Converts a latent to another model's latent space. If both models share a space, the latent passes unchanged; otherwise it is decoded and encoded once. "
                "Use this for models of Diffusers Relay, and ComfyUI's VAE Decode and VAE Encode for models of ComfyUI's own loaders."
            ),
            inputs=[
                DiffusersModel.Input("model", tooltip="The model that will read the latent."),
                io.Latent.Input(
                    "latent",
                    tooltip="A latent from Diffusers Relay, which knows its own space. Any other latent is assumed to be in the model's space.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The latent in the model's space.")],
            hidden=[io.Hidden.unique_id],
            **comfy_host.found_by("latent space, sd15 to sdxl, sdxl to sd15, re-encode, transfer latent, vae"),
        )

    @classmethod
    def execute(cls, model: Any, latent: Any) -> io.NodeOutput:
        from ..pipelines.latents.conversion import convert
        from ..pipelines.latents.encode_decode import autoencoder_for_wires
        from ..pipelines.latents.latent_space import from_host

        return io.NodeOutput(
            convert(from_host(latent), autoencoder_for_wires(model), comfy_host.runtime_for(cls)).to_host()
        )
