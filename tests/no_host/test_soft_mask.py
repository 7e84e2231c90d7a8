"""soft_mask: the mask's grey values say from which step on a pixel is repainted."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EDMEulerScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from PIL import Image

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.denoising.noise_law import part_of_noise_left
from diffusers_relay.pipelines.latents.encode_decode import decode
from diffusers_relay.pipelines.latents.encode_decode import encode as encode_image
from diffusers_relay.pipelines.latents.latent_space import Latents
from diffusers_relay.pipelines.runs.inpainting import InpaintSettings, inpaint
from reference import inpaint_scripts
from reference.inpaint_scripts import as_mask, mask_picture
from reference.scripts import read_like_host, soft_picture
from relay_dev.model_folders import SmallModels
from support.kandinsky import kandinsky_prompt
from support.without_host import counting_runtime, encode, load

SIZE = (64, 64)
PROMPT, NEGATIVE = "a red cat", "dog"
GREY = torch.tensor([0.0, 0.1, 0.3, 0.45, 0.55, 0.7, 0.9, 1.0])
"""A value for each column of latent pixels. None is a threshold of a run of five steps."""
MASK = GREY.repeat_interleave(8).expand(1, 64, 64)
PLAIN = ["sd15", "sdxl_base", "kandinsky_decoder"]
WITH_MASK = ["sd15_inpaint", "kandinsky_inpaint"]


def latent_of(name: str, pictures: int = 1) -> Latents:
    images = torch.cat([read_like_host(soft_picture(*SIZE, seed)) for seed in range(1, 1 + pictures)])
    return encode_image(load(name), images, 3, counting_runtime())


def run(name: str, mask: torch.Tensor = MASK, soft_mask: bool = True, runtime: Any = None, **changes: Any) -> Latents:
    model = load(name)
    numbers = {"strength": 0.8 if name in PLAIN else 1.0, "steps": 5, "guidance_scale": 4.0, "seed": 7}
    own = {key: changes.pop(key) for key in list(changes) if key in (*numbers, "padding_mask_crop")}
    source = changes or {"latent": latent_of(name)}
    prompt = kandinsky_prompt() if "kandinsky" in name else encode(model, PROMPT, NEGATIVE)
    settings = InpaintSettings(**numbers | own, soft_mask=soft_mask)
    return inpaint(model, prompt, mask, settings, runtime or counting_runtime(), **source)


@pytest.mark.parametrize("name", ["sd15", "sdxl_base"])
def test_a_plain_model_goes_the_way_of_a_script_that_restores_what_its_step_keeps(
    models: SmallModels, name: str
) -> None:
    latent = latent_of(name)
    ours = run(name, latent=latent)
    factor = load(name)["vae"].config.scaling_factor
    theirs = inpaint_scripts.differential(
        models.named[name], latent.samples * factor, GREY, PROMPT, NEGATIVE, strength=0.8, seed=7, guidance_scale=4.0
    )
    assert float((ours.samples * factor - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())
    changed = (ours.samples - latent.samples).abs().mean(dim=(0, 1, 2))
    assert changed[0] <= 1e-6 < changed[1] < changed[7]


@pytest.mark.parametrize("strength", [0.8, 1.0])
def test_a_model_for_inpainting_sees_hard_edges_and_restores_softly(models: SmallModels, strength: float) -> None:
    picture = soft_picture(*SIZE)
    ours = run("sd15_inpaint", image=read_like_host(picture), strength=strength)
    factor = load("sd15_inpaint")["vae"].config.scaling_factor
    theirs = inpaint_scripts.differential(
        models.named["sd15_inpaint"], picture, GREY, PROMPT, NEGATIVE, strength=strength, seed=7, guidance_scale=4.0
    )
    assert float((ours.samples * factor - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())


@pytest.mark.parametrize("name", PLAIN)
def test_a_mask_without_grey_gives_the_same_numbers_as_without_the_option(name: str) -> None:
    hard = as_mask(mask_picture(*SIZE, (16, 8, 48, 40)))
    soft, off = (run(name, mask=hard, soft_mask=option).samples for option in (True, False))
    assert float((soft - off).abs().max()) <= 1e-6
    grey = run(name, soft_mask=False).samples
    assert float((grey - run(name, mask=(MASK >= 0.5).float(), soft_mask=False).samples).abs().max()) == 0


@pytest.mark.parametrize("name", [*PLAIN, *WITH_MASK])
def test_what_is_not_masked_comes_back_as_it_went_in(name: str) -> None:
    latent = latent_of(name)
    change = (run(name, latent=latent).samples - latent.samples).abs() / latent.samples.abs().max()
    columns = change.mean(dim=(0, 1, 2))
    assert float(change[..., 0].max()) <= 1e-7
    assert columns[2] < columns[7]
    assert columns[7] > 0.05


@pytest.mark.parametrize("name", ["sd15", "kandinsky_inpaint"])
def test_a_batch_is_each_picture_alone(name: str) -> None:
    latent, masks = latent_of(name, 2), torch.cat([MASK, MASK.flip(-1)])
    ours = run(name, mask=masks, latent=latent, steps=3).samples
    for index in range(2):
        one = Latents(latent.samples[index : index + 1], latent.tag)
        alone = run(name, mask=masks[index : index + 1], latent=one, steps=3, seed=7 + index).samples
        assert float((ours[index : index + 1] - alone).abs().max() / alone.abs().max()) <= 5e-5


def test_a_latent_s_own_mask_is_soft_too() -> None:
    latent = latent_of("sd15")
    own = GREY.flip(0).expand(1, 8, 8)
    both = torch.minimum(GREY, GREY.flip(0)).repeat_interleave(8).expand(1, 64, 64)
    ours = run("sd15", latent=replace(latent, noise_mask=own))
    assert torch.equal(ours.samples, run("sd15", mask=both, latent=latent).samples)
    assert not torch.equal(ours.samples, run("sd15", latent=latent).samples)


def test_previews_show_what_no_step_repaints() -> None:
    latent, runtime = latent_of("sd15"), counting_runtime(previews=True)
    run("sd15", latent=latent, runtime=runtime)
    begin = latent.samples * load("sd15")["vae"].config.scaling_factor
    assert len(runtime.monitor.previewed) >= 4
    for shown in runtime.monitor.previewed:
        assert torch.equal(shown[..., 0], begin[..., 0])


def test_the_masked_area_alone_with_soft_edges() -> None:
    """With padding_mask_crop, the region's mask keeps its grey values."""
    size = (120, 101)
    picture = read_like_host(soft_picture(*size))
    grey = mask_picture(*size, (40, 30, 62, 58)).resize((20, 17)).resize(size, Image.Resampling.BILINEAR)
    options = {"image": picture, "padding_mask_crop": 4}
    made = [
        decode(load("sd15"), run("sd15", mask=as_mask(grey), soft_mask=soft, **options), False, counting_runtime())
        for soft in (True, False)
    ]
    kept = np.array(grey) == 0
    assert all(torch.equal(one[0][kept], picture[0][kept]) for one in made)
    changed = [float((one - picture).abs().mean()) for one in made]
    assert 0 < changed[0] < changed[1]


@pytest.mark.parametrize(
    ("scheduler", "schedule"),
    [
        (EulerDiscreteScheduler(), [981.0, 490.5, 98.1, 0.0]),
        (FlowMatchEulerDiscreteScheduler(shift=3.0), [1000.0, 500.0, 100.0, 0.0]),
        (EDMEulerScheduler(), [0.25 * math.log(80.0 * (0.002 / 80.0) ** part) for part in (0.0, 0.5, 0.9, 1.0)]),
    ],
)
def test_the_place_of_a_timestep_in_the_run(scheduler: Any, schedule: list[float]) -> None:
    """EDM: the host's timestep(sigma) is its logarithm too, from sigma_max 80 to sigma_min 0.002."""
    placed = [part_of_noise_left(scheduler, timestep, schedule[0]) for timestep in schedule]
    assert placed == pytest.approx([1.0, 0.5, 0.1, 0.0])
    assert part_of_noise_left(EulerDiscreteScheduler(), 0.0, 0.0) == 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": torch.zeros(1, 64, 64)}, "mask: it leaves nothing to repaint. With soft_mask, values above 0 are"),
        ({"mask": torch.ones(3, 64, 64)}, "mask: the batch has 3 masks, but 1 picture is painted"),
        ({"mask": torch.full((1, 64, 64), float("nan"))}, "mask: expected a mask of shape"),
        ({"latent": Latents(torch.ones(1, 4, 8, 8), noise_mask=torch.zeros(1, 8, 8))}, "in both the mask and the latent's own noise_mask"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_anything_runs(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RelayError, match=message):
        run("sd15", **changes)
