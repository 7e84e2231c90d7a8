"""What ComfyUI's cache of outputs sees of a model. Each generation of hosts asks differently, and all must get the true size."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import comfy.model_management as memory
import comfy.model_patcher
import torch
from comfy.model_patcher import ModelPatcher

from diffusers_relay.pipelines.base.memory_size import module_bytes
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.control.units import ControlNet
from diffusers_relay.pipelines.loading.folder import load_folder
from relay_dev.model_folders import SmallModels
from support.without_host import load


def is_model(output: Any) -> bool:
    """As ComfyUI 0.29 to 0.33 tells: with its own function where it is there."""
    ask = getattr(comfy.model_patcher, "is_model_patcher_output", None)
    return ask(output) if ask else isinstance(getattr(output, "patcher", None), ModelPatcher)


def out_of_a_node(value: Any) -> Any:
    """The value as a node's output."""
    from comfy_api.latest import io

    from diffusers_relay.nodes.checked import checked

    class Example(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            return io.Schema(node_id="Example", display_name="Example", category="x", inputs=[], outputs=[])

        @classmethod
        def execute(cls) -> io.NodeOutput:
            return io.NodeOutput(value, "a text", torch.zeros(2))

    return checked(Example).execute().args[0]


def test_models_and_controlnets_are_models_to_the_cache_with_their_size() -> None:
    model = load("sd15")
    size = module_bytes([model[name] for name in ("unet", "vae", "text_encoder")])
    for value, bytes_kept in ((model, size), (ControlNet("a net", model["unet"]), module_bytes([model["unet"]]))):
        output = out_of_a_node(value.with_changes(source="a copy") if value is model else value)
        assert is_model(output)
        assert output.patcher.model_size() == output.get_ram_usage() == bytes_kept
        tensors = output._comfy_cache_tensors()
        assert sum(t.numel() * t.element_size() for t in tensors if t.device.type == "cpu") == bytes_kept


def test_a_changed_model_gets_its_own() -> None:
    first = out_of_a_node(load("sd15").with_changes(source="a copy"))
    assert not is_model(first.with_changes(source="another"))
    other = out_of_a_node(first.with_changes(modules={"vae": None}))
    assert is_model(other) and other.patcher is not first.patcher
    assert other.patcher.model_size() < first.patcher.model_size()
    assert out_of_a_node(first).patcher is first.patcher


def test_it_is_never_loaded_and_keeps_nothing_alive(models: SmallModels) -> None:
    model = out_of_a_node(load_folder(models.named["pixel"], dtype=torch.float32, monitor=SilentMonitor()))
    patcher, unet = model.patcher, weakref.ref(model["unet"])
    assert list(patcher.model.parameters()) == []
    assert patcher not in [entry.model for entry in memory.current_loaded_models]
    del model
    gc.collect()
    assert unet() is None
