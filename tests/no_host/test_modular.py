"""What the pack works around in diffusers' modular blocks is still there to be worked around."""

from __future__ import annotations

import torch
from diffusers import FlowMatchHeunDiscreteScheduler
from diffusers.guiders import ClassifierFreeGuidance

from diffusers_relay.pipelines.denoising.modular import guide_every_call


def guided_calls(guider: ClassifierFreeGuidance, steps: int) -> list[bool]:
    """For each call of a Heun run, as the blocks' loops tell the guider of it, whether it guides."""
    scheduler = FlowMatchHeunDiscreteScheduler()
    scheduler.set_timesteps(steps)
    guided = []
    for call, timestep in enumerate(scheduler.timesteps):
        guider.set_state(step=call, num_inference_steps=steps, timestep=timestep)
        guided.append(guider.num_conditions == 2)
    return guided


def test_upstream_still_stops_guiding_halfway_through_heuns_calls() -> None:
    assert guided_calls(ClassifierFreeGuidance(guidance_scale=4.0), 4) == [True] * 4 + [False] * 3


def test_ours_guides_every_call() -> None:
    guider = ClassifierFreeGuidance(guidance_scale=4.0)
    guide_every_call(guider, FlowMatchHeunDiscreteScheduler())
    assert guided_calls(guider, 4) == [True] * 7
    assert isinstance(guider.prepare_inputs({"x": (torch.zeros(1), torch.ones(1))}), list)
