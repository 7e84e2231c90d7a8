"""Modules that don't fit: which ones stream, that the picture is the same, and that no hooks remain."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from diffusers_relay.pipelines.adapters.lora import with_lora
from diffusers_relay.pipelines.base.memory_size import module_bytes
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.control.units import ControlNet, make_unit
from diffusers_relay.pipelines.device.offload import PlainOffload, Stage, cast, move
from diffusers_relay.pipelines.device.runtime import Runtime
from diffusers_relay.pipelines.device.streaming import choose_streamed, resident_bytes
from diffusers_relay.pipelines.latents.encode_decode import decode
from diffusers_relay.pipelines.latents.latent_space import Latents
from diffusers_relay.pipelines.loading.controlnet import load_controlnet_folder
from diffusers_relay.pipelines.model.components import PipelineComponents
from diffusers_relay.pipelines.runs.sampling import TextToImageSettings, text_to_image
from diffusers_relay.weighting.compel_encoder import encode_prompt
from relay_dev.model_folders import SmallModels, small_models
from support.kandinsky import kandinsky_prompt
from support.without_host import ListeningMonitor, Stopped, encode, load

SETTINGS = TextToImageSettings(64, 64, 1, 3, 7.5, 3)


@pytest.mark.parametrize(
    ("sizes", "working", "capacity", "chosen"),
    [
        ([], 10, 5, ()),
        ([100], 50, None, ()),  # a CPU, where the modules already are
        ([100], 50, 150, ()),
        ([100], 50, 149, (0,)),
        ([100], 500, 149, (0,)),  # even the working memory doesn't fit: stream anyway
        ([100, 30], 50, 180, ()),
        ([100, 30], 50, 179, (0,)),  # streaming the largest is enough
        ([30, 100], 50, 179, (1,)),
        ([100, 30, 20], 50, 99, (0, 1)),
        ([100, 30, 20], 50, 69, (0, 1, 2)),
        ([20, 20], 0, 20, (0,)),
        ([100, 30], 0, 0, (0, 1)),  # the user asked for it
    ],
)
def test_which_modules_stream(
    sizes: Sequence[int], working: int, capacity: int | None, chosen: tuple[int, ...]
) -> None:
    assert choose_streamed(sizes, working, capacity) == chosen


class Blocks(torch.nn.Module):
    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(width, 1, bias=False) for width in widths)
        self.outside = torch.nn.Linear(5, 1, bias=False)


def test_what_of_a_streamed_module_is_on_the_device() -> None:
    """Everything outside blocks, plus the two largest blocks: one at work and one prefetched."""
    module = Blocks(10, 30, 20)
    assert resident_bytes(module) == 4 * (5 + 30 + 20)
    unet = load("sd15")["unet"]
    assert 0 < resident_bytes(unet) < module_bytes([unet])
    clip = torch.nn.Module()
    clip.text_model = torch.nn.Module()
    clip.text_model.encoder = Blocks(10, 30, 20)
    assert resident_bytes(clip) == 4 * (5 + 30 + 20), "a CLIP's layers are two levels down"


class LookingMonitor(ListeningMonitor):
    """Counts the group offloading hooks on the modules during the run."""

    def __init__(self, *modules: torch.nn.Module, stop_after: int | None = None) -> None:
        super().__init__(stop_after)
        self._modules = modules
        self.hooks: list[int] = []

    def progress(self, done: int, total: int, latents: torch.Tensor | None = None) -> None:
        self.hooks.append(min(hooks_on(module) for module in self._modules))
        super().progress(done, total, latents)


def hooks_on(module: torch.nn.Module) -> int:
    return sum("_diffusers_hook" in vars(part) or "forward" in vars(part) for part in module.modules())


def state(module: torch.nn.Module) -> dict[str, Any]:
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {name: (id(t), t.data_ptr(), str(t.device), t.is_inference()) for name, t in tensors}


def paint(model: PipelineComponents, policy: PlainOffload, monitor: ListeningMonitor, **inputs: Any) -> torch.Tensor:
    prompt = kandinsky_prompt() if model.family.takes_image_embeds else encode(model, "a red cat", "ugly")
    return text_to_image(model, prompt, SETTINGS, Runtime(policy, monitor), **inputs).samples


@pytest.mark.parametrize("name", ["sd15", "sdxl_base", "kandinsky_decoder", "flux_dev"])
def test_a_streamed_denoiser_paints_the_same(inference_mode: None, name: str, caplog: pytest.LogCaptureFixture) -> None:
    model = load(name)
    denoiser = model[model.family.denoiser]
    whole, before = paint(model, PlainOffload(), ListeningMonitor()), state(denoiser)
    monitor = LookingMonitor(denoiser)
    with caplog.at_level(logging.INFO):
        streamed = paint(model, PlainOffload(capacity=1000), monitor)
    assert torch.equal(streamed, whole)
    if name == "flux_dev":  # its pipeline leaves a registry of hooks, which must not keep those of the stream before
        assert torch.equal(paint(model, PlainOffload(capacity=1000), ListeningMonitor()), whole)
    assert min(monitor.hooks) >= 3, "a hook for each block"
    assert hooks_on(denoiser) == 0
    assert state(denoiser) == before
    assert type(denoiser).__name__ in caplog.text and "streamed block by block" in caplog.text


def test_what_fits_does_not_stream(caplog: pytest.LogCaptureFixture) -> None:
    model = load("sd15")
    monitor = LookingMonitor(model["unet"])
    with caplog.at_level(logging.INFO):
        paint(model, PlainOffload(capacity=10**9), monitor)
    assert max(monitor.hooks) == 0
    assert "streamed" not in caplog.text


def test_a_lora_streams_with_its_layers(inference_mode: None, models: SmallModels) -> None:
    path = models.models / "loras" / "sd15_kohya.safetensors"
    model = with_lora(load("sd15"), path, title="kohya", strength=1.0, text_strength=1.0)
    before, monitor = state(model["unet"]), LookingMonitor(model["unet"])
    whole = paint(model, PlainOffload(), ListeningMonitor())
    assert torch.equal(paint(model, PlainOffload(capacity=1000), monitor), whole)
    assert not torch.equal(paint(load("sd15"), PlainOffload(), ListeningMonitor()), whole)
    assert min(monitor.hooks) > 3
    assert (hooks_on(model["unet"]), state(model["unet"])) == (0, before)


def depth_net() -> ControlNet:
    folder = small_models().controlnets["sd15_depth"]
    return load_controlnet_folder(folder, dtype=torch.float32, source="sd15_depth", monitor=SilentMonitor())


def test_denoiser_and_controlnet_stream_together() -> None:
    model, net = load("sd15"), depth_net()
    control = (make_unit(net, torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(1))),)
    whole = paint(model, PlainOffload(), ListeningMonitor(), control=control)
    monitor = LookingMonitor(model["unet"], net.module)
    assert torch.equal(paint(model, PlainOffload(capacity=1000), monitor, control=control), whole)
    assert min(monitor.hooks) > 3
    assert hooks_on(net.module) == hooks_on(model["unet"]) == 0


@pytest.mark.parametrize("name", ["sd15", "sdxl_base", "flux_dev"])
def test_a_streamed_text_encoder_encodes_the_same(inference_mode: None, name: str) -> None:
    """Then runs it twice without streaming: at a module's first call, transformers marks that it has added its own hooks."""
    model = load(name)

    def hidden(policy: PlainOffload) -> torch.Tensor:
        embeds = encode_prompt(model, "a cat", "b", syntax="compel", runtime=Runtime(policy, SilentMonitor()))
        return embeds.positive.hidden

    streamed = hidden(PlainOffload(capacity=1000))
    assert torch.equal(streamed, hidden(PlainOffload()))
    assert torch.equal(streamed, hidden(PlainOffload(capacity=1000)))
    assert all(hooks_on(model[encoder]) == 0 for encoder in model.family.text_encoders)


def test_a_cancel_takes_the_hooks_off() -> None:
    model = load("sd15")
    before = state(model["unet"])
    with pytest.raises(Stopped):
        paint(model, PlainOffload(capacity=1000), LookingMonitor(model["unet"], stop_after=2))
    assert (hooks_on(model["unet"]), state(model["unet"])) == (0, before)


def test_a_stage_that_calls_nothing_leaves_nothing() -> None:
    unet = load("sd15")["unet"]
    with PlainOffload(capacity=1000).on_device(Stage.DENOISE, [unet]):
        assert hooks_on(unet) == 1
    assert hooks_on(unet) == 0


def test_the_weights_are_the_very_tensors_that_they_were(inference_mode: None) -> None:
    """On a GPU, moving a block back would make copies: inference tensors, which can't be used anywhere else."""
    with torch.inference_mode(False):
        module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)).requires_grad_(False)
    x = torch.ones(1, 4)
    answer, before = module(x), state(module)
    with PlainOffload(capacity=1).on_device(Stage.DENOISE, [module]):
        module(x)
        for weight in module.parameters():
            weight.data = weight.data.clone()
        assert module[0].weight.is_inference()
    assert state(module) == before
    assert torch.equal(module(x), answer)


def test_an_autoencoder_never_streams() -> None:
    vae = load("sd15")["vae"]
    with PlainOffload(capacity=1000).on_device(Stage.VAE, [vae]):
        assert hooks_on(vae) == 0


def test_nothing_holds_a_module_that_was_streamed() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 4))
    with PlainOffload(capacity=1).on_device(Stage.DENOISE, [module]):
        module(torch.zeros(1, 4))
    gone = weakref.ref(module)
    del module
    gc.collect()
    assert gone() is None


def test_weights_moved_or_cast_in_inference_mode_can_be_used_outside() -> None:
    """In torch, a tensor made in inference mode stays an inference tensor."""
    moved, half = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    with torch.inference_mode():
        move(moved, torch.device("meta"))
        cast(half, torch.float16)
    assert moved.weight.is_meta and half.weight.dtype == torch.float16
    assert not moved.weight.is_inference() and not half.weight.is_inference()


def test_an_autoencoder_that_was_cast_up_can_be_used_outside(inference_mode: None) -> None:
    model = load("sdxl_base", torch.float16)
    assert model["vae"].config.force_upcast
    before = state(model["vae"])
    decode(model, Latents(torch.zeros(1, 4, 8, 8)), False, Runtime(PlainOffload(), SilentMonitor()))
    assert {name: values[3] for name, values in before.items()} == dict.fromkeys(before, False)
    assert not any(values[3] for values in state(model["vae"]).values())
