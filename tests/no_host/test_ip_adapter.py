"""IP-Adapters give the numbers of diffusers' script, leave the shared UNet as it was, and refuse what they can't do."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffusers_relay.pipelines.adapters.ip_adapter_pictures import make_unit
from diffusers_relay.pipelines.adapters.ip_adapter_values import IpAdapter, IpAdapterUnit, stack_units
from diffusers_relay.pipelines.loading.ip_adapter import load_ip_adapter
from reference import task_scripts
from reference.ip_adapter_scripts import Adapter, half_mask, picture, prepare
from reference.scripts import read_like_host
from relay_dev.model_folders import SmallModels, small_models
from support.tasks import TASKS, assert_same, control_unit, paint, script_control
from support.without_host import counting_runtime, encode, load

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


def ours(name: str, task: str, adapters: Sequence[Adapter], controlled: bool = False, **settings: Any) -> np.ndarray:
    control = (control_unit(DEPTH[name]),) if controlled else ()
    prompt = encode(load(name), PROMPT, NEGATIVE)
    return paint(load(name), task, prompt, control=control, ip_adapter=units(adapters), **settings)


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
    **{f"sd15 {task}": ("sd15", task, [in_script(PLAIN, 1, weight=0.7)], False) for task in TASKS},
    **{f"sdxl {task}": ("sdxl_base", task, [in_script(SDXL, 1, weight=0.7)], False) for task in TASKS},
    "plus, two pictures": ("sd15", "text", [in_script(PLUS, 1, 2)], False),
    "full face": ("sd15", "text", [in_script(FULL, 1)], False),
    "sdxl plus with the other encoder": ("sdxl_base", "text", [in_script(SDXL_PLUS, 1, 2)], False),
    "two stacked": ("sd15", "text", [in_script(PLAIN, 1, weight=0.6), in_script(PLUS, 2, 3, weight=0.5)], False),
    "masked": ("sd15", "text", [in_script(PLAIN, 1, masks=[half_mask(0)])], False),
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
    "at the start": ("sd15", "text", [in_script(PLAIN, 1, end=0.5)], False),
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
    assert_same(made, script(models, name, task, adapters, controlled))
    without = ours(name, task, (), controlled)
    assert np.abs(made - without).max() > 1e-3, "the IP-Adapter changes nothing, so this proves nothing"
