"""Nodes for IP-Adapters, which steer a run with what pictures show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_api.latest import io

from . import comfy_host, loading_inputs, model_choices
from .wire_types import DiffusersIpAdapter, DiffusersIpAdapterImage

NO_ADAPTER = "Put a .safetensors file of h94/IP-Adapter in models/ipadapter."
NO_ENCODER = "Put a CLIP image encoder, such as CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors, in models/clip_vision."
ALIASES = "ip-adapter, ipadapter, ip adapter, image prompt, style transfer, face, reference image"


HUB_FILES = (
    *("models/ip-adapter_sd15.safetensors", "models/ip-adapter_sd15_light.safetensors"),
    *("models/ip-adapter-plus_sd15.safetensors", "models/ip-adapter-plus-face_sd15.safetensors"),
    *("models/ip-adapter-full-face_sd15.safetensors", "models/ip-adapter_sd15_vit-G.safetensors"),
    *("sdxl_models/ip-adapter_sdxl.safetensors", "sdxl_models/ip-adapter_sdxl_vit-h.safetensors"),
    *("sdxl_models/ip-adapter-plus_sdxl_vit-h.safetensors", "sdxl_models/ip-adapter-plus-face_sdxl_vit-h.safetensors"),
)
"""The safetensors files of h94/IP-Adapter that are not image encoders."""


def _adapters() -> dict[str, str]:
    """Name -> path of the files in models/ipadapter."""
    comfy_host.register_folder("ipadapter")
    return comfy_host.model_files("ipadapter")


def _encoders() -> tuple[dict[str, str], dict[str, str]]:
    """Name -> path: the folders in models/clip_vision, and the files that are not part of one of them."""
    folders = comfy_host.folders_with("config.json", "clip_vision")
    return folders, model_choices.without_insides(comfy_host.model_files("clip_vision"), folders)


def _pick_adapter(value: str) -> Path:
    return model_choices.pick("ip_adapter", value, {}, _adapters(), "IP-Adapters", NO_ADAPTER)


def _pick_encoder(value: str) -> Path:
    return model_choices.pick("image_encoder", value, *_encoders(), "image encoders", NO_ENCODER)


def _pick_both(adapter: str, encoder: str) -> None:
    _pick_adapter(adapter)
    _pick_encoder(encoder)


def _output() -> Any:
    return DiffusersIpAdapter.Output(display_name="ip_adapter", tooltip="The IP-Adapter, for IP-Adapter Image.")


class RelayLoadIpAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayLoadIpAdapter",
            display_name="Load IP-Adapter (Diffusers)",
            category=f"{comfy_host.CATEGORY}/loaders",
            description=(
                "Loads an IP-Adapter, which lets pictures steer a run like a prompt, with the image encoder that reads them. Two loaders of the same files share their weights. "
                "Use this for models of Diffusers Relay; for ComfyUI's own samplers there are other packs."
            ),
            inputs=[
                io.Combo.Input(
                    "ip_adapter",
                    options=model_choices.shown({}, _adapters()),
                    tooltip="A .safetensors file in models/ipadapter: a plain, Plus or face IP-Adapter for SD1.5 or SDXL. FaceID files are not supported.",
                ),
                io.Combo.Input(
                    "image_encoder",
                    options=model_choices.shown(*_encoders()),
                    tooltip="The CLIP image encoder that the IP-Adapter was made with: a file or folder in models/clip_vision. Most need ViT-H; ip-adapter_sdxl and names with vit-G need ViT-bigG.",
                ),
                loading_inputs.dtype(),
            ],
            outputs=[_output()],
            hidden=[io.Hidden.unique_id],
            **comfy_host.found_by(f"{ALIASES}, clip vision, weights"),
        )

    @classmethod
    def validate_inputs(cls, ip_adapter: str | None = None, image_encoder: str | None = None) -> bool | str:
        return comfy_host.refusal(_pick_both, ip_adapter, image_encoder)

    @classmethod
    def fingerprint_inputs(cls, ip_adapter: str, image_encoder: str, dtype: str) -> str:
        """Changes when a file changes, so that it is loaded again."""
        paths = _adapters().get(ip_adapter), model_choices.accepted(*_encoders()).get(image_encoder)
        return "\n".join("missing" if path is None else comfy_host.state_of_files(path) for path in paths)

    @classmethod
    def execute(cls, ip_adapter: str, image_encoder: str, dtype: str) -> io.NodeOutput:
        from ..pipelines.loading.ip_adapter import load_ip_adapter

        path, encoder, weights = _pick_adapter(ip_adapter), _pick_encoder(image_encoder), comfy_host.pick_dtype(dtype)
        return io.NodeOutput(load_ip_adapter(path, encoder, weights, source=ip_adapter, encoder_source=image_encoder))


class RelayLoadIpAdapterFromHub(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayLoadIpAdapterFromHub",
            display_name="Load IP-Adapter from Hub (Diffusers)",
            category=f"{comfy_host.CATEGORY}/loaders",
            description="Downloads an IP-Adapter and the image encoder that fits it from the Hugging Face Hub once, into the usual cache, and loads both. Safetensors only.",
            inputs=[
                loading_inputs.repo_id("h94/IP-Adapter"),
                io.Combo.Input(
                    "file",
                    options=list(HUB_FILES),
                    default=HUB_FILES[0],
                    tooltip="The file in the repository: models is for SD1.5, sdxl_models for SDXL. Names with plus follow the pictures more closely; names with face follow a face.",
                ),
                loading_inputs.revision(),
                loading_inputs.dtype(),
            ],
            outputs=[_output()],
            hidden=[io.Hidden.unique_id],
            **comfy_host.found_by(f"{ALIASES}, huggingface, hf, download ip-adapter, weights"),
        )

    @classmethod
    def validate_inputs(cls, repo_id: str | None = None) -> bool | str:
        return loading_inputs.refusal_of_repo(repo_id)

    @classmethod
    def execute(cls, repo_id: str, file: str, revision: str, dtype: str) -> io.NodeOutput:
        from ..pipelines.loading.ip_adapter_hub import load_ip_adapter_from_hub

        comfy_host.check_choice("file", file, HUB_FILES)
        weights, monitor = comfy_host.pick_dtype(dtype), comfy_host.runtime_for(cls).monitor
        return io.NodeOutput(
            load_ip_adapter_from_hub(repo_id.strip(), file, revision=revision.strip(), dtype=weights, monitor=monitor)
        )


class RelayIpAdapterImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayIpAdapterImage",
            display_name="IP-Adapter Image",
            category=f"{comfy_host.CATEGORY}/control",
            description=(
                "Reads pictures with an IP-Adapter for the ip_adapter input of a sampling node, so that they steer the run besides the prompt. Chain several nodes to use several IP-Adapters together. "
                "Use this for the samplers of Diffusers Relay; for ComfyUI's own samplers there are other packs."
            ),
            inputs=[
                DiffusersIpAdapter.Input(
                    "ip_adapter", tooltip="The IP-Adapter. It must be made for the kind of model that paints."
                ),
                io.Image.Input(
                    "images",
                    tooltip="The pictures to follow. A batch is used together, for every painted picture. Each is cropped to the square in its middle.",
                ),
                io.Float.Input(
                    "weight",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="How strongly the pictures steer the run. Higher is stronger; 0 turns the IP-Adapter off. 0.5 to 0.7 leaves room for the prompt.",
                ),
                io.Float.Input(
                    "start",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Where the IP-Adapter starts, as a fraction of the steps that run. Higher starts later.",
                ),
                io.Float.Input(
                    "end",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Where the IP-Adapter stops, as a fraction of the steps that run. Lower stops earlier; it must be above start.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where the pictures have an effect: 1 = here, as in ComfyUI; values from 0.5 up count as 1. Stretched to the painted size. One mask for all pictures, or one for each. Not connected: everywhere.",
                ),
                DiffusersIpAdapterImage.Input(
                    "other_images",
                    optional=True,
                    tooltip="Other pictures to use together with these, from another IP-Adapter Image.",
                ),
            ],
            outputs=[
                DiffusersIpAdapterImage.Output(
                    display_name="ip_adapter",
                    tooltip="For the ip_adapter input of a sampling node, or the other_images input of another IP-Adapter Image.",
                )
            ],
            hidden=[io.Hidden.unique_id],
            **comfy_host.found_by(f"{ALIASES}, apply ipadapter, embeds, encode image"),
        )

    @classmethod
    def validate_inputs(cls, start: float | None = None, end: float | None = None) -> bool | str:
        """Replaces the host's own check of these two inputs, which only knows a minimum and a maximum."""
        from ..pipelines.adapters.ip_adapter_values import check_range

        return comfy_host.refusal(check_range, start, end)

    @classmethod
    def execute(
        cls,
        ip_adapter: Any,
        images: Any,
        weight: float,
        start: float,
        end: float,
        mask: Any = None,
        other_images: Any = (),
    ) -> io.NodeOutput:
        from ..pipelines.adapters.ip_adapter_pictures import make_unit
        from ..pipelines.adapters.ip_adapter_values import stack_units

        unit = make_unit(ip_adapter, images, weight, start, end, mask, comfy_host.runtime_for(cls))
        return io.NodeOutput(stack_units(other_images, unit))
