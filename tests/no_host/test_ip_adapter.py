"""IP-Adapters give the numbers of diffusers' script, leave the shared UNet as it was, and refuse what they can't do."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffusers_relay.pipelines.adapters.ip_adapter import fit_ip_adapters, scales_at
from diffusers_relay.pipelines.adapters.ip_adapter_pictures import make_unit
from diffusers_relay.pipelines.adapters.ip_adapter_values import IpAdapter, IpAdapterUnit, stack_units
from diffusers_relay.pipelines.adapters.lora import with_lora
from diffusers_relay.pipelines.base.encoded_once import ENCODED
from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.images import Extent
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.denoising.guidance import with_guidance
from diffusers_relay.pipelines.denoising.optimising import with_options
from diffusers_relay.pipelines.device.offload import PlainOffload, Stage
from diffusers_relay.pipelines.device.runtime import Runtime
from diffusers_relay.pipelines.device.working_memory import vision_bytes
from diffusers_relay.pipelines.latents.autoencoder import autoencoder_of
from diffusers_relay.pipelines.loading.folder import load_folder
from diffusers_relay.pipelines.loading.ip_adapter import load_ip_adapter
from diffusers_relay.pipelines.model.family import Task
from diffusers_relay.pipelines.model.options import ModelOptions
from diffusers_relay.pipelines.runs.mask_crop import Region, crop_to_mask
from diffusers_relay.pipelines.runs.sampling import TextToImageSettings, text_to_image
from reference import task_scripts
from reference.ip_adapter_scripts import Adapter, half_mask, picture, prepare
from reference.scripts import read_like_host
from relay_dev.model_folders import SmallModels, small_models
from support.lcm import make_lcm
from support.tasks import assert_same, control_unit, paint, script_control
from support.without_host import CountingOffload, ListeningMonitor, Stopped, counting_runtime, encode, load

pytestmark = pytest.mark.usefixtures("inference_mode")
PROMPT, NEGATIVE = "a red cat", "dog"
PLAIN, PLUS, FULL = (f"models/ip-adapter{kind}_sd15.safetensors" for kind in ("", "-plus", "-full-face"))
SDXL, SDXL_PLUS = "sdxl_models/ip-adapter_sdxl.safetensors", "sdxl_models/ip-adapter-plus_sdxl_vit-h.safetensors"
SMALL, LARGE = "small_vit_h", "small_vit_g"
ENCODERS = {PLAIN: SMALL, PLUS: SMALL, FULL: SMALL, SDXL: LARGE, SDXL_PLUS: SMALL}


def encoder_folder(name: str) -> Any:
    return small_models().models / "clip_vision" / name


@cache
def adapter(file: str, dtype: torch.dtype = torch.float32) -> IpAdapter:
    encoder = ENCODERS[file]
    path = small_models().models / "ipadapter" / file
    return load_ip_adapter(path, encoder_folder(encoder), dtype, source=file, encoder_source=encoder)


def in_script(file: str, *pictures: int, **settings: Any) -> Adapter:
    return Adapter(small_models().models / "ipadapter" / file, [picture(one) for one in pictures], **settings)


def as_mask(masks: Sequence[Image.Image]) -> torch.Tensor | None:
    return torch.stack([torch.from_numpy(np.array(one) / 255) for one in masks]).float() if masks else None


def units(adapters: Sequence[Adapter]) -> tuple[IpAdapterUnit, ...]:
    made: tuple[IpAdapterUnit, ...] = ()
    root = small_models().models / "ipadapter"
    for one in adapters:
        images = torch.cat([read_like_host(picture) for picture in one.pictures])
        loaded = adapter(one.file.relative_to(root).as_posix())
        unit = make_unit(loaded, images, one.weight, one.start, one.end, as_mask(one.masks), counting_runtime())
        made = stack_units(made, unit)
    return made


def ours(
    name: str, task: str, adapters: Sequence[Adapter], controlled: bool = False, model: Any = None, **settings: Any
) -> np.ndarray:
    control = (control_unit(DEPTH[name]),) if controlled else ()
    made = units(adapters)  # before the prompt, which clears the cache of encodings
    return paint(model or load(name), task, prompt_for(name), control=control, ip_adapter=made, **settings)


@cache
def prompt_for(name: str) -> Any:
    return encode(load(name), PROMPT, NEGATIVE)


def script(
    models: SmallModels, name: str, task: str, adapters: Sequence[Adapter], controlled: bool = False, **settings: Any
) -> np.ndarray:
    controls = [script_control(DEPTH[name])] if controlled else []
    encoder = encoder_folder(ENCODERS[adapters[0].file.relative_to(small_models().models / "ipadapter").as_posix()])
    guided = settings.get("guidance_scale", 5.0) > 1
    made: np.ndarray = task_scripts.paint(
        models.named[name],
        task,
        PROMPT,
        NEGATIVE,
        controls=controls,
        prepare=prepare(adapters, encoder, guided=guided),
        **settings,
    )
    return made


DEPTH = {"sd15": "sd15_depth", "sdxl_base": "sdxl_depth"}
CASES: dict[str, tuple[str, str, list[Adapter], bool]] = {
    # {name: (model, task, adapters, with a ControlNet)}
    "sd15": ("sd15", "text", [in_script(PLAIN, 1, weight=0.7)], False),
    "sd15, inpainting": ("sd15", "inpaint", [in_script(PLAIN, 1)], False),
    "sdxl": ("sdxl_base", "text", [in_script(SDXL, 1, weight=0.7)], False),
    "sdxl, inpainting": ("sdxl_base", "inpaint", [in_script(SDXL, 1)], False),
    "plus, two pictures": ("sd15", "text", [in_script(PLUS, 1, 2)], False),
    "full face": ("sd15", "text", [in_script(FULL, 1)], False),
    "sdxl plus with the other encoder": ("sdxl_base", "text", [in_script(SDXL_PLUS, 1, 2)], False),
    "two stacked": ("sd15", "text", [in_script(PLAIN, 1, weight=0.6), in_script(PLUS, 2, 3, weight=0.5)], False),
    "two pictures, each with a mask": (
        *("sdxl_base", "text"),
        [in_script(SDXL, 1, 2, masks=[half_mask(0), half_mask(1)])],
        False,
    ),
    "stacked, one masked": (
        *("sd15", "image"),
        [in_script(PLAIN, 1, masks=[half_mask(1)]), in_script(PLUS, 2, weight=0.5)],
        False,
    ),
    "at the end": ("sdxl_base", "image", [in_script(SDXL, 1, start=0.3)], False),
    "one after the other": (
        *("sd15", "text"),
        [in_script(PLAIN, 1, end=0.5), in_script(PLUS, 2, start=0.5, weight=0.8)],
        False,
    ),
    "sd15 with a ControlNet": ("sd15", "text", [in_script(PLAIN, 1)], True),
    "sdxl with a ControlNet": ("sdxl_base", "image", [in_script(SDXL, 1)], True),
}


@pytest.mark.parametrize("case", CASES)
def test_the_script_s_numbers(models: SmallModels, case: str) -> None:
    name, task, adapters, controlled = CASES[case]
    made = ours(name, task, adapters, controlled)
    theirs = script(models, name, task, adapters, controlled)
    assert np.array_equal(made, theirs) or (controlled and np.abs(made - theirs).max() <= 1e-5)
    without = ours(name, task, (), controlled)
    assert np.abs(made - without).max() > 1e-3, "the IP-Adapter changes nothing, so this proves nothing"


def test_without_guidance(models: SmallModels) -> None:
    one = [in_script(PLAIN, 1)]
    assert_same(ours("sd15", "text", one, guidance_scale=1.0), script(models, "sd15", "text", one, guidance_scale=1.0))


def test_with_pag(models: SmallModels) -> None:
    """Plus, whose projection has attention processors of its own, which PAG's pipeline saves and restores with the others."""
    one, model = [in_script(PLUS, 1)], with_guidance(load("sd15"), 0.0, 3.0, "mid")
    pag = {"enable_pag": True, "pag_applied_layers": ["mid"]}
    assert_same(ours("sd15", "text", one, model=model), script(models, "sd15", "text", one, load=pag, pag_scale=3.0))


def test_with_a_lora(models: SmallModels) -> None:
    path = models.models / "loras" / "sd15_unet_only.safetensors"
    one = [in_script(PLAIN, 1)]
    model = with_lora(load("sd15"), path, title="unet only", strength=0.8, text_strength=0.0)
    begin = prepare(one, encoder_folder(SMALL))

    def both(pipeline: Any) -> dict[str, Any]:
        pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name="a")
        pipeline.set_adapters(["a"], [0.8])
        return begin(pipeline)

    theirs = task_scripts.paint(models.named["sd15"], "text", PROMPT, NEGATIVE, prepare=both)
    assert_same(ours("sd15", "text", one, model=model), theirs)


def test_a_latent_consistency_model(tmp_path: Path) -> None:
    """It has no second half of the batch, whatever the guidance."""
    folder = make_lcm(tmp_path / "lcm")
    model = load_folder(folder, dtype=torch.float32, source="lcm", monitor=SilentMonitor())
    one = [in_script(PLAIN, 1)]
    made = paint(model, "text", encode(model, PROMPT), ip_adapter=units(one), guidance_scale=8.5)
    begin = prepare(one, encoder_folder(SMALL), guided=False)
    theirs = task_scripts.paint(folder, "text", PROMPT, takes_negative=False, guidance_scale=8.5, prepare=begin)
    assert_same(made, theirs)


def test_each_picture_of_a_batch_is_that_of_its_own_run() -> None:
    made = units([in_script(PLAIN, 1, 2, masks=[half_mask(0)])])
    settings = TextToImageSettings(64, 64, 2, 3, 5.0, 7)
    together = text_to_image(load("sd15"), prompt_for("sd15"), settings, counting_runtime(), ip_adapter=made).samples
    for index in range(2):
        one = replace(settings, batch_size=1, seed=7 + index)
        alone = text_to_image(load("sd15"), prompt_for("sd15"), one, counting_runtime(), ip_adapter=made).samples
        assert (together[index] - alone[0]).abs().max() <= 1e-4


# --- the shared model


def state_of(unet: Any) -> tuple[Any, ...]:
    """What an IP-Adapter changes in a UNet."""
    modules = [(name, id(module)) for name, module in unet.named_modules()]
    own = {name: value for name, value in vars(unet).items() if name == "encoder_hid_proj"}
    children = list(unet._modules)
    return dict(unet.attn_processors), modules, own, children, unet.config.encoder_hid_dim_type, dict(unet.config)


@pytest.mark.parametrize("first", ["with", "without"])
def test_branches_stay_apart(models: SmallModels, first: str) -> None:
    """Two samplers with the same model, in both orders, give the numbers of single runs."""
    one = [in_script(PLUS, 1)]
    runs = {"with": lambda: ours("sd15", "text", one), "without": lambda: ours("sd15", "text", ())}
    made = {name: runs[name]() for name in (first, *(name for name in runs if name != first))}
    assert np.array_equal(made["with"], script(models, "sd15", "text", one))
    plain = task_scripts.paint(models.named["sd15"], "text", PROMPT, NEGATIVE)
    assert np.array_equal(made["without"], plain)


@pytest.mark.parametrize(("file", "options"), [(PLAIN, "auto"), (PLUS, "sdpa")])
@pytest.mark.parametrize("stopped", [False, True])
def test_the_unet_is_as_before_even_after_an_error(file: str, options: str, stopped: bool) -> None:
    model = load("sd15")
    before = state_of(model["unet"])
    weights = adapter(file).weights
    kept = {name: (id(value), value.data_ptr()) for name, value in weights.named_parameters()}
    runtime = counting_runtime(stop_after=2 if stopped else None)
    view = with_options(model, ModelOptions(attention=options), torch.device("cpu"))
    with pytest.raises(Stopped) if stopped else nullcontext():
        ours("sd15", "text", [in_script(file, 1)], model=view, runtime=runtime)
    assert state_of(model["unet"]) == before
    assert {name: (id(value), value.data_ptr()) for name, value in weights.named_parameters()} == kept
    assert len(runtime.monitor.steps) >= 2


def test_pictures_are_embedded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, calls = adapter(PLUS).encoder, list[int]()
    ENCODED.clear()
    handle = encoder.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        made = units([in_script(PLUS, 1)])
        assert len(calls) == 2, "the picture, and what stands for none"
        for seed in (3, 4):
            paint(load("sd15"), "text", prompt_for("sd15"), ip_adapter=made, seed=seed)
        units([in_script(PLUS, 1, weight=0.3, end=0.5)])
        assert len(calls) == 2, "another seed or weight encodes nothing"
        units([in_script(PLUS, 2)])
        assert len(calls) == 4
    finally:
        handle.remove()


def test_weights_are_in_memory_once_and_the_memory_manager_knows_them() -> None:
    first, again = adapter(PLAIN), load_ip_adapter_again(PLAIN)
    assert first.weights is again.weights
    assert first.encoder is again.encoder
    seen: list[list[Any]] = []

    class Watching(CountingOffload):
        @contextmanager
        def on_device(self, stage: Stage, modules: Any, working_bytes: int = 0) -> Any:
            seen.append([stage, list(modules), working_bytes])
            with super().on_device(stage, seen[-1][1], working_bytes) as device:
                yield device

    runtime = Runtime(Watching(), ListeningMonitor())
    ENCODED.clear()
    two = in_script(PLAIN, 1, 2)
    images = torch.cat([read_like_host(one) for one in two.pictures])
    unit = make_unit(first, images, 1.0, 0.0, 1.0, None, runtime)
    assert seen == [[Stage.TEXT, [first.encoder], vision_bytes(first.encoder, pictures=2)]]
    settings = TextToImageSettings(64, 64, 1, 1, 5.0, 7)
    for chosen in ((), (unit, unit)):
        text_to_image(load("sd15"), prompt_for("sd15"), settings, runtime, ip_adapter=chosen)
    (_, without, plain_bytes), (_, used, more_bytes) = [entry for entry in seen if entry[0] is Stage.DENOISE]
    assert used == [*without, first.weights]
    assert more_bytes > plain_bytes
    assert unit.get_ram_usage() > first.get_ram_usage() > load("sd15")["unet"].dtype.itemsize


def load_ip_adapter_again(file: str) -> IpAdapter:
    adapter.cache_clear()
    return adapter(file)


# --- settings


def test_a_step_counts_if_it_lies_in_the_range() -> None:
    unit = replace(units([in_script(PLAIN, 1)])[0], weight=0.5)
    ranges = {(0.0, 1.0): [0.5] * 4, (0.25, 0.75): [0, 0.5, 0.5, 0], (0.3, 1.0): [0, 0, 0.5, 0.5], (0.0, 0.2): [0] * 4}
    for (start, end), weights in ranges.items():
        one = replace(unit, start=start, end=end)
        assert [scales_at([one], step, 4)[0] for step in range(4)] == weights


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"weight": float("nan")}, "weight: nan can't be used"),
        ({"start": 0.5, "end": 0.5}, "start, end: an IP-Adapter can't be applied from 0.5 to 0.5"),
        ({"end": 1.5}, "start, end: .* from 0 to 1.5"),
        ({"mask": torch.ones(2, 8, 8)}, "mask: there are 2 masks for 1 picture"),
        ({"mask": torch.full((1, 8, 8), float("inf"))}, "mask: expected .* values 0..1"),
        ({"mask": torch.ones(1, 8, 8, 3)}, r"mask: expected .* got shape \[1, 8, 8, 3\]"),
        ({"images": torch.ones(1, 8, 8, 2)}, "image: expected .* with 1 .* channels"),
        ({"images": torch.ones(0, 8, 8, 3)}, "image: the batch is empty"),
        ({"images": torch.ones(65, 8, 8, 3)}, "images: 65 pictures are too many. Connect at most 64"),
    ],
)
def test_bad_settings(changes: dict[str, Any], says: str) -> None:
    values = {"images": torch.ones(1, 8, 8, 3), "weight": 1.0, "start": 0.0, "end": 1.0, "mask": None} | changes
    with pytest.raises(RelayError, match=says):
        make_unit(adapter(PLAIN), **values, runtime=counting_runtime())


@pytest.mark.parametrize(
    ("name", "file", "says"),
    [
        (
            "sdxl_base",
            PLAIN,
            r"was made for another kind of model than sdxl_base .*: it is for .* width of 32, and the model's have 64",
        ),
        ("sd15", SDXL, "was made for another kind of model than sd15 .* width of 64, and the model's have 32"),
        ("sdxl_refiner", PLAIN, "the layers of models/ip-adapter_sd15.safetensors are not those of sdxl_refiner"),
        (
            "kandinsky_decoder",
            PLAIN,
            "kandinsky_decoder .* can't use an IP-Adapter in image-to-image.*Stable Diffusion",
        ),
    ],
)
def test_another_model_is_refused_before_anything_runs(name: str, file: str, says: str) -> None:
    made = units([in_script(file, 1)])
    with pytest.raises(RelayError, match=f"ip_adapter: .*{says}"):
        fit_ip_adapters(made, load(name), Task.IMAGE_TO_IMAGE, Extent(64, 64), control=False)


def test_another_dtype_or_sliced_attention_is_refused() -> None:
    made = units([in_script(PLAIN, 1)])
    half = replace(made[0], adapter=adapter(PLAIN, torch.bfloat16))
    extent = Extent(64, 64)
    with pytest.raises(RelayError, match=r"is loaded in bfloat16 and sd15 in float32. Choose the same dtype"):
        fit_ip_adapters((half,), load("sd15"), Task.TEXT_TO_IMAGE, extent, control=False)
    sliced = load("sd15").with_changes(options=ModelOptions(attention="sliced"))
    with pytest.raises(RelayError, match=r"can't combine an IP-Adapter with sliced attention. Set attention to auto"):
        fit_ip_adapters(made, sliced, Task.TEXT_TO_IMAGE, extent, control=False)


def test_half_precision_runs() -> None:
    loaded = adapter(PLAIN, torch.bfloat16)
    made = make_unit(loaded, read_like_host(picture(1)), 1.0, 0.0, 1.0, None, counting_runtime())
    model = load("sd15", torch.bfloat16)
    settings = TextToImageSettings(64, 64, 1, 2, 5.0, 7)
    found = text_to_image(model, encode(model, PROMPT), settings, counting_runtime(), ip_adapter=(made,)).samples
    plain = text_to_image(model, encode(model, PROMPT), settings, counting_runtime()).samples
    assert not torch.equal(found, plain)
    assert {value.dtype for value in loaded.weights.parameters()} == {torch.bfloat16}


def test_a_streamed_unet_gives_the_same_numbers() -> None:
    """On a device with too little memory, the UNet and the IP-Adapter's layers in it are moved block by block."""
    made = units([in_script(PLUS, 1)])
    whole = paint(load("sd15"), "text", prompt_for("sd15"), ip_adapter=made)
    before = state_of(load("sd15")["unet"])
    runtime = Runtime(PlainOffload("cpu", capacity=1), ListeningMonitor())
    assert np.array_equal(paint(load("sd15"), "text", prompt_for("sd15"), ip_adapter=made, runtime=runtime), whole)
    assert state_of(load("sd15")["unet"]) == before


def test_the_mask_of_an_ip_adapter_is_cut_out_with_the_picture() -> None:
    """It is that of the whole picture, so on the region that is painted it must be the same as on the picture."""
    picture = torch.rand(1, 128, 128, 3)
    repaint = torch.zeros(1, 128, 128)
    repaint[:, 70:110, 70:110] = 1
    crop = crop_to_mask(load("sd15"), autoencoder_of(load("sd15")), picture, repaint, 12)
    marked = torch.zeros(1, 128, 128)
    marked[:, :, :90] = 1
    (unit,) = crop.of_adapters([replace(units([in_script(PLAIN, 1)])[0], mask=marked)])
    shown = replace(crop, pictures=marked[..., None].expand(-1, -1, -1, 3)).pixels()[:, 0] / 2 + 0.5
    assert unit.mask.shape == shown.shape and 0.2 < float(shown.mean()) < 0.8
    assert torch.allclose(unit.mask, shown, atol=1e-6)
    two = replace(crop, regions=(*crop.regions, Region(0, 0, 64, 64)))
    with pytest.raises(RelayError, match="padding_mask_crop: the pictures of the batch have different regions"):
        two.of_adapters([unit])
