"""The noise law of flow matching: latents are (1 - sigma) * clean + sigma * noise, and the model predicts noise - clean.

Checked with a model that predicts the exact velocity of one picture, on Stable Diffusion's row with this law.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import diffusers
import pytest
import torch

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.denoising import noise_law
from diffusers_relay.pipelines.denoising.noise_law import EDM_SCHEDULERS, schedulers_to_choose
from diffusers_relay.pipelines.denoising.schedulers import build_scheduler, check_schedule, with_scheduler
from diffusers_relay.pipelines.denoising.step_callback import KeepUnmasked, StepWatcher, fit_mask
from diffusers_relay.pipelines.latents.generators import generators
from diffusers_relay.pipelines.loading.scheduler_check import check_scheduler
from diffusers_relay.pipelines.model.component_classes import (
    FLOW_MATCH_SCHEDULERS,
    FLOW_SOLVERS,
    KARRAS_DIFFUSION_SCHEDULERS,
    MORE_DIFFUSION_SCHEDULERS,
)
from diffusers_relay.pipelines.model.components import PipelineComponents, SchedulerChoice
from diffusers_relay.pipelines.model.family_table import FAMILIES, STABLE_DIFFUSION
from diffusers_relay.pipelines.model.laws import NoiseLaw
from diffusers_relay.pipelines.runs import inpainting, sampling
from support.versions import WITH_SD3_BLOCKS
from support.without_host import ListeningMonitor, counting_runtime, load

pytestmark = pytest.mark.usefixtures("inference_mode")

FLOW = replace(
    STABLE_DIFFUSION,
    name="flow",
    title="Flow",
    noise=NoiseLaw.FLOW,
    also_noise=frozenset(),
    known_schedule={},
    schedulers=FLOW_MATCH_SCHEDULERS + FLOW_SOLVERS,
)
SHAPE = (2, 4, 8, 8)
STEPS = 6
EULER, HEUN = FLOW_MATCH_SCHEDULERS
TRAINED_WITH = {"shift": 3.0}


def flow_model(own: str = EULER, **config: Any) -> PipelineComponents:
    scheduler = getattr(diffusers, own)(**(config or TRAINED_WITH))
    return load("sd15").with_changes(family=FLOW, source="flow-model", modules={"scheduler": scheduler})


def some(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def solve(
    scheduler: Any, clean: torch.Tensor, watcher: StepWatcher, *, begin: torch.Tensor, noise: torch.Tensor, skipped: int
) -> Iterator[tuple[float, torch.Tensor]]:
    """A pipeline's loop with the exact velocity, from ``begin`` at the noise level after ``skipped`` steps.

    Gives for each call of the model the level that its latents have when it is made (0: the end), and the latents.
    """
    scheduler.set_timesteps(STEPS)
    timesteps = scheduler.timesteps[skipped * scheduler.order :]
    if skipped:
        scheduler.set_begin_index(skipped * scheduler.order)
    levels = scheduler.sigmas[skipped * scheduler.order :].tolist()  # some schedulers round their timesteps
    latents = (1 - levels[0]) * begin + levels[0] * noise
    for step, timestep in enumerate(timesteps):
        velocity = (latents - clean) / levels[step]
        latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        latents = watcher.after_step(step, len(timesteps), timesteps, latents)
        yield levels[step + 1], latents


@pytest.mark.parametrize("skipped", [0, 2, STEPS - 1])
@pytest.mark.parametrize("name", [*FLOW_MATCH_SCHEDULERS, *FLOW_SOLVERS])
def test_each_preview_is_the_clean_picture_and_a_mask_keeps_with_the_noise_of_each_call(
    name: str, skipped: int
) -> None:
    clean, begin = some(1), some(2)
    own = generators(7, range(2))
    noise = torch.cat([torch.randn(1, *SHAPE[1:], generator=one) for one in generators(7, range(2))])
    mask = torch.zeros(1, 8, 8)
    mask[..., 4:] = 1
    for masked in (False, True):
        scheduler = build_scheduler(with_scheduler(flow_model(), SchedulerChoice(name)))
        keep = KeepUnmasked(mask, begin, own, scheduler) if masked else None
        monitor = ListeningMonitor(previews=True)
        watcher = StepWatcher(monitor, keep)
        watcher.show_clean(scheduler)
        calls = list(solve(scheduler, clean, watcher, begin=begin, noise=noise, skipped=skipped))
        assert len(calls) == len(monitor.previewed) == (STEPS - skipped) * scheduler.order - (scheduler.order - 1)
        for (level, latents), shown in zip(calls, monitor.previewed, strict=True):
            torch.testing.assert_close(shown[..., 4:], clean[..., 4:], atol=1e-4, rtol=0)
            if keep is None:
                torch.testing.assert_close(shown, clean, atol=1e-4, rtol=0)
                continue
            assert torch.equal(shown[..., :4], begin[..., :4])
            kept = (1 - level) * begin + level * noise
            torch.testing.assert_close(latents[..., :4], kept[..., :4], atol=1e-5, rtol=0)
        torch.testing.assert_close(calls[-1][1][..., 4:], clean[..., 4:], atol=1e-4, rtol=0)
        if keep is not None:
            assert torch.equal(calls[-1][1][..., :4], begin[..., :4])


@pytest.mark.parametrize("name", FLOW_MATCH_SCHEDULERS)
def test_flow_matching_schedulers_cannot_run_diffusion_models(name: str) -> None:
    with pytest.raises(RelayError, match=f"can't run '{name}'. It can run: .*EulerDiscreteScheduler") as caught:
        with_scheduler(load("sd15"), SchedulerChoice(name))
    assert "FlowMatch" not in str(caught.value).partition("It can run")[2]


@pytest.mark.parametrize("name", sorted({*KARRAS_DIFFUSION_SCHEDULERS, *EDM_SCHEDULERS} - {*FLOW_SOLVERS}))
def test_schedulers_of_another_law_cannot_run_flow_models(name: str) -> None:
    able = ", ".join(sorted((EULER, HEUN, *FLOW_SOLVERS)))
    with pytest.raises(RelayError, match=f"^scheduler: .*{name}.*It can run: {able}\\.$"):
        with_scheduler(flow_model(), SchedulerChoice(name))


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "EDMEulerScheduler", "UnCLIPScheduler"])
def test_a_flow_models_own_scheduler_of_another_law_is_refused_and_the_advice_works(name: str) -> None:
    stray = flow_model().with_changes(modules={"scheduler": getattr(diffusers, name)()})
    with pytest.raises(RelayError, match=rf"^model: flow-model's own scheduler, {name}.*, can't run Flow models\.$"):
        check_schedule(stray, 4)
    known = stray.with_changes(family=replace(FLOW, known_schedule={"num_train_timesteps": 1000, **TRAINED_WITH}))
    with pytest.raises(RelayError, match=rf"can't run Flow models\..* choose {EULER} in Set Scheduler\.$"):
        check_schedule(known, 4)
    advised = with_scheduler(known, SchedulerChoice(EULER))
    check_schedule(advised, 4)
    made, theirs = build_scheduler(advised), getattr(diffusers, EULER)(**TRAINED_WITH)
    made.set_timesteps(4)
    theirs.set_timesteps(4)
    assert torch.equal(made.sigmas, theirs.sigmas)


def test_heun_keeps_eulers_shift() -> None:
    made = build_scheduler(with_scheduler(flow_model(), SchedulerChoice(HEUN)))
    made.set_timesteps(STEPS)
    for name in FLOW_MATCH_SCHEDULERS:
        theirs = getattr(diffusers, name)(**TRAINED_WITH)
        theirs.set_timesteps(STEPS)
        assert torch.equal(made.timesteps.unique(), theirs.timesteps.unique()), name
    without = getattr(diffusers, HEUN)()
    without.set_timesteps(STEPS)
    assert not torch.equal(made.timesteps, without.timesteps)


@pytest.mark.parametrize(
    "config", [{"use_dynamic_shifting": True}, {"shift_terminal": 0.1}, {"invert_sigmas": True}], ids=str
)
def test_heun_is_refused_if_it_lacks_a_setting_of_the_training(config: dict[str, Any]) -> None:
    (setting,) = config
    with pytest.raises(
        RelayError, match=f"trained with {setting}, which {HEUN} does not support. Schedulers that support it: {EULER}"
    ):
        with_scheduler(flow_model(**config), SchedulerChoice(HEUN))
    assert build_scheduler(flow_model(**config)).config[setting] == config[setting]


@pytest.mark.parametrize("config", [TRAINED_WITH, {"use_dynamic_shifting": True}], ids=str)
def test_any_number_of_steps_works(config: dict[str, Any]) -> None:
    for steps in (1, 2, 28, 1000):
        check_schedule(flow_model(**config), steps)


def test_a_terminal_shift_needs_two_steps() -> None:
    for dynamic in (False, True):
        model = flow_model(shift_terminal=0.1, use_dynamic_shifting=dynamic)
        with pytest.raises(RelayError, match=rf"^steps: {EULER} can't run 1 steps .* Set steps to at least 2\.$"):
            check_schedule(model, 1)
        check_schedule(model, 2)


if WITH_SD3_BLOCKS:  # an older diffusers takes this noise from no generator, and has no family with such a scheduler

    def test_stochastic_sampling_draws_from_the_generators_of_the_run() -> None:
        model = flow_model(**TRAINED_WITH, stochastic_sampling=True)
        clean, noise = some(1), some(3)

        def run(seeds: range, made: Callable[[Any], Any] = lambda scheduler: scheduler) -> torch.Tensor:
            scheduler = made(build_scheduler(model, generators(11, seeds)))
            watcher = StepWatcher(ListeningMonitor(previews=True))
            watcher.show_clean(scheduler)
            rows = slice(seeds.start, seeds.stop)
            loop = solve(scheduler, clean[rows], watcher, begin=clean[rows], noise=noise[rows], skipped=0)
            return list(loop)[-2][1]  # at the last step no noise is added

        both = run(range(2))
        assert torch.equal(run(range(2)), both)
        assert not torch.equal(run(range(1, 2)), both[:1])
        for i in range(2):
            torch.testing.assert_close(run(range(i, i + 1)), both[i : i + 1])
        theirs = getattr(diffusers, EULER).from_config(model["scheduler"].config)
        theirs.set_timesteps(STEPS)
        latents, own = noise.clone(), generators(11, range(2))
        for timestep in theirs.timesteps[:-1]:
            velocity = (latents - clean) / (timestep / 1000)
            latents = theirs.step(velocity, timestep, latents, generator=own, return_dict=False)[0]
        torch.testing.assert_close(both, latents)


def test_the_list_of_set_scheduler_keeps_its_order_with_flow_matching_last(monkeypatch: pytest.MonkeyPatch) -> None:
    before = (*KARRAS_DIFFUSION_SCHEDULERS, *MORE_DIFFUSION_SCHEDULERS, *EDM_SCHEDULERS)
    assert schedulers_to_choose()[: len(before)] == before == BEFORE
    assert set(schedulers_to_choose()[len(before) :]) <= set(FLOW_MATCH_SCHEDULERS)
    monkeypatch.setattr(noise_law, "FAMILIES", (*FAMILIES, FLOW))
    assert schedulers_to_choose() == (*before, *FLOW_MATCH_SCHEDULERS)


BEFORE = (
    "DDIMScheduler",
    "DDPMScheduler",
    "PNDMScheduler",
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "DPMSolverSDEScheduler",
    "LCMScheduler",
    "TCDScheduler",
    "SASolverScheduler",
    "EDMEulerScheduler",
    "EDMDPMSolverMultistepScheduler",
)
"""The list of saved workflows."""


@pytest.mark.parametrize("shape", [(16, 16), (2, 16, 16), (2, 1, 4, 4)], ids=str)
def test_a_mask_lies_over_every_frame(shape: tuple[int, ...]) -> None:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    flat = fit_mask(mask, torch.zeros(3, 16, 8, 8))
    assert flat.shape == (3, 1, 8, 8)
    frames = fit_mask(mask, torch.zeros(3, 16, 5, 8, 8))
    assert torch.equal(frames, flat[:, :, None])
    latents, begin = torch.randn(2, 3, 16, 5, 8, 8, generator=torch.Generator().manual_seed(1))
    keep = KeepUnmasked(mask, begin, generators(0, range(3)), None)
    made = keep.over(latents)
    for frame in range(5):
        expected = flat * latents[:, :, frame] + (1 - flat) * begin[:, :, frame]
        torch.testing.assert_close(made[:, :, frame], expected)


@pytest.mark.parametrize(
    ("name", "config", "runs"),
    [
        (EULER, {}, True),
        (EULER, TRAINED_WITH, True),
        (EULER, {"shift": 0.5}, True),
        (EULER, {"use_dynamic_shifting": True}, True),
        (EULER, {"use_dynamic_shifting": True, "time_shift_type": "linear", "shift_terminal": 0.02}, True),
        (EULER, {"invert_sigmas": True}, True),
        (EULER, {"use_karras_sigmas": True}, True),
        (EULER, {"stochastic_sampling": True}, True),
        (HEUN, TRAINED_WITH, True),
        ("UniPCMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}, True),
        (EULER, {"shift": -1.0}, False),
        (EULER, {"shift": 1e9}, False),
        (HEUN, {"shift": -1.0}, False),
        (EULER, {"shift_terminal": 1.0}, False),
        (EULER, {"shift_terminal": 2.0}, False),
        (EULER, {"shift_terminal": -1.0}, False),
    ],
    ids=str,
)
def test_a_schedule_whose_noise_does_not_decrease_is_refused_at_load(
    name: str, config: dict[str, Any], runs: bool
) -> None:
    scheduler = getattr(diffusers, name)(**config)
    trained_steps = len(scheduler.timesteps)
    if runs:
        check_scheduler(scheduler, "scheduler_config.json")
    else:
        with pytest.raises(
            RelayError, match=r"scheduler_config\.json: its settings do not make a noise schedule for flow matching"
        ):
            check_scheduler(scheduler, "scheduler_config.json")
    assert len(scheduler.timesteps) == trained_steps, "the model's own is left as it was"


class Reached(Exception):
    """The run got past the check of its numbers."""


@pytest.mark.parametrize("module", [sampling, inpainting])
def test_steps_of_flow_models_are_counted_as_in_their_pipelines(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def reached(*_: Any) -> None:
        raise Reached

    monkeypatch.setattr(module, "check_prompt_fits", reached)
    image, prompt, runtime = torch.rand(1, 64, 64, 3), object(), counting_runtime()

    def run(model: PipelineComponents) -> None:
        if module is sampling:
            settings = sampling.ImageToImageSettings(0.2, 4, 1.0, 0)
            sampling.image_to_image(model, prompt, settings, runtime, image=image)  # type: ignore[arg-type]
        else:
            inpainted = inpainting.InpaintSettings(0.2, 4, 1.0, 0)
            inpainting.inpaint(model, prompt, image[..., 0], inpainted, runtime, image=image)  # type: ignore[arg-type]

    with pytest.raises(Reached):
        run(flow_model())
    with pytest.raises(RelayError, match=r"Raise strength to at least 0\.25"):
        run(load("sd15"))
