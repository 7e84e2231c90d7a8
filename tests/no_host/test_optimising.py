"""Options change how a model runs, not what it paints. They take effect, are undone afterwards, and are rejected if they do nothing."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from diffusers_relay.pipelines.adapters.lora import with_lora
from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.control.units import make_unit
from diffusers_relay.pipelines.denoising import optimising
from diffusers_relay.pipelines.denoising.optimising import with_options
from diffusers_relay.pipelines.device.offload import PlainOffload
from diffusers_relay.pipelines.device.runtime import Runtime
from diffusers_relay.pipelines.latents.autoencoder import autoencoder_of
from diffusers_relay.pipelines.loading.controlnet import load_controlnet_folder
from diffusers_relay.pipelines.loading.folder import load_folder
from diffusers_relay.pipelines.model.components import PipelineComponents
from diffusers_relay.pipelines.model.options import ModelOptions
from diffusers_relay.pipelines.runs.sampling import TextToImageSettings, text_to_image
from reference.control_scripts import edges
from reference.scripts import read_like_host
from relay_dev.model_folders import SmallModels
from small_models.finetunes import make_finetune
from support.kandinsky import kandinsky_prompt
from support.versions import WITH_SD3_BLOCKS
from support.without_host import ListeningMonitor, Stopped, counting_runtime, encode, load

CPU = torch.device("cpu")
SETTINGS = TextToImageSettings(64, 64, 1, 3, 7.5, 6)
LORA = "sd15_kohya"
OTHER_KERNELS = 1e-4
"""Rounding differs, and three steps amplify it. Measured in the picture: sliced 6.5e-6, onednn 5.8e-6, channels_last 1.5e-5."""
COMPILED_HERE = ("sd15", "sdxl_base", "kandinsky_decoder")


@pytest.fixture(scope="module", autouse=True)
def models_of_its_own() -> Iterator[None]:
    """Moved weights have another memory address, which can change a result's last bit, so other tests get new models."""
    yield
    load.cache_clear()


def optimised(model: PipelineComponents, **options: Any) -> PipelineComponents:
    return with_options(model, ModelOptions(**options), CPU)


def paint(model: PipelineComponents, runtime: Runtime | None = None, control: Any = (), **changes: Any) -> torch.Tensor:
    prompt = kandinsky_prompt() if model.family.takes_image_embeds else encode(model, "a cat", "dog")
    settings = replace(SETTINGS, **changes)
    return text_to_image(model, prompt, settings, runtime or counting_runtime(), control=control).samples


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


class Looking(ListeningMonitor):
    """Records the result of `look` at each step."""

    def __init__(self, look: Any, stop_after: int | None = None) -> None:
        super().__init__(stop_after)
        self._look = look
        self.seen: list[Any] = []

    def progress(self, done: int, total: int, latents: torch.Tensor | None = None) -> None:
        self.seen.append(self._look())
        super().progress(done, total, latents)


def processors(model: PipelineComponents) -> set[str]:
    return {type(processor).__name__ for processor in denoiser(model).attn_processors.values()}


def denoiser(model: PipelineComponents) -> Any:
    return model[model.family.denoiser]


@pytest.mark.parametrize(
    ("name", "attention", "expected"),
    [
        ("sd15", "sliced", "SlicedAttnProcessor"),
        ("sd15", "sdpa", "AttnProcessor2_0"),
        ("sdxl_base", "sliced", "SlicedAttnProcessor"),
        ("kandinsky_decoder", "sliced", "SlicedAttnAddedKVProcessor"),
        ("kandinsky_decoder", "sdpa", "AttnAddedKVProcessor2_0"),
        *([("sd3", "sdpa", "JointAttnProcessor2_0")] if WITH_SD3_BLOCKS else []),
    ],
)
@pytest.mark.parametrize("stop_after", [None, 2])
def test_attention_takes_effect_and_is_as_it_was_afterwards(
    name: str, attention: str, expected: str, stop_after: int | None
) -> None:
    model = load(name)
    before = dict(denoiser(model).attn_processors)
    plain = paint(model)
    monitor = Looking(lambda: processors(model), stop_after)
    runtime = Runtime(PlainOffload(), monitor)
    if stop_after:
        with pytest.raises(Stopped):
            paint(optimised(model, attention=attention), runtime)
    else:
        most = OTHER_KERNELS if attention == "sliced" else 1e-5
        assert relative(paint(optimised(model, attention=attention), runtime), plain) <= most
    assert monitor.seen[0] == {expected}
    assert dict(denoiser(model).attn_processors) == before


def test_a_controlnet_is_run_alike(models: SmallModels) -> None:
    net = load_controlnet_folder(
        models.controlnets["sd15_canny"], dtype=torch.float32, source="canny", monitor=SilentMonitor()
    )
    before = dict(net.module.attn_processors)
    model = load("sd15")
    monitor = Looking(lambda: {type(one).__name__ for one in net.module.attn_processors.values()})
    unit = make_unit(net, read_like_host(edges()))
    paint(optimised(model, attention="sliced"), Runtime(PlainOffload(), monitor), (unit,))
    assert monitor.seen[0] == {"SlicedAttnProcessor"}
    assert dict(net.module.attn_processors) == before


def is_channels_last(model: PipelineComponents) -> bool:
    weight = model["unet"].mid_block.resnets[0].conv1.weight
    return weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


@pytest.mark.usefixtures("inference_mode")
def test_channels_last_on_one_branch_leaves_the_other_as_it_was() -> None:
    model = load("sd15")
    strides = {name: weight.stride() for name, weight in model["unet"].named_parameters()}
    plain = paint(model)
    other = optimised(model, channels_last=True)
    monitor = Looking(lambda: is_channels_last(model))
    pictures = [
        autoencoder_of(model).decode(latents, PlainOffload())
        for latents in (paint(other, Runtime(PlainOffload(), monitor)), plain)
    ]
    assert float((pictures[0] - pictures[1]).abs().max()) <= OTHER_KERNELS
    assert monitor.seen[0]
    assert torch.equal(paint(model), plain)
    assert not is_channels_last(model)
    assert {name: weight.stride() for name, weight in model["unet"].named_parameters()} == strides
    assert not model["unet"].conv_in.weight.is_inference()


def test_matmul_is_the_process_s_own_again_after_a_run_and_after_a_cancel() -> None:
    model = load("sd15")
    plain, settings = paint(model), torch.backends.mkldnn.matmul
    before = settings.fp32_precision
    for stop_after in (None, 2):
        monitor = Looking(lambda: settings.fp32_precision, stop_after)
        runtime = Runtime(PlainOffload(), monitor)
        if stop_after:
            with pytest.raises(Stopped):
                paint(optimised(model, matmul="onednn"), runtime)
        else:
            painted = paint(optimised(model, matmul="onednn"), runtime)
            # A processor with AMX multiplies in bfloat16.
            assert relative(painted, plain) <= (OTHER_KERNELS if not torch.cpu._is_amx_tile_supported() else 0.05)
        assert monitor.seen[0] == "bf16"
        assert settings.fp32_precision == before


@pytest.mark.parametrize("option", ["vae_tiling", "vae_slicing"])
def test_the_autoencoder_s_options_take_effect_and_are_gone_afterwards(
    option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load("sd15")
    vae = model["vae"]
    attribute = option.replace("vae_", "use_")
    seen: list[bool] = []
    forward = type(vae.decoder).forward

    def look(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(getattr(vae, attribute))
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(type(vae.decoder), "forward", look)
    latents = torch.randn(2, 4, 24, 24, generator=torch.Generator().manual_seed(1)) * 5
    plain = autoencoder_of(model).decode(latents, PlainOffload())
    calls = len(seen)
    decoded = autoencoder_of(optimised(model, **{option: True})).decode(latents, PlainOffload())
    assert len(seen) - calls > calls, "the picture is processed in more than one part"
    assert all(seen[calls:])
    assert getattr(vae, attribute) is False
    assert float((decoded - plain).abs().mean()) <= (1e-6 if option == "vae_slicing" else 0.05)


def test_tiles_are_for_encoding_too() -> None:
    model = load("sd15")
    pixels = torch.rand(1, 3, 192, 192, generator=torch.Generator().manual_seed(1)) * 2 - 1
    plain = autoencoder_of(model).encode(pixels, PlainOffload())
    tiled = autoencoder_of(optimised(model, vae_tiling=True)).encode(pixels, PlainOffload())
    assert tiled.shape == plain.shape
    assert not torch.equal(tiled, plain)


# --- compile


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch.compile without its last and slowest part: tracing and guards are the same, and the graphs run uncompiled."""
    monkeypatch.setattr(optimising, "BACKEND", "eager")
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    for name in COMPILED_HERE:  # other tests use the same models
        vars(load(name)["unet"]).pop(optimising.COMPILED, None)


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


def compiled_now(model: PipelineComponents) -> bool:
    return any(part._compiled_call_impl is not None for part in model["unet"].modules())


@pytest.mark.usefixtures("traced", "inference_mode")
@pytest.mark.parametrize("name", ["sd15", "sdxl_base"])
def test_nothing_is_compiled_twice(name: str) -> None:
    model = load(name)
    plain, fast = paint(model), optimised(model, compile="default")
    runtime = counting_runtime()
    assert relative(paint(fast, runtime), plain) <= 1e-5
    assert runtime.monitor.said == [
        f"Compiling {name}: the first step takes longer, and so does the first step at each new size."
    ]
    first = graphs()
    assert first >= 1
    runtime = counting_runtime()
    paint(fast, runtime, seed=7)
    assert graphs() == first, "another seed"
    assert runtime.monitor.said == []
    paint(fast, width=128)
    second = graphs()
    paint(fast, width=192)
    paint(fast, height=192, width=128)
    assert graphs() == second, "all other sizes share one graph"
    paint(fast, guidance_scale=1.0)
    paint(fast)
    paint(fast, guidance_scale=1.0)
    third = graphs()
    paint(fast)
    paint(fast, guidance_scale=1.0, width=128)
    assert graphs() == third, "alternating with and without guidance"


@pytest.mark.usefixtures("traced", "inference_mode")
def test_a_denoiser_with_no_recurring_blocks_is_compiled_whole() -> None:
    model = load("kandinsky_decoder")
    plain, fast = paint(model, steps=2), optimised(model, compile="default")
    assert relative(paint(fast, steps=2), plain) <= 1e-5
    known = graphs()
    assert known == 1
    paint(fast, steps=2, seed=7)
    assert graphs() == known


@pytest.mark.usefixtures("traced")
def test_a_lora_is_compiled_once_and_the_model_without_it_stays(models: SmallModels) -> None:
    model = load("sd15")
    path = models.models / "loras" / f"{LORA}.safetensors"
    with_it = with_lora(model, path, title=LORA, strength=0.7, text_strength=0.0)
    fast, fast_with_it = (optimised(one, compile="default") for one in (model, with_it))
    plain = paint(with_it)
    paint(fast)
    assert relative(paint(fast_with_it), plain) <= 1e-5
    known = graphs()
    for one in (fast, fast_with_it, fast, fast_with_it):
        paint(one, seed=8)
    assert graphs() == known
    assert relative(paint(fast_with_it), plain) <= 1e-5


@pytest.mark.usefixtures("traced")
def test_a_model_that_is_loaded_anew_uses_the_code_that_is_there(models: SmallModels, tmp_path: Path) -> None:
    folder = make_finetune(
        models.named["sd15"], tmp_path / "own", seed=4513
    )  # a model that other tests hold wouldn't be loaded again

    def fresh() -> PipelineComponents:
        return load_folder(folder, dtype=torch.float32, monitor=SilentMonitor())

    model = fresh()
    paint(optimised(model, compile="default"))
    known, unet = graphs(), weakref.ref(model["unet"])
    del model
    gc.collect()
    assert unet() is None, "compiled code must not keep a model"
    paint(optimised(fresh(), compile="default"))
    assert graphs() == known


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("stop_after", [None, 2])
def test_another_branch_of_the_same_model_runs_uncompiled(stop_after: int | None) -> None:
    model = load("sd15")
    monitor = Looking(lambda: compiled_now(model), stop_after)
    try:
        paint(optimised(model, compile="default"), Runtime(PlainOffload(), monitor))
    except Stopped:
        assert stop_after
    assert monitor.seen[0]
    assert not compiled_now(model)


def test_no_compiler_is_a_clear_error_and_the_next_run_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch._inductor.config

    torch._dynamo.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # no compiled code is cached there
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(torch._inductor.config, "fx_graph_cache", False)
    model = load("sd15")
    with pytest.raises(RelayError, match=r"compile: torch could not compile sd15 .* Set compile to off"):
        paint(optimised(model, compile="default"))
    assert not compiled_now(model)
    torch._dynamo.reset()
    assert torch.isfinite(paint(model)).all()


# --- rejected


@pytest.mark.parametrize(
    ("name", "options", "device", "message"),
    [
        ("kandinsky_prior", {}, "cpu", "model: kandinsky_prior .* has nothing to optimise here"),
        ("kandinsky_decoder", {"vae_tiling": True}, "cpu", r"vae_tiling: .*VQModel\) does not support it"),
        ("kandinsky_decoder", {"vae_slicing": True}, "cpu", r"vae_slicing: .*VQModel\) does not support it"),
        ("sd15", {"attention": "xformers"}, "cpu", "attention: xformers .* sdpa"),
        (
            "sd15",
            {"matmul": "onednn"},
            "cuda",
            "matmul: it only works in float32 on a CPU, and sd15 is in float32 on cuda",
        ),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(
    name: str, options: dict[str, Any], device: str, message: str
) -> None:
    with pytest.raises(RelayError, match=message):
        with_options(load(name), ModelOptions(**options), torch.device(device))


def test_xformers_on_a_cpu_is_refused_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xformers", type(sys)("xformers"))
    sys.modules["xformers"].__spec__ = type("Spec", (), {"name": "xformers"})()  # type: ignore[assignment]
    with pytest.raises(RelayError, match="attention: xformers runs on CUDA only, and the model runs on cpu"):
        optimised(load("sd15"), attention="xformers")


def test_matmul_for_half_precision_is_refused() -> None:
    with pytest.raises(RelayError, match="matmul: it only works in float32 on a CPU, and sd15 is in bfloat16 on cpu"):
        optimised(load("sd15", torch.bfloat16), matmul="onednn")
