"""Trains denoisers for the noise of a published scheduler."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch

from small_models.parts import scheduler

from .schedules import SD15
from .training import DEVICE, Bank, Batch, Plan, noise_for, train

Conditions = Callable[[Batch], dict[str, Any]]
"""Returns the UNet's arguments besides latents and timesteps."""
DROPPED = 0.12
"""How often the caption is dropped, for classifier-free guidance."""
MISTAKEN, MISTAKEN_BELOW = 0.1, 500
"""How often a caption describes another picture, at timesteps below this (of 1000). In this world, a caption describes the whole picture, and
a model that could rely on it would ignore what it sees: at a strength of .2 it would already paint the caption. This teaches the model to
trust a picture that it sees clearly."""


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
    """Trains the prediction that the scheduler's `config` names, velocity or noise, at timesteps in the range `timesteps` (end excluded); each
    step uses one bank, in turn by their shares.

    A squared velocity error equals the clean latents' squared error times (1 + signal-to-noise ratio); a noise error is weighted like the
    velocity error that it causes. `most` limits the weight (as in "min-SNR", Hang et al. 2023), so that the model learns the layout before
    the details.
    extra: function from clean latents to additional input channels.
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
    """Random timesteps, most of them in MIDDLE. With more noise, a model can only paint the mean of everything that a caption allows, which
    it learns quickly; in the middle it finds a thing's outline, which takes longest."""
    first, end = timesteps
    low, high = MIDDLE
    anywhere, middle = torch.rand(2, count, device=DEVICE)
    parts = torch.where(torch.rand(count, device=DEVICE) < IN_MIDDLE, low + (high - low) * middle, anywhere)
    return (first + (end - first) * parts).long().clamp(max=end - 1)


MIDDLE, IN_MIDDLE = (0.15, 0.65), 0.6
"""(start and end as fractions of the timesteps, share of a batch)."""
