"""ControlNet Union gives the same results as diffusers' own pipelines for it, and what they can't do is refused before anything runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetUnionModel
from safetensors.torch import load_file

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.control.unions import MODES, NO_MODE
from diffusers_relay.pipelines.control.units import ControlNet, ControlNetUnit, make_unit, stack_units
from diffusers_relay.pipelines.denoising.guidance import with_guidance
from diffusers_relay.pipelines.device.offload import Stage
from diffusers_relay.pipelines.device.streaming import streamed
from diffusers_relay.pipelines.latents.encode_decode import decode
from diffusers_relay.pipelines.latents.latent_space import Latents
from diffusers_relay.pipelines.loading.controlnet import load_controlnet_folder
from diffusers_relay.pipelines.loading.single_parts import load_controlnet_file
from diffusers_relay.pipelines.runs.inpainting import InpaintSettings, inpaint
from diffusers_relay.pipelines.runs.sampling import (
    ImageToImageSettings,
    TextToImageSettings,
    image_to_image,
    text_to_image,
)
from reference import union_scripts
from reference.control_scripts import edges
from reference.inpaint_scripts import as_mask, mask_picture
from reference.scripts import read_like_host, soft_picture
from reference.union_scripts import Mode
from relay_dev.model_folders import SmallModels, small_models
from support.checkpoints import write_file
from support.without_host import counting_runtime, encode, load

pytestmark = pytest.mark.usefixtures("inference_mode")
PROMPT, NEGATIVE = "a red cat", "dog"
WIDTH, HEIGHT = 72, 64
PICTURES = (edges(WIDTH, HEIGHT), soft_picture(WIDTH, HEIGHT, 5))
CASES: dict[str, tuple[Sequence[str], Sequence[tuple[str, dict[str, float]]]]] = {
    # {name: (Unions, (mode, settings) of each unit)}
    "one": (["sdxl_union"], [("canny/lineart/anime_lineart/mlsd", {"scale": 0.7, "end": 0.6})]),
    "two": (["sdxl_union"], [("depth", {"scale": 0.7}), ("segment", {"scale": 0.5, "start": 0.3})]),
    "promax": (["sdxl_promax"], [("repaint", {}), ("tile", {"scale": 0.6})]),
    "two Unions": (
        ["sdxl_union", "sdxl_promax"],
        [("openpose", {"scale": 0.7, "start": 0.3}), ("repaint", {"scale": 0.5, "start": 0.3})],
    ),
}


@cache
def union(name: str = "sdxl_union") -> ControlNet:
    return load_controlnet_folder(
        small_models().controlnets[name], dtype=torch.float32, source=name, monitor=SilentMonitor()
    )


def unit(name: str = "sdxl_union", mode: str = "depth", picture: Any = PICTURES[0], **settings: Any) -> ControlNetUnit:
    return make_unit(union(name), read_like_host(picture), mode=mode, **settings)


def units_of(case: str) -> tuple[ControlNetUnit, ...]:
    nets, modes = CASES[case]
    units: tuple[ControlNetUnit, ...] = ()
    for index, (mode, settings) in enumerate(modes):
        given = {"conditioning_scale" if key == "scale" else key: value for key, value in settings.items()}
        name = nets[index if len(nets) > 1 else 0]
        units = stack_units(units, unit(name, mode, PICTURES[index], **given))
    return units


def script(models: SmallModels, task: str, case: str, **settings: Any) -> np.ndarray:
    nets, modes = CASES[case]
    pictures = [
        Mode(MODES.index(mode), picture, **more) for (mode, more), picture in zip(modes, PICTURES, strict=False)
    ]
    folders = [models.controlnets[name] for name in nets]
    painted = union_scripts.run(
        task, models.named["sdxl_base"], folders, pictures, PROMPT, NEGATIVE, seed=3, **settings
    )
    return np.asarray(painted)


def paint(control: tuple[Any, ...], model: str = "sdxl_base", **settings: Any) -> Latents:
    components = load(model)
    given = {"width": WIDTH, "height": HEIGHT, "batch_size": 1, "steps": 4, "guidance_scale": 7.5, "seed": 3} | settings
    prompt = encode(components, PROMPT, NEGATIVE)
    return text_to_image(components, prompt, TextToImageSettings(**given), counting_runtime(), control=control)


def assert_script(ours: Latents, theirs: np.ndarray, without: Latents, tolerance: float = 0) -> None:
    pictures = [decode(load("sdxl_base"), latents, False, counting_runtime()).numpy() for latents in (ours, without)]
    assert pictures[0].shape == theirs.shape
    assert np.abs(pictures[0] - theirs).max() <= tolerance
    assert theirs.std() > 0.05, "a flat picture would prove nothing"
    assert np.abs(pictures[1] - theirs).mean() > 0.005, "the ControlNet changes nothing, so this proves nothing"


@pytest.mark.parametrize("case", CASES)
def test_text_to_image_is_the_script(models: SmallModels, case: str) -> None:
    theirs = script(models, "text", case, width=WIDTH, height=HEIGHT)
    assert_script(paint(units_of(case)), theirs, paint(()))


@pytest.mark.parametrize("case", ["one", "two"])
def test_image_to_image_is_the_script(models: SmallModels, case: str) -> None:
    picture = soft_picture(WIDTH, HEIGHT)
    theirs = script(models, "image", case, image=picture, strength=0.8, num_inference_steps=5)
    components = load("sdxl_base")

    def ours(control: tuple[Any, ...]) -> Latents:
        prompt, settings = encode(components, PROMPT, NEGATIVE), ImageToImageSettings(0.8, 5, 7.5, 3)
        image = read_like_host(picture)
        return image_to_image(components, prompt, settings, counting_runtime(), image=image, control=control)

    assert_script(ours(units_of(case)), theirs, ours(()))


@pytest.mark.parametrize("case", ["one", "promax"])
def test_inpainting_is_the_script(models: SmallModels, case: str) -> None:
    picture, mask = soft_picture(WIDTH, HEIGHT), mask_picture(WIDTH, HEIGHT, (16, 16, 56, 56))
    theirs = script(models, "inpaint", case, image=picture, mask_image=mask, width=WIDTH, height=HEIGHT, strength=0.9)
    assert_script(repaint(units_of(case)), theirs, repaint(()))


def repaint(control: tuple[Any, ...], model: str = "sdxl_base") -> Latents:
    components, mask = load(model), as_mask(mask_picture(WIDTH, HEIGHT, (16, 16, 56, 56)))
    return inpaint(
        components,
        encode(components, PROMPT, NEGATIVE),
        mask,
        InpaintSettings(0.9, 4, 7.5, 3),
        counting_runtime(),
        image=read_like_host(soft_picture(WIDTH, HEIGHT)),
        control=control,
    )


def test_a_batch_is_the_scripts_batch(models: SmallModels) -> None:
    """The Union's attention runs over the batch, so its pictures are not quite what they are alone. The help page says so."""
    pictures = torch.cat([read_like_host(edges(WIDTH, HEIGHT, seed)) for seed in (4, 5)])
    ours = paint((make_unit(union(), pictures, mode="depth"),), batch_size=2)
    theirs = union_scripts.run(
        *("text", models.named["sdxl_base"], [models.controlnets["sdxl_union"]]),
        *([Mode(MODES.index("depth"), pictures.movedim(-1, 1))], PROMPT, NEGATIVE),
        seed=(3, 4),
        width=WIDTH,
        height=HEIGHT,
    )
    assert_script(ours, theirs, paint((), batch_size=2), 1e-5)
    alone = paint((make_unit(union(), pictures[1:], mode="depth"),), seed=4).samples
    assert 1e-5 < float((ours.samples[1:] - alone).abs().max() / alone.abs().max()) < 0.05


def test_sdxl_stops_at_denoising_end_as_the_script_does(models: SmallModels) -> None:
    components, runtime = load("sdxl_base"), counting_runtime()
    ours = text_to_image(
        components,
        encode(components, PROMPT, NEGATIVE),
        TextToImageSettings(WIDTH, HEIGHT, 1, 5, 7.5, 3, denoising_end=0.8),
        runtime,
        control=units_of("two"),
    )
    size = {"width": WIDTH, "height": HEIGHT, "num_inference_steps": 5}
    theirs = script(models, "text", "two", **size, denoising_end=0.8, output_type="latent")
    assert np.array_equal(ours.samples.numpy(), theirs / components["vae"].config.scaling_factor)
    assert runtime.monitor.steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_union_that_is_applied_twice_is_on_the_device_once() -> None:
    seen: list[list[str]] = []
    runtime = counting_runtime()
    inner = runtime.policy.on_device

    def on_device(stage: Stage, modules: Any, working_bytes: int = 0) -> Any:
        if stage is Stage.DENOISE:
            seen.append([type(module).__name__ for module in modules])
        return inner(stage, modules, working_bytes)

    runtime.policy.on_device = on_device  # type: ignore[method-assign]
    components = load("sdxl_base")
    settings = TextToImageSettings(64, 64, 1, 2, 5.0, 1)
    text_to_image(components, encode(components, PROMPT), settings, runtime, control=units_of("two"))
    assert seen == [["UNet2DConditionModel", "ControlNetUnionModel"]]


def test_a_streamed_union_gives_the_same(models: SmallModels) -> None:
    net = ControlNetUnionModel.from_pretrained(models.controlnets["sdxl_promax"], torch_dtype=torch.float32)
    with streamed(net, torch.device("cpu")):
        ours = paint((make_unit(ControlNet("promax", net), read_like_host(PICTURES[0]), mode="tile"),)).samples
    assert torch.equal(ours, paint((unit("sdxl_promax", "tile"),)).samples)


# --- what diffusers can't do


def test_without_guidance_guess_mode_is_the_script_and_with_guidance_it_is_refused(models: SmallModels) -> None:
    control = (unit(guess_mode=True),)
    settings = {"width": WIDTH, "height": HEIGHT, "guess_mode": True}
    mode = [Mode(MODES.index("depth"), PICTURES[0])]
    arguments = ("text", models.named["sdxl_base"], [models.controlnets["sdxl_union"]], mode, PROMPT, NEGATIVE)
    theirs = union_scripts.run(*arguments, seed=3, guidance_scale=1.0, **settings)
    components = load("sdxl_base")
    ours = decode(components, paint(control, guidance_scale=1.0), False, counting_runtime()).numpy()
    assert np.abs(ours - theirs).max() == 0
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):  # fixed upstream? Then allow it
        union_scripts.run(*arguments, **settings)
    with pytest.raises(RelayError, match=r"^guess_mode, guidance_scale: with a ControlNet Union \(sdxl_union\)"):
        paint(control)


def test_no_pag() -> None:
    components = with_guidance(load("sdxl_base"), 0.0, 3.0, "mid")
    settings = TextToImageSettings(64, 64, 1, 2, 5.0, 1)
    with pytest.raises(RelayError, match=r"^pag_scale: diffusers has no PAG for text-to-image with ControlNet Unions"):
        text_to_image(components, encode(components, PROMPT), settings, counting_runtime(), control=(unit(),))


def test_no_guidance_rescale_but_in_inpainting() -> None:
    components = with_guidance(load("sdxl_base"), 0.5, 0.0, "")
    prompt, settings = encode(components, PROMPT), TextToImageSettings(64, 64, 1, 2, 5.0, 1)
    with pytest.raises(RelayError, match=r"^guidance_rescale: .*It is used in: .*inpainting with ControlNet Unions"):
        text_to_image(components, prompt, settings, counting_runtime(), control=(unit(),))


def test_no_model_for_inpainting() -> None:
    with pytest.raises(RelayError, match=r"control: diffusers can't inpaint with a ControlNet Union \(sdxl_union\)"):
        repaint((unit(),), "sdxl_inpaint")


def test_no_other_family() -> None:
    with pytest.raises(RelayError, match=r"control: sdxl_union is a ControlNetUnionModel, which sd15 .* can't use"):
        paint((unit(),), "sd15")


def test_a_union_is_not_combined_with_an_ordinary_controlnet() -> None:
    ordinary = make_unit(union("sdxl_depth"), read_like_host(PICTURES[0]))
    for first, second in ((ordinary, unit()), (unit(), ordinary)):
        message = r"control: diffusers can't combine a ControlNet Union \(sdxl_union\) with an ordinary ControlNet \(sdxl_depth\)"
        with pytest.raises(RelayError, match=message):
            stack_units((first,), second)


def test_several_unions_take_one_picture_each() -> None:
    with pytest.raises(RelayError, match=r"control: with several ControlNet Unions \(sdxl_union, sdxl_promax\)"):
        stack_units((unit(), unit(mode="normal")), unit("sdxl_promax"))


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("sdxl_union", NO_MODE, r"mode: sdxl_union is a ControlNet Union, .*Choose one of: openpose, .*, segment\.$"),
        ("sdxl_promax", NO_MODE, r"mode: sdxl_promax is a ControlNet Union, .* tile, repaint\.$"),
        ("sdxl_union", "tile", r"mode: sdxl_union has no mode tile\. It has: openpose, .*, segment\."),
        ("sdxl_union", "canny", r"mode: sdxl_union has no mode canny\."),
        ("sdxl_depth", "depth", r"mode: sdxl_depth is not a ControlNet Union .* Set mode to none, not depth"),
    ],
)
def test_a_mode_that_does_not_belong_to_the_controlnet(name: str, mode: str, message: str) -> None:
    with pytest.raises(RelayError, match=message):
        make_unit(union(name), read_like_host(PICTURES[0]), mode=mode)


# --- loading


def edited(models: SmallModels, folder: Path, name: str = "sdxl_promax", **changes: Any) -> Path:
    """A copy with other entries in its config; None removes one."""
    shutil.copytree(models.controlnets[name], folder)
    config = json.loads((folder / "config.json").read_text("utf-8")) | changes
    kept = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept), "utf-8")
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"_class_name": "ControlNetModel"},  # as in xinsir's own repository
        {"_class_name": "ControlNetModel_Union"},
        {"num_control_type": None},
        {"num_control_type": 6},
    ],
    ids=str,
)
def test_the_tensors_tell_a_union_and_its_modes(models: SmallModels, tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = edited(models, tmp_path / "promax", **changes)
    net = load_controlnet_folder(folder, dtype=torch.float32, monitor=SilentMonitor())
    assert type(net.module) is ControlNetUnionModel
    assert net.control_types == 8
    for key, value in union("sdxl_promax").module.state_dict().items():
        assert torch.equal(net.module.state_dict()[key], value)


def test_a_config_that_no_union_has(models: SmallModels, tmp_path: Path) -> None:
    for number, changes in enumerate(({"num_trans_layer": 10**6}, {"num_trans_head": 0}, {"num_proj_channel": "x"})):
        folder = edited(models, tmp_path / str(number), **changes)
        with pytest.raises(RelayError, match=rf"config\.json: {next(iter(changes))}"):
            load_controlnet_folder(folder, dtype=torch.float32, source="net", monitor=SilentMonitor())


def file_of(models: SmallModels, tmp_path: Path, name: str, **changes: torch.Tensor | None) -> tuple[Path, Path]:
    """A single file, and a folder with the config of its layout at the small model's size."""
    configs = tmp_path / "configs"
    shutil.copytree(models.controlnets["sdxl_depth"], configs / "sdxl" / "controlnet")
    weights = load_file(models.controlnets[name] / "diffusion_pytorch_model.safetensors")
    kept = {key: value for key, value in (weights | changes).items() if value is not None}
    return write_file(tmp_path / "union.safetensors", kept), configs


@pytest.mark.parametrize("name", ["sdxl_union", "sdxl_promax"])
def test_a_single_file_is_the_folder(models: SmallModels, tmp_path: Path, name: str) -> None:
    file, configs = file_of(models, tmp_path, name)
    module = load_controlnet_file(file, torch.float32, configs=configs)
    assert load_controlnet_file(file, torch.float32, configs=configs) is module
    assert not module.training
    net = ControlNet("file", module)
    assert net.control_types == {"sdxl_union": 6, "sdxl_promax": 8}[name]
    ours = paint((make_unit(net, read_like_host(PICTURES[0]), mode="depth"),)).samples
    assert torch.equal(ours, paint((unit(name),)).samples)
    assert load_controlnet_file(file, torch.bfloat16, configs=configs).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spatial_ch_projs.bias": None}, r"the tensors of its controlnet don't match the ControlNetUnionModel"),
        ({"spatial_ch_projs.weight": None}, r"its blocks are not arranged like"),
        ({"more": torch.zeros(1)}, r"the tensors of its controlnet don't match the ControlNetUnionModel"),
        (
            {"control_add_embedding.linear_1.bias": torch.zeros(3)},
            r"control_add_embedding\.linear_1\.bias has shape \[3\], but this kind has \[128\]",
        ),
        ({"task_embedding": torch.zeros(0, 32)}, r"the tensors of its controlnet don't match the ControlNetModel"),
    ],
    ids=str,
)
def test_a_damaged_file(
    models: SmallModels, tmp_path: Path, changes: dict[str, torch.Tensor | None], message: str
) -> None:
    file, configs = file_of(models, tmp_path, "sdxl_union", **changes)
    with pytest.raises(RelayError, match=message):
        load_controlnet_file(file, torch.float32, configs=configs)
