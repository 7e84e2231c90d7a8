"""The loop that trains each model, and what the models are trained on: pictures, their latents, their captions."""

from __future__ import annotations

import copy
import math
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .drawing import draw
from .scene import Scene, random_scene


class Limits:
    """How much is done at most. The tests set these low, to see every training run."""

    steps = sys.maxsize
    scenes = sys.maxsize


PIXELS_AT_ONCE = 16 * 128**2
"""How many are encoded in one go."""


@dataclass(frozen=True)
class Plan:
    """How long and how fast. The rate rises over the first `warmup` steps, and falls to a hundredth by a cosine."""

    steps: int
    rate: float
    seed: int
    warmup: int = 100
    ema: float = 0.995
    """What is kept of the running average of the weights at each step; less at the start."""


def train(name: str, module: Any, loss_of: Callable[[int], torch.Tensor], plan: Plan, *, muon: bool = False) -> Any:
    """Trains the parameters of `module` that want gradients by AdamW; the answer is a copy with the average of the weights.

    `loss_of(step)` gives the loss of one batch of its own choosing. torch's global generator starts from the plan's seed.
    `muon`: the weights that are matrices or kernels are trained by Muon, all but those of the first and the last layer.
    """
    torch.manual_seed(plan.seed)
    module.train().to(memory_format=torch.channels_last)  # a tenth faster on a CPU
    learnt = [value for value in module.parameters() if value.requires_grad]
    optimizer = Optimizer(module, muon=muon)
    average = copy.deepcopy(module)
    followed = [(mean, value) for mean, value in zip(average.parameters(), module.parameters()) if value.requires_grad]
    began, losses = time.monotonic(), []
    for step in range(min(plan.steps, Limits.steps)):
        rate = plan.rate * min(1.0, (step + 1) / plan.warmup) * _cosine(step / plan.steps)
        loss = loss_of(step)
        module.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learnt, 1.0)
        optimizer.step(rate)
        keep = min(plan.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            for mean, value in followed:
                mean.lerp_(value, 1 - keep)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise RuntimeError(f"{name}: the loss is {losses[-1]} at step {step}")
        if (step + 1) % 100 == 0 or step + 1 == plan.steps:
            recent = losses[-100:]
            print(
                f"{name}: step {step + 1} of {plan.steps}, loss {sum(recent) / len(recent):.5f}, {time.monotonic() - began:.0f} s",
                flush=True,
            )
    return average.eval().requires_grad_(False).to(memory_format=torch.contiguous_format)


NOT_BY_MUON = ("conv_in.weight", "conv_out.weight", "embedding.weight")


class Optimizer:
    """AdamW; with `muon`, the weights that are matrices or kernels are left to Muon (Jordan et al. 2024, in Moonshot's scale).

    Muon makes the steps of a UNet longer by a third, and needs less than half of them.
    """

    def __init__(self, module: Any, *, muon: bool) -> None:
        named = [(name, value) for name, value in module.named_parameters() if value.requires_grad]
        by_muon = [value for name, value in named if muon and value.ndim > 1 and not name.endswith(NOT_BY_MUON)]
        known = {id(value) for value in by_muon}
        rest = [value for _, value in named if id(value) not in known]
        self.parts: list[torch.optim.Optimizer] = []
        if rest:
            self.parts.append(torch.optim.AdamW(rest, betas=(0.9, 0.99), weight_decay=0.01))
        self.flattened = [(value, torch.nn.Parameter(_as_matrix(value.data))) for value in by_muon]
        if by_muon:
            matrices = [matrix for _, matrix in self.flattened]
            self.parts.append(torch.optim.Muon(matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"))

    def step(self, rate: float) -> None:
        for value, matrix in self.flattened:
            matrix.grad = None if value.grad is None else _as_matrix(value.grad)
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()


def _as_matrix(value: torch.Tensor) -> torch.Tensor:
    """[out, everything else]: of a kernel in channels_last, as torch.optim.Muon takes no kernels, a view of the same memory."""
    if value.ndim == 4:
        value = value.permute(0, 2, 3, 1)
    return value.reshape(len(value), -1)


def _cosine(done: float) -> float:
    return 0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * done))


def scenes(count: int, seed: int, **chances: float) -> list[Scene]:
    rng = random.Random(seed)
    return [random_scene(rng, **chances) for _ in range(min(count, Limits.scenes))]


def pictures(of: Sequence[Scene], size: int, style: str = "plain") -> torch.Tensor:
    """[count, 3, size, size] in -1..1, as the models see pictures."""
    drawn = np.stack([draw(scene, size, style) for scene in of])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).contiguous() * 2 - 1


def to_array(picture: torch.Tensor) -> np.ndarray:
    """[3, height, width] in -1..1 -> [height, width, 3] in 0..1, as drawings and the judge have it."""
    return (picture.float() / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy()


@torch.no_grad()
def latents(vae: Any, of: Sequence[Scene], size: int, style: str = "plain") -> torch.Tensor:
    """The scenes' pictures, encoded, in the scale that the UNet sees."""
    at_once, parts = max(1, PIXELS_AT_ONCE // size**2), []
    for start in range(0, len(of), at_once):
        encoded = vae.encode(pictures(of[start : start + at_once], size, style))
        if hasattr(encoded, "latent_dist"):
            parts.append(encoded.latent_dist.mean * vae.config.scaling_factor)
        else:
            parts.append(encoded.latents)
    return torch.cat(parts)


@dataclass(frozen=True)
class Bank:
    """Scenes with their latents at one size, how many of them make a batch, and how large a share of the batches this bank has."""

    scenes: list[Scene]
    latents: torch.Tensor
    batch: int
    share: float = 1.0

    def pick(self, rng: random.Random) -> tuple[list[Scene], torch.Tensor]:
        """A batch at random."""
        chosen = [rng.randrange(len(self.scenes)) for _ in range(self.batch)]
        return [self.scenes[index] for index in chosen], self.latents[chosen]


def noise_for(clean: torch.Tensor, offset: float = 0.2) -> torch.Tensor:
    """Gaussian noise whose mean also varies from channel to channel by `offset`.

    Otherwise the mean of a large latent shows through all the noise there is, and the model would look for the colours there
    rather than in the caption.
    """
    return torch.randn_like(clean) + offset * torch.randn(*clean.shape[:2], 1, 1)
