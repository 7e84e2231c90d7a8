"""Training to predict the noise that a published scheduler adds."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch

from relay_dev.small_parts import PNDM, scheduler

from .scene import Scene
from .training import Bank, Plan, noise_for, train

Conditions = Callable[[list[Scene], int], dict[str, Any]]
"""(scenes, how wide the latents are) -> what the UNet is called with beside latents and timesteps."""
DROPPED = 0.12
"""How often the caption is left out, for classifier-free guidance."""


def train_epsilon(
    name: str,
    unet: Any,
    banks: Sequence[Bank],
    conditions: Conditions,
    plan: Plan,
    *,
    config: dict[str, Any] = PNDM,
    timesteps: tuple[int, int] = (0, 1000),
    offset: float = 0.2,
    snr_gamma: float = 5.0,
    extra: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Any:
    """Noise prediction, at timesteps from the first to before the last of `timesteps`; a bank a step, in turn by their weights.

    `snr_gamma`: above this ratio of signal to noise a timestep counts less, in proportion (Hang et al. 2023, "min-SNR"), so that the
    model learns what is where before it learns to polish. `extra`: what is put beside the noisy latents as further channels, from the clean ones.
    """
    rng = random.Random(plan.seed)
    noiser = scheduler({**config, "_class_name": "DDPMScheduler"})

    ratio = noiser.alphas_cumprod / (1 - noiser.alphas_cumprod)
    weight = (snr_gamma / ratio).clamp(max=1)

    def loss_of(step: int) -> torch.Tensor:
        (bank,) = rng.choices(banks, [bank.share for bank in banks])
        scenes, clean = bank.pick(rng)
        noise = noise_for(clean, offset)
        at = torch.randint(*timesteps, (len(clean),))
        inputs = noiser.add_noise(clean, noise, at)
        if extra is not None:
            inputs = torch.cat([inputs, extra(clean)], dim=1)
        predicted = unet(inputs, at, **conditions(scenes, clean.shape[-1])).sample[:, : clean.shape[1]]
        return ((predicted - noise).square().mean((1, 2, 3)) * weight[at]).mean()

    return train(name, unet, loss_of, plan)
