"""A device that runs out of memory at any stage: nothing is lost, the second try gives the same result, and a failure is explained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from diffusers_relay.pipelines.base.encoded_once import ENCODED
from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.device.offload import Stage
from diffusers_relay.pipelines.device.runtime import Runtime
from diffusers_relay.pipelines.latents import encode_decode as coding
from diffusers_relay.pipelines.latents.autoencoder import autoencoder_of
from diffusers_relay.pipelines.latents.conversion import convert
from diffusers_relay.pipelines.latents.latent_space import Latents
from diffusers_relay.pipelines.runs.sampling import (
    ImageToImageSettings,
    TextToImageSettings,
    image_to_image,
    text_to_image,
)
from diffusers_relay.pipelines.runs.super_resolution import SuperResolutionSettings, super_resolution
from diffusers_relay.weighting.compel_encoder import encode_prompt
from support.without_host import CountingOffload, ListeningMonitor, encode, load

SAID = "CUDA out of memory. Tried to allocate 20.00 GiB."


class SmallDevice(CountingOffload):
    """Runs out of memory the first `refusals` times that `stage` runs, when its modules are first called."""

    def __init__(self, stage: Stage, refusals: int, error: Exception | None = None) -> None:
        super().__init__()
        self.stage, self.refusals, self.freed = stage, refusals, 0
        self.error = error or torch.cuda.OutOfMemoryError(SAID)

    @contextmanager
    def on_device(self, stage: Stage, modules: Iterable[Any], working_bytes: int = 0) -> Iterator[torch.device]:
        modules = list(modules)
        hooks = []
        if stage is self.stage and self.refusals:
            self.refusals -= 1
            hooks = [layer.register_forward_pre_hook(self._refuse) for module in modules for layer in module.modules()]
        try:
            with super().on_device(stage, modules, working_bytes) as device:
                yield device
        finally:
            for hook in hooks:
                hook.remove()

    def _refuse(self, *_: Any) -> None:
        raise self.error

    def free(self) -> None:
        self.freed += 1


@pytest.fixture(autouse=True)
def _nothing_encoded() -> Iterator[None]:
    ENCODED.clear()
    yield
    ENCODED.clear()


def paint(runtime: Runtime) -> torch.Tensor:
    model = load("sd15")
    prompt = encode(model, "a cat")
    return text_to_image(model, prompt, TextToImageSettings(64, 64, 2, 3, 7.5, 1), runtime).samples


def repaint(runtime: Runtime) -> torch.Tensor:
    model = load("sd15")
    prompt = encode(model, "a cat")
    picture = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(1))
    settings = ImageToImageSettings(strength=0.6, steps=4, guidance_scale=7.5, seed=3)
    return image_to_image(model, prompt, settings, runtime, image=picture).samples


def encode_text(runtime: Runtime) -> torch.Tensor:
    ENCODED.clear()
    text = encode_prompt(load("sdxl_base"), "a cat", "", syntax="compel", runtime=runtime)
    return text.positive.hidden


def encode_picture(runtime: Runtime) -> torch.Tensor:
    ENCODED.clear()
    picture = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(1))
    return coding.encode(load("sd15"), picture, 0, runtime).samples


def into_another_space(runtime: Runtime) -> torch.Tensor:
    ENCODED.clear()
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    sd15, sdxl = (autoencoder_of(load(name)) for name in ("sd15", "sdxl_base"))
    return convert(Latents(latents).with_samples(latents, sd15), sdxl, runtime).samples


def enlarge(runtime: Runtime) -> torch.Tensor:
    model = load("x4_upscaler")
    picture = torch.rand(1, 32, 32, 3, generator=torch.Generator().manual_seed(1))
    settings = SuperResolutionSettings(steps=2, guidance_scale=4.0, noise_level=20, seed=1, tile_size=0)
    return super_resolution(model, encode(model, "a cat"), settings, runtime, image=picture)


STAGES: dict[str, tuple[Callable[[Runtime], torch.Tensor], Stage]] = {
    "painting": (paint, Stage.DENOISE),
    "repainting": (repaint, Stage.DENOISE),
    "repainting, the picture": (repaint, Stage.VAE),
    "the text": (encode_text, Stage.TEXT),
    "a picture": (encode_picture, Stage.VAE),
    "super-resolution": (enlarge, Stage.DENOISE),
}


@pytest.mark.parametrize("what", STAGES)
def test_it_is_tried_once_more_with_nothing_else_there_and_gives_the_same(what: str) -> None:
    run, stage = STAGES[what]
    wanted = run(Runtime(CountingOffload(), ListeningMonitor()))
    ENCODED.clear()
    device, monitor = SmallDevice(stage, 1), ListeningMonitor()
    assert torch.equal(run(Runtime(device, monitor)), wanted)
    assert device.freed == 1
    assert any("ran out of memory" in text and "tried once more" in text for text in monitor.said)


@pytest.mark.parametrize("what", STAGES)
def test_twice_is_an_error_that_says_what_to_do_and_the_next_run_works(what: str) -> None:
    run, stage = STAGES[what]
    wanted = run(Runtime(CountingOffload(), ListeningMonitor()))
    ENCODED.clear()
    device = SmallDevice(stage, 2)
    with pytest.raises(RelayError, match=r"^The device ran out.*batch_size.*--novram.*Tried to allocate 20\.00 GiB"):
        run(Runtime(device, ListeningMonitor()))
    assert device.freed == 2, "the memory is freed after the second failure too"
    assert torch.equal(run(Runtime(device, ListeningMonitor())), wanted)


def test_a_decoding_is_tried_in_tiles() -> None:
    model = load("sd15")
    latents = torch.randn(1, 4, 40, 40, generator=torch.Generator().manual_seed(1))
    device, monitor = SmallDevice(Stage.VAE, 1), ListeningMonitor()
    picture = coding.decode(model, Latents(latents), False, Runtime(device, monitor))
    assert "in tiles" in monitor.said[0]
    tiled = coding.decode(model, Latents(latents), True, Runtime(CountingOffload(), ListeningMonitor()))
    whole = coding.decode(model, Latents(latents), False, Runtime(CountingOffload(), ListeningMonitor()))
    assert torch.equal(picture, tiled)
    assert not torch.equal(picture, whole), "tiled decoding must differ from decoding at once"
    with pytest.raises(RelayError, match=r"^The device ran out.*in tiles"):
        coding.decode(model, Latents(latents), False, Runtime(SmallDevice(Stage.VAE, 2), ListeningMonitor()))


def test_what_can_not_tile_decodes_once_more() -> None:
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    model, monitor = load("kandinsky_decoder"), ListeningMonitor()
    picture = coding.decode(model, Latents(latents), False, Runtime(SmallDevice(Stage.VAE, 1), monitor))
    assert "once more" in monitor.said[0]
    assert torch.equal(picture, coding.decode(model, Latents(latents), False, Runtime(CountingOffload(), monitor)))


def test_a_conversion_decodes_in_tiles_too() -> None:
    monitor = ListeningMonitor()
    assert into_another_space(Runtime(SmallDevice(Stage.VAE, 1), monitor)).isfinite().all()
    assert any("tried" in text for text in monitor.said)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
        ),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
        MemoryError("no room"),
    ],
)
def test_every_allocator_s_refusal_is_known(error: Exception) -> None:
    device = SmallDevice(Stage.DENOISE, 1, error)
    paint(Runtime(device, ListeningMonitor()))
    assert device.freed == 1


def test_another_error_is_not_tried_again() -> None:
    device = SmallDevice(Stage.DENOISE, 1, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        paint(Runtime(device, ListeningMonitor()))
    assert device.freed == 0
