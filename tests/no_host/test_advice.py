"""Numbers in messages work when they are typed in, and are ones that the inputs can hold."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.images import Extent, check_extent
from diffusers_relay.pipelines.base.numbers import check_numbers
from diffusers_relay.pipelines.families.kandinsky22_prior import PriorSettings
from diffusers_relay.pipelines.runs.inpainting import InpaintSettings
from diffusers_relay.pipelines.runs.inputs import MOST_STEPS, check_strength
from diffusers_relay.pipelines.runs.sampling import ImageToImageSettings, TextToImageSettings
from diffusers_relay.pipelines.runs.upscaling import LatentUpscaleSettings, SuperResolutionSettings


def refusal(strength: float, steps: int) -> str | None:
    try:
        check_strength(strength, steps)
    except RelayError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "strength", [0.0, -1.0, 1e-9, 0.001, 0.01, 0.02, 0.05, 0.07, 0.1, 0.15, 0.29, 0.33, 0.49, 0.57, 0.9]
)
def test_the_strength_and_steps_that_a_refusal_advises_run(strength: float) -> None:
    for steps in range(1, MOST_STEPS + 1):
        said = refusal(strength, steps)
        if said is None:
            continue
        advised = re.search(r"strength to at least ([\d.]*\d)", said)
        assert advised is not None, said
        assert len(advised[1].partition(".")[2]) <= 2, "the input has steps of 0.01"
        assert refusal(float(advised[1]), steps) is None, said
        assert refusal(float(advised[1]) - 0.01, steps) is not None, "a smaller one would do"
        more = re.search(r"steps to at least (\d+)", said)
        if more is not None:
            assert int(more[1]) <= MOST_STEPS
            assert refusal(strength, int(more[1])) is None, said


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
