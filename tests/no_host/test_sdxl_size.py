"""SDXL's sizes give the same picture as the script's arguments, and sizes that a run would ignore are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from diffusers_relay.pipelines.base.encoded_once import ENCODED
from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.images import Extent
from diffusers_relay.pipelines.device.offload import Stage
from diffusers_relay.pipelines.model.embeds import PromptEmbeds
from diffusers_relay.pipelines.model.mixing import mix
from diffusers_relay.pipelines.model.prompt_sizes import with_sizes
from diffusers_relay.pipelines.model.sdxl_sizes import PictureSizes, SdxlSizes, size_or_none
from diffusers_relay.weighting.compel_encoder import encode_prompt
from reference import task_scripts
from relay_dev.model_folders import SmallModels
from support.kandinsky import kandinsky_prompt
from support.tasks import TASKS, assert_same, control_unit, paint, script_control
from support.without_host import counting_runtime, encode, load

pytestmark = pytest.mark.usefixtures("inference_mode")
PROMPT, NEGATIVE = "a red cat", "dog"
SMALL, LARGE, TALL = Extent(64, 48), Extent(640, 512), Extent(300, 900)
CASES: dict[str, tuple[SdxlSizes, dict[str, Any]]] = {
    # {name: (the node's values, the script's arguments)}; a script's sizes are (height, width) and (top, left)
    "nothing set": (SdxlSizes(PictureSizes()), {}),
    "original": (SdxlSizes(PictureSizes(original=SMALL)), {"original_size": (48, 64)}),
    "target": (SdxlSizes(PictureSizes(target=LARGE)), {"target_size": (512, 640)}),
    "crop": (SdxlSizes(PictureSizes(crop_left=30, crop_top=200)), {"crops_coords_top_left": (200, 30)}),
    "all": (
        SdxlSizes(PictureSizes(TALL, 30, 200, LARGE), PictureSizes(SMALL, 7, 90, TALL)),
        {
            "original_size": (900, 300),
            "crops_coords_top_left": (200, 30),
            "target_size": (512, 640),
            "negative_original_size": (48, 64),
            "negative_crops_coords_top_left": (90, 7),
            "negative_target_size": (900, 300),
        },
    ),
    "negative": (
        SdxlSizes(PictureSizes(crop_top=100), PictureSizes(SMALL, target=LARGE)),
        {
            "crops_coords_top_left": (100, 0),
            "negative_original_size": (48, 64),
            "negative_target_size": (512, 640),
        },
    ),
}


def sized(model: str, sizes: SdxlSizes) -> PromptEmbeds:
    return with_sizes(encode(load(model), PROMPT, NEGATIVE), sizes)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("task", TASKS)
def test_sizes_are_the_script_s_arguments(models: SmallModels, task: str, case: str) -> None:
    sizes, arguments = CASES[case]
    ours = paint(load("sdxl_base"), task, sized("sdxl_base", sizes))
    assert_same(ours, task_scripts.paint(models.named["sdxl_base"], task, PROMPT, NEGATIVE, **arguments))
    free = paint(load("sdxl_base"), task, encode(load("sdxl_base"), PROMPT, NEGATIVE))
    if not arguments:
        assert np.array_equal(ours, free)
    else:
        assert np.abs(ours - free).max() > 1e-3, "the sizes change nothing, so this proves nothing"


@pytest.mark.parametrize(("task", "case"), [("text", "all"), ("image", "all"), ("inpaint", "crop")])
def test_sizes_with_a_controlnet(models: SmallModels, task: str, case: str) -> None:
    sizes, arguments = CASES[case]
    ours = paint(load("sdxl_base"), task, sized("sdxl_base", sizes), control=(control_unit("sdxl_depth"),))
    controls = [script_control("sdxl_depth")]
    script = task_scripts.paint(models.named["sdxl_base"], task, PROMPT, NEGATIVE, controls=controls, **arguments)
    assert_same(ours, script)


@pytest.mark.parametrize("task", ["image", "inpaint"])
def test_sizes_of_the_refiner(models: SmallModels, task: str) -> None:
    sizes = SdxlSizes(PictureSizes(TALL, 30, 200), PictureSizes(SMALL, 7, 90))
    arguments = {
        "original_size": (900, 300),
        "crops_coords_top_left": (200, 30),
        "negative_original_size": (48, 64),
        "negative_crops_coords_top_left": (90, 7),
    }
    ours = paint(load("sdxl_refiner"), task, sized("sdxl_refiner", sizes))
    assert_same(ours, task_scripts.paint(models.named["sdxl_refiner"], task, PROMPT, NEGATIVE, **arguments))


def test_one_unset_negative_size_is_that_of_the_prompt(models: SmallModels) -> None:
    """In text to image, diffusers ignores a negative size that comes alone."""
    sizes = SdxlSizes(PictureSizes(target=LARGE), PictureSizes(SMALL))
    arguments = {
        "target_size": (512, 640),
        "negative_original_size": (48, 64),
        "negative_target_size": (512, 640),
    }
    ours = paint(load("sdxl_base"), "text", sized("sdxl_base", sizes))
    assert_same(ours, task_scripts.paint(models.named["sdxl_base"], "text", PROMPT, NEGATIVE, **arguments))


def test_another_size_or_seed_encodes_nothing() -> None:
    model, runtime = load("sdxl_base"), counting_runtime()
    ENCODED.clear()
    prompt = encode_prompt(model, PROMPT, NEGATIVE, runtime, syntax="compel", clip_skip=0)
    assert runtime.policy.stages[Stage.TEXT] == 1
    for sizes, seed in ((SdxlSizes(PictureSizes(SMALL)), 1), (SdxlSizes(PictureSizes(LARGE)), 2)):
        again = encode_prompt(model, PROMPT, NEGATIVE, runtime, syntax="compel", clip_skip=0)
        paint(model, "text", with_sizes(again, sizes), runtime=runtime, seed=seed)
    assert runtime.policy.stages[Stage.TEXT] == 1
    assert prompt.sizes is None, "the prompt itself is unchanged"


def test_mixed_prompts_keep_their_sizes() -> None:
    sizes = SdxlSizes(PictureSizes(SMALL))
    first = sized("sdxl_base", sizes)
    second = replace(encode(load("sdxl_base"), "a dog"), sizes=sizes)
    assert mix(first, second, 0.3).sizes == sizes
    with pytest.raises(RelayError, match=r"different sizes from SDXL Size.*after Mix Prompts"):
        mix(first, replace(second, sizes=None), 0.3)


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        (SdxlSizes(PictureSizes(size_or_none(0, 64))), r"original_width, original_height: 0x64 is no size. Enter both"),
        (SdxlSizes(PictureSizes(target=size_or_none(64, 0))), r"target_width, target_height: 64x0 is no size"),
        (SdxlSizes(PictureSizes(), PictureSizes(size_or_none(0, 1))), r"negative_original_width, negative_original_h"),
        (
            SdxlSizes(PictureSizes(), PictureSizes(target=Extent(9, 0))),
            r"negative_target_width, negative_target_height",
        ),
        (
            SdxlSizes(PictureSizes(Extent(-5, 64))),
            r"original_width, original_height: -5x64 is not between 1x1 and 16384",
        ),
        (SdxlSizes(PictureSizes(Extent(20000, 64))), r"20000x64 is not between"),
        (SdxlSizes(PictureSizes(crop_left=-1)), r"crop_left: -1 is not between 0 and 16384"),
        (SdxlSizes(PictureSizes(crop_top=99999)), r"crop_top: 99999"),
        (SdxlSizes(PictureSizes(), PictureSizes(crop_top=-2)), r"negative_crop_top: -2"),
    ],
)
def test_an_impossible_size_is_refused_at_once(sizes: SdxlSizes, says: str) -> None:
    with pytest.raises(RelayError, match=says):
        sized("sdxl_base", sizes)


def test_image_embeddings_have_no_sizes() -> None:
    with pytest.raises(RelayError, match=r"prompt: it has image embeddings of .*only Stable Diffusion XL, Stable"):
        with_sizes(kandinsky_prompt(), SdxlSizes(PictureSizes(SMALL)))


@pytest.mark.parametrize("task", TASKS)
def test_a_family_that_reads_none(task: str) -> None:
    with pytest.raises(RelayError, match=r"sizes from SDXL Size, but sd15 .* reads none.*Stable Diffusion XL refiner"):
        paint(load("sd15"), task, sized("sd15", SdxlSizes(PictureSizes())))


@pytest.mark.parametrize(
    "sizes",
    [SdxlSizes(PictureSizes(target=LARGE)), SdxlSizes(PictureSizes(), PictureSizes(target=SMALL))],
    ids=["prompt", "negative"],
)
def test_the_refiner_reads_no_target(sizes: SdxlSizes) -> None:
    with pytest.raises(RelayError, match=r"target_width, target_height: .* sdxl_refiner .*aesthetic scores"):
        paint(load("sdxl_refiner"), "image", sized("sdxl_refiner", sizes))


def test_inpainting_with_controlnets_has_no_negative_sizes() -> None:
    prompt = sized("sdxl_base", SdxlSizes(PictureSizes(), PictureSizes(SMALL)))
    with pytest.raises(RelayError, match=r"prompt, control: .*no sizes for the negative prompt"):
        paint(load("sdxl_base"), "inpaint", prompt, control=(control_unit("sdxl_depth"),))
