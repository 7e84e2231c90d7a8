"""Our modules under the host's memory manager, in its process: its list, limits, flags and log."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import comfy
import comfy.model_management as memory
import pytest
import torch

from diffusers_relay.nodes.comfy_host import HostOffload, mark_as_model
from diffusers_relay.pipelines.adapters.lora import with_lora
from diffusers_relay.pipelines.base.encoded_once import ENCODED
from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.memory_size import module_bytes
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.device.offload import PlainOffload, Stage
from diffusers_relay.pipelines.device.runtime import Runtime
from diffusers_relay.pipelines.device.streaming import resident_bytes
from diffusers_relay.pipelines.device.working_memory import unet_bytes
from diffusers_relay.pipelines.latents.encode_decode import decode
from diffusers_relay.pipelines.loading.folder import load_folder
from diffusers_relay.pipelines.model.components import PipelineComponents
from diffusers_relay.pipelines.runs.sampling import TextToImageSettings, text_to_image
from diffusers_relay.weighting.compel_encoder import encode_prompt
from relay_dev.model_folders import SmallModels
from small_models.native_checkpoint import NATIVE_NAME
from support.small_card import SmallCard
from support.without_host import load

SETTINGS = TextToImageSettings(64, 64, 1, 2, 7.5, 3)


@pytest.fixture(scope="module", autouse=True)
def models_of_its_own() -> Iterator[None]:
    """Moved weights have another memory address, which can change a result's last bit, so other tests get new models."""
    yield
    load.cache_clear()


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """The host's list is empty before and after, and nodes run in inference mode."""
    unload_everything()
    with torch.inference_mode():
        yield
    unload_everything()


def unload_everything() -> None:
    for device in (torch.device("cpu"), SmallCard.device):
        memory.free_memory(1e30, device)
    assert memory.current_loaded_models == []


def paint(model: PipelineComponents, policy: Any = None) -> torch.Tensor:
    """Runs all stages (text, denoising, decoding) without the cache of encoded values."""
    ENCODED.clear()
    runtime = Runtime(policy or HostOffload(), SilentMonitor())
    prompt = encode_prompt(model, "a red cat", "b", syntax="compel", runtime=runtime)
    return decode(model, text_to_image(model, prompt, SETTINGS, runtime), False, runtime)


def entries() -> dict[str, tuple[int, int]]:
    """The host's list: {class: (size, loaded bytes)}."""
    return {
        e.model.model.__class__.__name__: (e.model_memory(), e.model_loaded_memory())
        for e in memory.current_loaded_models
    }


def parts(model: PipelineComponents) -> dict[str, tuple[int, int]]:
    names = ("text_encoder", "unet", "vae")
    return {type(model[name]).__name__: (memory.module_size(model[name]),) * 2 for name in names}


def test_every_module_of_a_run_is_in_the_host_s_list_whole() -> None:
    model = load("sd15")
    paint(model)
    assert entries() == parts(model)
    assert entries()["UNet2DConditionModel"][0] == module_bytes([model["unet"]])


def test_a_module_is_in_the_list_once_whatever_uses_it(models: SmallModels) -> None:
    model = load("sd15")
    lora = models.models / "loras" / "sd15_kohya.safetensors"
    other = with_lora(model, lora, title="kohya", strength=1.0, text_strength=1.0)
    first = paint(model)
    paint(other)
    paint(model, HostOffload())
    assert entries() == parts(model), "each module is there once, without the LoRA's weights"
    assert torch.equal(paint(model), first)


def test_unloaded_by_the_host_they_come_back_by_themselves() -> None:
    model = load("sd15")
    first = paint(model)
    memory.free_memory(1e30, memory.get_torch_device())
    assert entries() == {}
    assert torch.equal(paint(model), first)
    assert entries() == parts(model)
    memory.unload_all_models()
    assert entries() == {}
    assert torch.equal(paint(model), first)
    assert torch.equal(paint(model, PlainOffload()), first)


def test_what_nobody_holds_the_host_forgets(models: SmallModels, caplog: pytest.LogCaptureFixture) -> None:
    model = load_folder(models.named["pixel"], dtype=torch.float32, monitor=SilentMonitor())
    paint(model)
    gone = [weakref.ref(model[name]) for name in ("unet", "vae", "text_encoder")]
    patchers = [weakref.ref(entry.model) for entry in memory.current_loaded_models]
    assert len(patchers) == 3
    del model
    gc.collect()
    assert [ref() for ref in gone] == [None] * 3
    assert [ref() for ref in patchers] == [None] * 3
    assert memory.current_loaded_models == []
    memory.cleanup_models_gc()
    assert "leak" not in caplog.text


def test_a_module_that_is_dropped_is_gone_at_once() -> None:
    """Reference counting is enough, as the registry requires: the host's list and ours create no cycle."""
    module = linear(4, 4)
    gc.disable()
    try:
        with HostOffload().on_device(Stage.DENOISE, [module]):
            pass
        assert list(entries()) == ["Linear"]
        gone = weakref.ref(module)
        del module
        assert gone() is None
        assert memory.current_loaded_models == []
    finally:
        gc.enable()


def test_the_log_names_them_as_it_names_the_host_s_own(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        paint(load("sd15"))
        memory.unload_all_models()
    for name in ("CLIPTextModel", "UNet2DConditionModel", "AutoencoderKL"):
        assert f"Requested to load {name}" in caplog.text
        assert f"Unloading {name}" in caplog.text


def test_weights_are_no_inference_tensors_after_the_host_moved_them() -> None:
    module = linear(4, 4)
    patcher = patcher_of(module)
    memory.load_models_gpu([patcher])
    patcher.model.to(torch.device("meta"))
    assert module.weight.is_meta
    assert not module.weight.is_inference()


def linear(inputs: int, outputs: int) -> torch.nn.Module:
    """Made outside inference mode, like the modules from the pack's loaders."""
    with torch.inference_mode(False):
        return torch.nn.Linear(inputs, outputs, bias=False).requires_grad_(False)


def patcher_of(module: torch.nn.Module) -> Any:
    with HostOffload().on_device(Stage.DENOISE, [module]):
        pass
    return memory.current_loaded_models[0].model


class OutOfMemory(SilentMonitor):
    """Runs out of memory at the second step."""

    def progress(self, done: int, total: int, latents: torch.Tensor | None = None) -> None:
        if done == 2:
            raise memory.OOM_EXCEPTION("simulated")


def test_out_of_memory_unloads_ours_and_the_next_run_is_right(models: SmallModels) -> None:
    """Everything is then unloaded, twice, while a LoRA is in the UNet."""
    model = load("sd15")
    lora = models.models / "loras" / "sd15_kohya.safetensors"
    adapted = with_lora(model, lora, title="kohya", strength=1.0, text_strength=0.0)
    first = paint(adapted)
    runtime = Runtime(HostOffload(), OutOfMemory())
    prompt = encode_prompt(adapted, "a", "b", syntax="compel", runtime=runtime)
    with pytest.raises(RelayError, match=r"^The device ran out of memory twice"):
        text_to_image(adapted, prompt, SETTINGS, runtime)
    assert entries() == {}
    assert torch.equal(paint(adapted), first)


# --- a card that is too small -----------------------------------------------------------------------------------


def test_a_refused_stage_is_tried_once_more_with_everything_unloaded() -> None:
    model = load("sd15")
    wanted = paint(model)
    unet, listed = model["unet"], []

    def refuse_once(*_: Any) -> None:
        listed.append(len(memory.current_loaded_models))
        if len(listed) == 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    hook = unet.register_forward_pre_hook(refuse_once)
    try:
        assert torch.equal(paint(model), wanted)
    finally:
        hook.remove()
    assert listed[0] > listed[1] == 1, "the second time only the UNet is loaded"


def test_stages_take_turns_on_a_card_that_holds_one(small_card: Callable[[int], SmallCard]) -> None:
    """Each stage's modules are loaded completely, with the memory that the stage asked for, and the others were unloaded."""
    model = load("sd15")
    expected = paint(model, PlainOffload())
    unet = memory.module_size(model["unet"])
    work = unet_bytes(model["unet"], rows=2, latent_pixels=64)
    card = small_card(int(unet * 1.1) + work + 1000)
    for _ in range(2):
        assert torch.equal(paint(model), expected)
        assert list(entries()) == ["AutoencoderKL"], "the UNet doesn't fit together with what decoding needs"
        assert card.used() <= card.size


def test_a_card_that_holds_all_keeps_all(small_card: Callable[[int], SmallCard]) -> None:
    model = load("sd15")
    small_card(10**9)
    paint(model)
    assert entries() == parts(model)
    assert {str(entry.device) for entry in memory.current_loaded_models} == {"cpu:0"}


def test_the_host_is_asked_for_the_work_too(small_card: Callable[[int], SmallCard]) -> None:
    module = linear(1000, 1000)
    card = small_card(10**9)
    with HostOffload().on_device(Stage.DENOISE, [module], working_bytes=12_345_678):
        pass
    assert card.asked[0] == int(4_000_000 * 1.1) + 12_345_678


def test_all_modules_of_a_stage_are_there_together(small_card: Callable[[int], SmallCard]) -> None:
    """A second call would evict the first call's modules: the host adds 10 % to the size of what it loads."""
    modules = [linear(1000, 1000) for _ in range(3)]
    small_card(15_000_000)
    for _ in range(2):
        with HostOffload().on_device(Stage.DENOISE, modules, working_bytes=2_700_000):
            loaded = [entry.model_loaded_memory() for entry in memory.current_loaded_models]
            assert loaded == [4_000_000] * 3


def test_what_does_not_stream_is_loaded_whole_however_little_room_there_is(
    small_card: Callable[[int], SmallCard],
) -> None:
    """The host's own patcher would silently leave some layers unloaded."""
    with torch.inference_mode(False):
        module = torch.nn.Sequential(*(torch.nn.Linear(500, 500, bias=False) for _ in range(4))).requires_grad_(False)
    small_card(5_000_000)
    with HostOffload().on_device(Stage.VAE, [module], working_bytes=3_000_000):
        assert entries() == {"Sequential": (4_000_000, 4_000_000)}


def test_native_and_ours_evict_each_other(small_card: Callable[[int], SmallCard], models: SmallModels) -> None:
    """The native VAE has 335 MB and needs another 36 MB to decode this; ours has 200 MB."""
    import comfy.sd

    path = str(models.models / "checkpoints" / f"{NATIVE_NAME}.safetensors")
    card = small_card(450_000_000)
    native = comfy.sd.load_checkpoint_guess_config(path, output_clip=False, output_model=False)[2]
    ours = linear(10_000, 5_000)
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    x = torch.ones(1, 10_000)
    picture, answer = native.decode(latent), ours(x)
    assert list(entries()) == ["AutoencoderKL"]
    for _ in range(2):
        with HostOffload().on_device(Stage.DENOISE, [ours]):
            assert torch.equal(ours(x), answer)
        found = entries()
        assert found["Linear"] == (200_000_000,) * 2, "ours is loaded completely"
        assert found.get("AutoencoderKL", (0, 0))[1] < 250_000_000, "the native one was unloaded, partly or completely"
        assert card.used() <= card.size
        assert torch.equal(native.decode(latent), picture)
        assert list(entries()) == ["AutoencoderKL"], "ours was unloaded completely"


# --- the user's flags -------------------------------------------------------------------------------------------


def test_smart_memory_disabled_leaves_a_stage_alone_on_the_card(
    small_card: Callable[[int], SmallCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "DISABLE_SMART_MEMORY", True)
    small_card(10**9)
    paint(load("sd15"))
    assert list(entries()) == ["AutoencoderKL"]


@pytest.mark.parametrize(
    ("state", "gpu_only", "homes"),
    [
        ("NORMAL_VRAM", False, {"text": "cpu", "vae": "cpu", "denoise": "cpu"}),
        ("HIGH_VRAM", False, {"text": "cpu", "vae": "cpu", "denoise": "cpu:0"}),
        ("HIGH_VRAM", True, {"text": "cpu:0", "vae": "cpu:0", "denoise": "cpu:0"}),
    ],
)
def test_where_modules_go_to_make_room_is_as_for_native_models(
    small_card: Callable[[int], SmallCard],
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    gpu_only: bool,
    homes: dict[str, str],
) -> None:
    small_card(10**9)
    monkeypatch.setattr(memory, "vram_state", memory.VRAMState[state])
    monkeypatch.setattr(memory.args, "gpu_only", gpu_only)
    for stage in Stage:
        module = linear(4, 4)
        with HostOffload().on_device(stage, [module]):
            patcher = memory.current_loaded_models[0].model
            assert (str(patcher.load_device), str(patcher.offload_device)) == ("cpu:0", homes[stage.value])


def test_cpu_vae_is_followed(small_card: Callable[[int], SmallCard], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also, a module that the host wants on another device leaves the old one."""
    card, module = small_card(10**9), linear(4, 4)
    with HostOffload().on_device(Stage.VAE, [module]) as device:
        assert (str(device), card.used()) == ("cpu:0", 64)
    monkeypatch.setattr(memory.args, "cpu_vae", True)
    with HostOffload().on_device(Stage.VAE, [module]) as device:
        assert (str(device), card.used()) == ("cpu", 0)
    assert entries() == {"Linear": (64, 64)}


@pytest.mark.parametrize("state", ["LOW_VRAM", "NO_VRAM"])
def test_lowvram_and_novram_stream(
    small_card: Callable[[int], SmallCard],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    state: str,
) -> None:
    model = load("sd15")
    expected = paint(model, PlainOffload())
    small_card(10**9)
    monkeypatch.setattr(memory, "vram_state", memory.VRAMState[state])
    with caplog.at_level(logging.INFO):
        assert torch.equal(paint(model), expected)
    assert "UNet2DConditionModel" in streamed_in(caplog)
    assert "UNet2DConditionModel" not in entries()
    assert "AutoencoderKL" in entries()


@pytest.mark.parametrize(("state", "streams"), [("LOW_VRAM", False), ("NO_VRAM", True), ("NORMAL_VRAM", False)])
def test_with_dynamic_vram_lowvram_does_nothing(
    small_card: Callable[[int], SmallCard], monkeypatch: pytest.MonkeyPatch, state: str, streams: bool
) -> None:
    """Newer hosts have dynamic VRAM, where their own models ignore --lowvram. Here, only the flag that says so is theirs."""
    unet, card = load("sd15")["unet"], small_card(10**9)
    monkeypatch.setattr(memory, "vram_state", memory.VRAMState[state])
    host = getattr(comfy, "memory_management", None)
    if host is None:
        monkeypatch.setattr(comfy, "memory_management", SimpleNamespace(aimdo_enabled=True), raising=False)
    else:
        monkeypatch.setattr(host, "aimdo_enabled", True)
    with HostOffload().on_device(Stage.DENOISE, [unet]):
        assert card.used() == (0 if streams else module_bytes([unet]))


def test_what_streams_leaves_the_card_and_asks_for_the_room_of_its_blocks(
    small_card: Callable[[int], SmallCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    unet, card = load("sd15")["unet"], small_card(10**9)
    with HostOffload().on_device(Stage.DENOISE, [unet]):
        assert card.used() == module_bytes([unet])
    monkeypatch.setattr(memory, "vram_state", memory.VRAMState.NO_VRAM)
    card.asked.clear()
    with HostOffload().on_device(Stage.DENOISE, [unet], working_bytes=1_000_000):
        assert card.used() == 0
        assert entries() == {}
    assert card.asked == [1_000_000 + resident_bytes(unet)]


def test_what_is_larger_than_the_card_streams(
    small_card: Callable[[int], SmallCard], caplog: pytest.LogCaptureFixture
) -> None:
    model = load("sd15")
    expected = paint(model, PlainOffload())
    card = small_card(10**9)
    paint(model)
    assert "UNet2DConditionModel" in entries()
    card.size = memory.module_size(model["unet"]) - 1
    with caplog.at_level(logging.INFO):
        assert torch.equal(paint(model), expected)
    assert streamed_in(caplog) == ["UNet2DConditionModel"]
    assert "UNet2DConditionModel" not in entries()
    assert not any("_diffusers_hook" in vars(part) for part in model["unet"].modules())


def streamed_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage().split()[0] for record in caplog.records if "streamed block by block" in record.getMessage()
    ]


class Heavy(torch.nn.Linear):
    """A layer that doesn't fit on the card."""

    def to(self, device: torch.device) -> Any:  # type: ignore[override]
        if str(device) == "cpu:0":
            raise memory.OOM_EXCEPTION("simulated")
        return super().to(device)


def test_a_load_that_fails_leaves_nothing_on_the_card(small_card: Callable[[int], SmallCard]) -> None:
    """The host has removed the module from its list and couldn't find it again to unload it."""
    card, first = small_card(10**9), linear(4, 4)
    patcher = patcher_of(first)
    with torch.inference_mode(False):
        heavy = Heavy(4, 4)
    for _ in range(2):
        with pytest.raises(memory.OOM_EXCEPTION), HostOffload().on_device(Stage.DENOISE, [first, heavy]):
            pass
        assert patcher.loaded_size() == 0
        assert card.used() == 0
    with HostOffload().on_device(Stage.DENOISE, [first]):
        assert patcher.loaded_size() == card.used() == 64


# --- the host runs short of RAM ------------------------------------------------------------------


def test_the_host_s_cache_drops_a_model_before_a_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short of memory, the host's cache drops outputs until there is enough: on 0.3.75 with --cache-ram, on newer ones always."""
    from comfy.cli_args import args
    from comfy_execution import caching

    if not hasattr(args, "cache_ram"):  # an older host without this cache
        assert not hasattr(caching, "RAMPressureCache")
        return
    model = load("sd15").with_changes(source="a copy")
    mark_as_model(model)
    prompt = encode_prompt(model, "a", "b", syntax="compel", runtime=Runtime(HostOffload(), SilentMonitor()))
    cache = caching.RAMPressureCache(caching.CacheKeySetID)
    outputs = {"prompt": prompt, "model": model, "picture": torch.zeros(1, 64, 64, 3)}
    cache.cache = Dropping({name: Entry([[output]], None) for name, output in outputs.items()})
    cache.used_generation = dict.fromkeys(outputs, cache.generation - 1)
    cache.timestamps = dict.fromkeys(outputs, 0)
    monkeypatch.setattr(caching.psutil, "virtual_memory", lambda: SimpleNamespace(available=0))
    if hasattr(cache, "ram_release"):
        cache.ram_release(1)
    else:
        cache.poll(ram_headroom=1)
    assert cache.cache.dropped[0] == "model"


class Entry(NamedTuple):
    """An entry of the host's cache: newer hosts ask for ``outputs``, older ones unpack it."""

    outputs: list[list[Any]]
    ui: None


class Dropping(dict[str, Entry]):
    """The host's cache, which notes what is dropped."""

    def __init__(self, entries: dict[str, Entry]) -> None:
        super().__init__(entries)
        self.dropped: list[str] = []

    def __delitem__(self, name: str) -> None:
        self.dropped.append(name)
        super().__delitem__(name)
