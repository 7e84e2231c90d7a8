"""The memory sizes that values report to the host."""

from __future__ import annotations

import torch

from diffusers_relay.pipelines.adapters.lora import with_lora
from diffusers_relay.pipelines.base.memory_size import SizedValue, module_bytes, tensor_bytes
from diffusers_relay.pipelines.control.kandinsky_hint import KandinskyHint
from diffusers_relay.pipelines.control.units import ControlNet, ControlNetUnit
from diffusers_relay.pipelines.model.embeds import ImageEmbeds
from relay_dev.model_folders import SmallModels
from support.without_host import encode, load


def counted(value: SizedValue) -> int:
    """How ComfyUI 0.34 and newer count an output: the sizes of the tensors on the CPU that it names."""
    tensors = value._comfy_cache_tensors()
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor) and t.device.type == "cpu")


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
    assert model.get_ram_usage() == counted(model) == size
    assert model.with_changes(source="another view").get_ram_usage() == size
    path = models.models / "loras" / "sd15_kohya.safetensors"
    adapted = with_lora(model, path, title="kohya", strength=1.0, text_strength=1.0)
    lora = sum(t.numel() * t.element_size() for t in adapted.loras[0].weights.tensors)
    assert size < adapted.get_ram_usage() <= size + 2 * lora
    assert counted(adapted) == adapted.get_ram_usage()


def test_a_controlnet_and_prompts_answer() -> None:
    model = load("sd15")
    net = ControlNet("a net", model["unet"])
    assert net.get_ram_usage() == counted(net) == weights(model["unet"])
    unit = ControlNetUnit(net, torch.zeros(1, 8, 8, 3))
    assert unit.get_ram_usage() == counted(unit) == weights(model["unet"]) + 8 * 8 * 3 * 4
    assert counted(KandinskyHint(torch.zeros(1, 3, 8, 8))) == 8 * 8 * 3 * 4
    prompt = encode(model, "a cat")
    assert prompt.get_ram_usage() >= 2 * prompt.positive.hidden.numel() * 4
    assert prompt.get_ram_usage() < 100 * prompt.positive.hidden.numel()
    assert counted(prompt) == prompt.get_ram_usage()
    image = ImageEmbeds(torch.zeros(1, 10), torch.zeros(1, 10), "a prior")
    assert image.get_ram_usage() == counted(image) == 80


def test_shared_memory_counts_once_and_a_view_counts_its_whole_storage() -> None:
    whole = torch.zeros(100)
    assert counted(ImageEmbeds(whole[:10], whole[50:], "a prior")) == 400
