"""Training to take the noise away that a published scheduler adds."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch

from relay_dev.small_parts import scheduler

from .schedules import SD15
from .training import DEVICE, Bank, Batch, Plan, noise_for, train

Conditions = Callable[[Batch], dict[str, Any]]
"""Gives what the UNet is called with beside latents and timesteps."""
DROPPED = 0.12
"""How often the caption is left out, for classifier-free guidance."""


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
        at = noisier(timesteps, len(clean))
        inputs = noiser.add_noise(clean, noise, at)
        if extra is not None:
            inputs = torch.cat([inputs, extra(clean)], dim=1)
        predicted = unet(inputs, at, **conditions(batch)).sample[:, : clean.shape[1]]
        wanted = noiser.get_velocity(clean, noise, at) if velocity else noise
        each = (predicted - wanted).square().mean((1, 2, 3))
        return (each * weight[at]).mean()

    return train(name, unet, loss_of, plan, muon=muon)


def noisier(timesteps: tuple[int, int], count: int) -> torch.Tensor:
    """Timesteps at random, the noisier half half as often again as the other: what a picture shows is decided there."""
    first, end = timesteps
    return (first + (end - first) * torch.rand(count, device=DEVICE) ** 0.7).long().clamp(max=end - 1)
