"""Nodes that load models."""

from __future__ import annotations

from pathlib import Path

from comfy_api.latest import io

from . import comfy_host, loading_inputs, model_choices
from .wire_types import DiffusersModel

NONE_HERE = "Put a diffusers model in models/diffusers, or a file in models/checkpoints."


def _files() -> dict[str, str]:
    """Name -> path of every file that the list may contain: models/checkpoints, then models/diffusion_models."""
    return {
        **comfy_host.model_files("checkpoints"),
        **model_choices.denoisers(comfy_host.model_files("diffusion_models")),
    }


def _listed() -> list[str]:
    unets = model_choices.that_load(model_choices.denoisers(comfy_host.model_files("diffusion_models")))
    return model_choices.shown(comfy_host.diffusers_folders(), {**comfy_host.model_files("checkpoints"), **unets})


class RelayLoadModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayLoadModel",
            display_name="Load Diffusers Model",
            category=f"{comfy_host.CATEGORY}/loaders",
            description=(
                "Loads a folder from models/diffusers, or a single file from models/checkpoints. Two loaders of the same model share its weights. "
                "Use this for the nodes of Diffusers Relay, and ComfyUI's Load Checkpoint for ComfyUI's own samplers."
            ),
            inputs=[
                io.Combo.Input(
                    "model",
                    options=_listed(),
                    tooltip="A folder with a model_index.json anywhere under models/diffusers, or a .safetensors file in models/checkpoints or models/diffusion_models (Stable Diffusion 1.x, 2.x, SDXL base, SDXL refiner). The paths in extra_model_paths.yaml are searched too.",
                ),
                loading_inputs.dtype(),
            ],
            outputs=[
                DiffusersModel.Output(
                    display_name="model", tooltip="The model, for the other nodes of Diffusers Relay."
                )
            ],
            hidden=[io.Hidden.unique_id],
            **comfy_host.found_by(
                "load model, model loader, checkpoint, ckpt, unet, diffusion model, weights, safetensors, from_pretrained, from_single_file, refiner, sd15, sdxl, sd3, kandinsky"
            ),
        )

    # The host shows an error at every input that validate_inputs takes, so it takes only one.
    @classmethod
    def validate_inputs(cls, model: str | None = None) -> bool | str:
        return comfy_host.refusal(_pick, model)

    @classmethod
    def fingerprint_inputs(cls, model: str, dtype: str) -> str:
        """Changes when a file of the model changes, so that the model is loaded again."""
        path = model_choices.accepted(comfy_host.diffusers_folders(), _files()).get(model)
        return "missing" if path is None else comfy_host.state_of_files(path)

    @classmethod
    def execute(cls, model: str, dtype: str) -> io.NodeOutput:
        from ..pipelines.loading.folder import load_folder
        from ..pipelines.loading.single_file import load_checkpoint

        path = _pick(model)
        monitor = comfy_host.runtime_for(cls).monitor
        weights = comfy_host.pick_dtype(dtype)
        if path.is_dir():
            return io.NodeOutput(load_folder(path, dtype=weights, source=model, monitor=monitor))
        vocabularies = comfy_host.vocabularies()
        return io.NodeOutput(
            load_checkpoint(path, dtype=weights, vocabularies=vocabularies, source=model, monitor=monitor)
        )


def _pick(model: str) -> Path:
    return model_choices.pick("model", model, comfy_host.diffusers_folders(), _files(), "models", NONE_HERE)


class RelayLoadModelFromHub(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayLoadModelFromHub",
            display_name="Load Diffusers Model from Hub",
            category=f"{comfy_host.CATEGORY}/loaders",
            description="Downloads a model from the Hugging Face Hub once, into the usual cache, and loads it. Safetensors only.",
            inputs=loading_inputs.of_the_hub("stable-diffusion-v1-5/stable-diffusion-v1-5"),
            outputs=[
                DiffusersModel.Output(
                    display_name="model", tooltip="The model, for the other nodes of Diffusers Relay."
                )
            ],
            hidden=[io.Hidden.unique_id],
            **comfy_host.found_by(
                "load model, model loader, huggingface, hf, download model, weights, from_pretrained, repo, refiner, sd15, sdxl, sd3, kandinsky"
            ),
        )

    @classmethod
    def validate_inputs(cls, repo_id: str | None = None) -> bool | str:
        return loading_inputs.refusal_of_repo(repo_id)

    @classmethod
    def execute(cls, repo_id: str, revision: str, variant: str, dtype: str, subfolder: str = "") -> io.NodeOutput:
        from ..pipelines.loading.from_hub import load_from_hub

        return loading_inputs.load_from_hub(cls, load_from_hub, repo_id, revision, subfolder, variant, dtype)
