"""Numbers in messages work when they are typed in, and the inputs accept them."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.images import Extent, check_extent, grid
from diffusers_relay.pipelines.base.numbers import MOST_STEPS, check_numbers, check_strength
from diffusers_relay.pipelines.denoising.noise_law import steps_at_strength
from diffusers_relay.pipelines.denoising.tiling import check_tile_size
from diffusers_relay.pipelines.families.kandinsky22_prior import LEAST_STEPS, PriorSettings, check_prior
from diffusers_relay.pipelines.latents.autoencoder import autoencoder_of
from diffusers_relay.pipelines.latents.latent_space import Latents
from diffusers_relay.pipelines.model import family_lookup
from diffusers_relay.pipelines.model.family import ModelFamily
from diffusers_relay.pipelines.model.family_table import STABLE_DIFFUSION
from diffusers_relay.pipelines.model.laws import NoiseLaw
from diffusers_relay.pipelines.runs.denoising_range import denoising_end, denoising_start
from diffusers_relay.pipelines.runs.inpainting import InpaintSettings
from diffusers_relay.pipelines.runs.inputs import MOST_PIXELS, check_pixels
from diffusers_relay.pipelines.runs.latent_upscaling import LatentUpscaleSettings
from diffusers_relay.pipelines.runs.sampling import ImageToImageSettings, TextToImageSettings
from diffusers_relay.pipelines.runs.super_resolution import SuperResolutionSettings
from support.without_host import counting_runtime, load

FLOW = replace(STABLE_DIFFUSION, noise=NoiseLaw.FLOW)
THEIRS = [
    (STABLE_DIFFUSION, diffusers.StableDiffusionImg2ImgPipeline),
    (FLOW, diffusers.StableDiffusion3Img2ImgPipeline),
]
"""A family of each law, and the pipeline whose ``get_timesteps`` counts its steps."""


def refusal(strength: float, steps: int, family: ModelFamily = STABLE_DIFFUSION) -> str | None:
    try:
        check_strength(strength, steps, steps_at_strength(family))
    except RelayError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "strength", [0.0, -1.0, 1e-17, 1e-9, 0.001, 0.01, 0.02, 0.05, 0.07, 0.1, 0.15, 0.29, 0.33, 0.49, 0.57, 0.9]
)
@pytest.mark.parametrize(("family", "pipeline"), THEIRS, ids=["diffusion", "flow"])
def test_the_strength_and_steps_that_a_refusal_advises_run(family: ModelFamily, pipeline: Any, strength: float) -> None:
    for steps in range(1, MOST_STEPS + 1):
        said = refusal(strength, steps, family)
        pipe = SimpleNamespace(scheduler=SimpleNamespace(timesteps=range(steps), order=1))
        theirs, count = pipeline.get_timesteps(pipe, steps, strength, None)
        assert (said is None) == (len(theirs) > 0), (steps, said)
        assert strength <= 0 or steps_at_strength(family)(steps, strength) == count == len(theirs)
        if said is None:
            continue
        advised = re.search(r"strength to at least ([\d.]*\d)", said)
        assert advised is not None, said
        assert len(advised[1].partition(".")[2]) <= 2, "the input has steps of 0.01"
        assert refusal(float(advised[1]), steps, family) is None, said
        assert refusal(float(advised[1]) - 0.01, steps, family) is not None, "a smaller one would do"
        more = re.search(r"steps to at least (\d+)", said)
        if more is not None:
            assert int(more[1]) <= MOST_STEPS
            assert refusal(strength, int(more[1]), family) is None, said


def test_a_part_of_a_step_is_a_step_by_flow_matching_only() -> None:
    assert refusal(0.2, 4, FLOW) is None
    assert "4 steps at strength 0.2 leave no step to run. Raise strength to at least 0.25" in (refusal(0.2, 4) or "")


def test_the_prior_s_strength_and_steps_too() -> None:
    picture = torch.zeros(1, 8, 8, 3)
    for steps in range(LEAST_STEPS, 200):
        with pytest.raises(RelayError, match="strength to at least") as caught:
            check_prior(PriorSettings(steps, 4.0, 0, strength=1e-3), picture)
        advised = re.search(r"strength to at least ([\d.]*\d)", str(caught.value))
        assert advised is not None
        check_prior(PriorSettings(steps, 4.0, 0, strength=float(advised[1])), picture)
    with pytest.raises(RelayError, match="needs at least 2") as caught:
        check_prior(PriorSettings(1, 4.0, 0), None)
    check_prior(PriorSettings(2, 4.0, 0), None)


def test_a_strength_above_1_is_refused_by_its_name() -> None:
    assert refusal(1.0, 4) is None
    assert (refusal(1.5, 4) or "").startswith("strength: 1.5 is above 1")


def test_a_range_is_refused_with_the_families_that_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model, runtime = load("sd15"), counting_runtime()
    can = r"\. Families that can: Stable Diffusion XL, Stable Diffusion XL refiner\. "
    with pytest.raises(RelayError, match=rf"denoising_start is 0.5, .*{can}Set denoising_start to 0\.$"):
        denoising_start(model, 0.5, None, runtime)
    assert denoising_start(model, 0, None, runtime) is None
    samples = torch.zeros(1, 4, 8, 8)
    noisy = Latents(samples).with_samples(samples, autoencoder_of(model), noise_left=0.8)
    with pytest.raises(
        RelayError, match=rf"left at denoising_end 0.8 .*{can}Let the model before this one run to the end"
    ):
        denoising_start(model, 0, noisy, runtime)
    with pytest.raises(RelayError, match=rf"^denoising_end: .*can't stop at 0.5{can}Set it to 1\.$"):
        denoising_end(model, 0.5, None)
    assert denoising_end(model, 1, None) is None
    monkeypatch.setattr(family_lookup, "FAMILIES", (replace(STABLE_DIFFUSION, has_denoising_range=True),))
    with pytest.raises(RelayError, match=rf"Families that can: {STABLE_DIFFUSION.title}\. Set it to 1"):
        denoising_end(model, 0.5, None)


@pytest.mark.parametrize("tile_size", [-8, 1, 63, 65, 68, 100, 127, 4095, 5001])
def test_the_tile_size_that_a_refusal_advises_can_be_made(tile_size: int) -> None:
    with pytest.raises(RelayError) as caught:
        check_tile_size(tile_size)
    advised = re.search(r"nearest is (\d+)\.", str(caught.value))
    assert advised is not None
    check_tile_size(int(advised[1]))


@pytest.mark.parametrize("side", [1000, 1024, 4096, 16384])
def test_the_batch_size_that_a_refusal_advises_is_the_largest_that_fits(side: int) -> None:
    extent = Extent(side, side)
    with pytest.raises(RelayError) as caught:
        check_pixels(extent, 2000)
    advised = re.search(r"batch_size to (\d+) or less", str(caught.value))
    assert advised is not None
    check_pixels(extent, int(advised[1]))
    with pytest.raises(RelayError):
        check_pixels(extent, int(advised[1]) + 1)


def test_a_picture_that_is_too_large_alone_is_said_with_numbers_that_differ() -> None:
    with pytest.raises(
        RelayError, match=f"32769x32768 are {32769 * 32768:,} pixels, .* at most {MOST_PIXELS:,}. Use a smaller"
    ):
        check_pixels(Extent(32769, 32768), 1)


@pytest.mark.parametrize("count", [1, 2, 6, 7, 12])
def test_the_cells_that_a_refusal_advises_hold_the_pictures(count: int) -> None:
    pictures = torch.zeros(count, 2, 2, 3)
    with pytest.raises(RelayError) as caught:
        grid(pictures, count + 1, 1)
    cells = re.findall(r"(\d+) x (\d+)", str(caught.value).partition("These do")[2])
    assert len(cells) >= min(count, 2)
    for rows, columns in cells:
        grid(pictures, int(rows), int(columns))


def test_the_size_that_a_refusal_advises_is_one_that_can_be_painted() -> None:
    for multiple in (8, 64):
        for width in range(1, 200):
            for height in (1, 7, 8, 63, 96, 131):
                if width % multiple == height % multiple == 0:
                    continue
                with pytest.raises(RelayError) as caught:
                    check_extent(Extent(width, height), multiple, "it")
                advised = re.search(r"nearest is (\d+)x(\d+)", str(caught.value))
                assert advised is not None
                check_extent(Extent(int(advised[1]), int(advised[2])), multiple, "it")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "settings",
    [
        TextToImageSettings(64, 64, 1, 4, 7.5, 0),
        ImageToImageSettings(0.5, 4, 7.5, 0),
        InpaintSettings(0.5, 4, 7.5, 0),
        LatentUpscaleSettings(4, 7.5, 0),
        SuperResolutionSettings(4, 7.5, 20, 0, 0),
        PriorSettings(4, 7.5, 0),
    ],
    ids=lambda settings: type(settings).__name__,
)
def test_numbers_that_are_not_finite_are_refused_by_their_names(settings: Any, value: float) -> None:
    check_numbers(settings)
    floats = [name for name, one in vars(settings).items() if isinstance(one, float)]
    assert "guidance_scale" in floats
    for name in floats:
        with pytest.raises(RelayError, match=rf"^{name}: {value} can't be used"):
            check_numbers(replace(settings, **{name: value}))
