"""Nodes that add LoRAs and textual inversions to a model. Each outputs a new view of the same weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from . import comfy_host
from .wire_types import DiffusersModel

CATEGORY = f"{comfy_host.CATEGORY}/model"


class RelayLoadLora(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayLoadLora",
            display_name="Load LoRA (Diffusers)",
            category=CATEGORY,
            description=(
                "Adds a LoRA to a model. The weights are shared, and other branches of the graph are not affected. Chain several nodes to use several LoRAs. "
                "Use this for models of Diffusers Relay, and ComfyUI's own Load LoRA for models of ComfyUI's own loaders."
            ),
            inputs=[
                DiffusersModel.Input("model", tooltip="The model to change: Stable Diffusion, SDXL or Flux.1."),
                io.Combo.Input(
                    "lora",
                    options=comfy_host.safetensors_files("loras"),
                    tooltip="A safetensors file in models/loras, trained for this kind of model: a LoRA, LoCon or DoRA in the format of kohya, OneTrainer, PEFT, diffusers or ComfyUI.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-100.0,
                    max=100.0,
                    step=0.01,
                    tooltip="How strongly the LoRA changes the UNet, which paints. Higher is stronger; 0 turns this part off.",
                ),
                io.Float.Input(
                    "text_strength",
                    default=1.0,
                    min=-100.0,
                    max=100.0,
                    step=0.01,
                    tooltip="How strongly the LoRA changes the text encoders, which read the prompt. Higher is stronger; 0 turns this part off. If it is not 0, encode the prompt with the model from this node.",
                ),
            ],
            outputs=[DiffusersModel.Output(display_name="model", tooltip="The model with the LoRA.")],
            hidden=[io.Hidden.unique_id],
            **comfy_host.found_by("lora, apply lora, lora loader, lora weights, locon, dora, style"),
        )

    @classmethod
    def validate_inputs(cls, lora: str | None = None) -> bool | str:
        return comfy_host.refusal(partial(comfy_host.pick_file, "lora", kind="loras"), lora)

    @classmethod
    def fingerprint_inputs(cls, lora: str, **_: Any) -> str:
        """Changes when the file changes."""
        return comfy_host.state_of_file("loras", lora)

    @classmethod
    def execute(cls, model: Any, lora: str, strength: float, text_strength: float) -> io.NodeOutput:
        from ..pipelines.adapters.lora import with_lora

        path = Path(comfy_host.pick_file("lora", lora, "loras"))
        view = with_lora(model, path, title=lora, strength=strength, text_strength=text_strength)
        for note in view.loras[-1].weights.notes:
            comfy_host.runtime_for(cls).monitor.say(note)
        return io.NodeOutput(view)


class RelayLoadTextualInversion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayLoadTextualInversion",
            display_name="Load Textual Inversion",
            category=CATEGORY,
            description=(
                "Teaches a model a new word for its prompts, from an embedding file. Other branches of the graph are not affected. "
                "Use this for models of Diffusers Relay; for models of ComfyUI's own loaders, write embedding:name in the prompt."
            ),
            inputs=[
                DiffusersModel.Input("model", tooltip="The model to change: Stable Diffusion or SDXL."),
                io.Combo.Input(
                    "embedding",
                    options=comfy_host.safetensors_files("embeddings"),
                    tooltip="A safetensors file in models/embeddings with one or more vectors, trained for this kind of model.",
                ),
                io.String.Input(
                    "token",
                    default="",
                    tooltip="The word to write in the prompt. Empty: the file's own word, or the file's name if it has none.",
                ),
            ],
            outputs=[DiffusersModel.Output(display_name="model", tooltip="The model that knows the word.")],
            **comfy_host.found_by("embedding, embeddings, textual inversion, ti, negative embedding, concept"),
        )

    @classmethod
    def validate_inputs(cls, embedding: str | None = None) -> bool | str:
        return comfy_host.refusal(partial(comfy_host.pick_file, "embedding", kind="embeddings"), embedding)

    @classmethod
    def fingerprint_inputs(cls, embedding: str, **_: Any) -> str:
        """Changes when the file changes."""
        return comfy_host.state_of_file("embeddings", embedding)

    @classmethod
    def execute(cls, model: Any, embedding: str, token: str) -> io.NodeOutput:
        from ..pipelines.adapters.textual_inversion import with_textual_inversion

        path = Path(comfy_host.pick_file("embedding", embedding, "embeddings"))
        return io.NodeOutput(with_textual_inversion(model, path, title=embedding, token=token))
