"""Training to take the noise away that a published scheduler adds."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch

from small_models.parts import scheduler

from .schedules import SD15
from .training import DEVICE, Bank, Batch, Plan, noise_for, train

Conditions = Callable[[Batch], dict[str, Any]]
"""Gives what the UNet is called with beside latents and timesteps."""
DROPPED = 0.12
"""How often the caption is left out, for classifier-free guidance."""
MISTAKEN, MISTAKEN_BELOW = 0.1, 500
"""How often a caption speaks of another picture, at timesteps below this one of 1000. A caption of this world says all of its picture, and
a model that could rely on it would mind nothing that it sees: at a strength of .2 it would already paint the caption. So it learns to
believe a picture that it sees well."""


def train_denoiser(
    name: str,
    unet: Any,
    banks: Sequence[Bank],
    conditions: Conditions,
    plan: Plan,
    *,
    config: dict[str, Any] = SD15,
    timesteps: tuple[int, int] = (0, 1000),
    offset: float = 0.2,
    most: float = 5.0,
    extra: Callable[[torch.Tensor], torch.Tensor] | None = None,
    muon: bool = True,
) -> Any:
    """Prediction of what the scheduler's `config` says, the velocity or the noise, at timesteps from the first to before the last of
    `timesteps`; a bank a step, in turn by their shares.

    An error of the velocity is one of the clean latents, squared and times 1 + the ratio of signal to noise; one of the noise counts as
    the velocity's that it makes. `most` is the most that it counts there (the idea of "min-SNR", Hang et al. 2023), so that the model
    learns what is where before it learns to polish.
    `extra`: what is put beside the noisy latents as further channels, from the clean ones.
    """
    rng = random.Random(plan.seed)
    noiser = scheduler({**config, "_class_name": "DDPMScheduler"})
    noiser.alphas_cumprod = signal = noiser.alphas_cumprod.to(DEVICE)
    weight = (most * (1 - signal)).clamp(max=1)  # 1 + the ratio is 1 / (1 - signal)
    velocity = config.get("prediction_type") == "v_prediction"
    if not velocity:
        weight = weight / signal

    def loss_of(step: int) -> torch.Tensor:
        (bank,) = rng.choices(banks, [bank.share for bank in banks])
        batch = bank.pick()
        clean = batch.clean
        noise = noise_for(clean, offset)
        at = noise_levels(timesteps, len(clean))
        inputs = noiser.add_noise(clean, noise, at)
        if extra is not None:
            inputs = torch.cat([inputs, extra(clean)], dim=1)
        told = batch.mistaken((at < MISTAKEN_BELOW) & (torch.rand(len(at), device=DEVICE) < MISTAKEN))
        predicted = unet(inputs, at, **conditions(told)).sample[:, : clean.shape[1]]
        wanted = noiser.get_velocity(clean, noise, at) if velocity else noise
        each = (predicted - wanted).square().mean((1, 2, 3))
        return (each * weight[at]).mean()

    return train(name, unet, loss_of, plan, muon=muon)


def noise_levels(timesteps: tuple[int, int], count: int) -> torch.Tensor:
    """Timesteps at random, most of them in MIDDLE. In more noise than that only the mean of all that a caption may mean can be
    painted, which is learnt soon; there a thing's outline is found, which takes longest."""
    first, end = timesteps
    low, high = MIDDLE
    anywhere, middle = torch.rand(2, count, device=DEVICE)
    parts = torch.where(torch.rand(count, device=DEVICE) < IN_MIDDLE, low + (high - low) * middle, anywhere)
    return (first + (end - first) * parts).long().clamp(max=end - 1)


MIDDLE, IN_MIDDLE = (0.15, 0.65), 0.6
"""Between which parts of the timesteps, and how many of a batch."""
