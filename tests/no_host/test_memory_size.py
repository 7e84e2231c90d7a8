"""The memory sizes that values report to the host."""

from __future__ import annotations

import torch

from diffusers_relay.pipelines.adapters.lora import with_lora
from diffusers_relay.pipelines.base.memory_size import module_bytes, tensor_bytes
from diffusers_relay.pipelines.control.units import ControlNet
from diffusers_relay.pipelines.model.embeds import ImageEmbeds
from relay_dev.model_folders import SmallModels
from support.without_host import encode, load


def weights(module: torch.nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))


def test_tied_weights_count_once() -> None:
    first, second = torch.nn.Linear(10, 10, bias=False), torch.nn.Linear(10, 10, bias=False)
    assert module_bytes([torch.nn.ModuleList([first, second])]) == 800
    second.weight = first.weight
    assert module_bytes([torch.nn.ModuleList([first, second])]) == 400
    assert module_bytes([first, first, "a tokenizer", None]) == 400


def test_what_a_view_of_a_storage_keeps_is_the_storage() -> None:
    whole = torch.zeros(100)
    assert tensor_bytes([whole[:10]]) == tensor_bytes([whole[:10], whole[50:], None]) == 400


def test_a_model_answers_with_its_modules_and_its_loras(models: SmallModels) -> None:
    model = load("sd15")
    size = sum(weights(model[name]) for name in ("unet", "vae", "text_encoder"))
    assert model.get_ram_usage() == size
    assert model.with_changes(source="another view").get_ram_usage() == size
    path = models.models / "loras" / "sd15_kohya.safetensors"
    adapted = with_lora(model, path, title="kohya", strength=1.0, text_strength=1.0)
    lora = sum(t.numel() * t.element_size() for t in adapted.loras[0].weights.tensors)
    assert size < adapted.get_ram_usage() <= size + 2 * lora


def test_a_controlnet_and_prompts_answer() -> None:
    model = load("sd15")
    assert ControlNet("a net", model["unet"]).get_ram_usage() == weights(model["unet"])
    prompt = encode(model, "a cat")
    assert prompt.get_ram_usage() >= 2 * prompt.positive.hidden.numel() * 4
    assert prompt.get_ram_usage() < 100 * prompt.positive.hidden.numel()
    assert ImageEmbeds(torch.zeros(1, 10), torch.zeros(1, 10), "a prior").get_ram_usage() == 80
