"""The training loop, and the training data: pictures, latents, captions."""

from __future__ import annotations

import copy
import math
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from .drawing import draw, draw_depth
from .scene import Scene, random_scene


class Limits:
    """Limits on the work. The tests set low limits to run every training; `dev.py train` sets them for slow machines."""

    steps = sys.maxsize
    scenes = sys.maxsize
    batch = sys.maxsize
    seconds = math.inf
    """Time limit of one training; the learning rate reaches its end value by then."""
    side = 256
    """The width that `scenes` and `batch` refer to; wider pictures are fewer in proportion to their pixels."""

    @classmethod
    def of_size(cls, limit: int, size: int) -> int:
        return max(1, limit * cls.side**2 // max(cls.side, size) ** 2)


class Start:
    """The weights from which the next training continues; None means the module's initial weights."""

    weights: dict[str, torch.Tensor] | None = None

    @classmethod
    def give(cls, module: Any) -> None:
        """Loads the weights, once. Raises RuntimeError if they belong to another module."""
        weights, cls.weights = cls.weights, None
        if weights is not None:
            module.load_state_dict(weights)


DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""A GPU if there is one."""
PIXELS_AT_ONCE = 16 * 128**2 if DEVICE.type == "cpu" else 256 * 256**2
"""Pixels encoded at once."""
if DEVICE.type == "cuda":  # a setting of the whole process, so only on a GPU: the tests compare numbers
    torch.set_float32_matmul_precision("high")


@dataclass(frozen=True)
class Plan:
    """Steps and learning rate. The rate rises over the first `warmup` steps, then falls to a hundredth along a cosine."""

    steps: int
    rate: float
    seed: int
    warmup: int = 100
    ema: float = 0.998
    """Decay of the running average of the weights; lower at the start."""


def train(name: str, module: Any, loss_of: Callable[[int], torch.Tensor], plan: Plan, *, muon: bool = False) -> Any:
    """Trains the parameters of `module` that require gradients with AdamW. Returns a copy with the averaged weights.

    `loss_of(step)` returns the loss of a batch of its choice. torch's global generators start from the plan's seed.
    muon: train weight matrices and kernels with Muon, except those of the first and last layers.
    """
    torch.manual_seed(plan.seed)
    Start.give(module)
    module.train().to(DEVICE)
    learnt = [value for value in module.parameters() if value.requires_grad]
    optimizer = Optimizer(module, muon=muon)
    average = copy.deepcopy(module)
    means = [mean for mean, value in zip(average.parameters(), module.parameters()) if value.requires_grad]
    began, losses = time.monotonic(), []
    end = min(plan.steps, Limits.steps)
    for step in range(end):
        done = max(step / plan.steps, (time.monotonic() - began) / Limits.seconds)
        last = step + 1 == end or done >= 1
        loss = loss_of(step)
        module.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learnt, 1.0)
        optimizer.step(plan.rate * min(1.0, (step + 1) / plan.warmup) * _cosine(min(1.0, done)))
        keep = min(plan.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(means, [value.detach() for value in learnt], 1 - keep)
        losses.append(loss.detach())  # reading a number in each step would wait for the GPU
        if (step + 1) % 100 == 0 or last:
            _report(name, step, plan, losses, time.monotonic() - began)
            losses.clear()
        if last:
            break
    return average.cpu().eval().requires_grad_(False)


def _report(name: str, step: int, plan: Plan, losses: Sequence[torch.Tensor], seconds: float) -> None:
    """Prints the mean loss of the last steps up to `step`. Raises RuntimeError if a loss isn't finite."""
    recent = torch.stack(list(losses)).tolist()
    for number, loss in enumerate(recent, step + 1 - len(recent)):
        if not math.isfinite(loss):
            raise RuntimeError(f"{name}: the loss is {loss} at step {number}")
    mean = sum(recent) / len(recent)
    print(f"{name}: step {step + 1} of {plan.steps}, loss {mean:.5f}, {seconds:.0f} s", flush=True)


NOT_BY_MUON = ("conv_in.weight", "conv_out.weight", "embedding.weight")


class Optimizer:
    """AdamW; with `muon`, Muon trains the weight matrices and kernels.

    With Muon, a UNet's steps take a little longer, but it needs less than half as many.
    """

    def __init__(self, module: Any, *, muon: bool) -> None:
        named = [(name, value) for name, value in module.named_parameters() if value.requires_grad]
        by_muon = [value for name, value in named if muon and value.ndim > 1 and not name.endswith(NOT_BY_MUON)]
        known = {id(value) for value in by_muon}
        rest = [value for _, value in named if id(value) not in known]
        self.muon = Muon(by_muon)
        self.adam = torch.optim.AdamW(rest, betas=(0.9, 0.99), weight_decay=WEIGHT_DECAY) if rest else None

    def step(self, rate: float) -> None:
        self.muon.step(rate)
        if self.adam is not None:
            for group in self.adam.param_groups:
                group["lr"] = rate
            self.adam.step()


WEIGHT_DECAY = 0.01


class Muon:
    """Orthogonalised momentum (Jordan et al. 2024) in Moonshot's scale, which allows AdamW's learning rates.

    torch.optim.Muon processes matrices one by one, in bfloat16: on a CPU without bfloat16 units, that is nine tenths of a UNet's step.
    This one processes matrices of the same shape together, in float32.
    """

    MOMENTUM = 0.95
    COEFFICIENTS = (3.4445, -4.775, 2.0315)
    ITERATIONS = 5

    def __init__(self, weights: Sequence[torch.Tensor]) -> None:
        alike: dict[tuple[int, ...], list[torch.Tensor]] = {}
        for weight in weights:
            alike.setdefault(tuple(weight.shape), []).append(weight)
        self.groups = list(alike.values())
        self.momenta = [torch.stack([torch.zeros_like(value).flatten(1) for value in group]) for group in self.groups]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        for group, momentum in zip(self.groups, self.momenta):
            found = [torch.zeros_like(value) if value.grad is None else value.grad for value in group]
            gradients = torch.stack([one.flatten(1) for one in found])
            momentum.lerp_(gradients, 1 - self.MOMENTUM)
            rows, columns = gradients.shape[1:]
            changes = self.orthogonal(gradients.lerp_(momentum, self.MOMENTUM))
            size = 0.2 * rate * max(rows, columns) ** 0.5
            for value, change in zip(group, changes):
                value.mul_(1 - rate * WEIGHT_DECAY).sub_(size * change.reshape(value.shape))

    def orthogonal(self, matrices: torch.Tensor) -> torch.Tensor:
        """[count, rows, columns], with all singular values close to 1 after Newton-Schulz iterations."""
        wide = matrices.mT if matrices.shape[1] > matrices.shape[2] else matrices
        wide = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
        first, second, third = self.COEFFICIENTS
        for _ in range(self.ITERATIONS):
            gram = wide @ wide.mT
            wide = torch.baddbmm(wide, torch.baddbmm(gram, gram, gram, beta=second, alpha=third), wide, beta=first)
        return wide.mT if matrices.shape[1] > matrices.shape[2] else wide


def _cosine(done: float) -> float:
    return 0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * done))


RIDGE = 1e-3


@torch.no_grad()
def fit(layer: torch.nn.Linear, given: torch.Tensor, wanted: torch.Tensor) -> None:
    """Fits the layer by least squares, with weights no larger than they need to be."""
    inputs = torch.cat([given, torch.ones(len(given), 1, device=given.device)], 1).double()
    square = inputs.T @ inputs + RIDGE * torch.eye(inputs.shape[1], dtype=torch.float64, device=given.device)
    fitted = torch.linalg.solve(square, inputs.T @ wanted.double()).float()
    layer.weight.copy_(fitted[:-1].T)
    layer.bias.copy_(fitted[-1])


def scenes(count: int, seed: int, **chances: float) -> list[Scene]:
    rng = random.Random(seed)
    return [random_scene(rng, **chances) for _ in range(min(count, Limits.scenes))]


def pictures(of: Sequence[Scene], size: int, style: str = "plain") -> torch.Tensor:
    """[count, 3, size, size] in -1..1, the models' input range."""
    return as_seen(torch.cat(list(drawn(of, size, style))))


def as_seen(drawings: torch.Tensor) -> torch.Tensor:
    """[count, size, size, channels] in bytes -> [count, channels, size, size] in -1..1"""
    return drawings.permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


DEPTH = "depth"
"""Pseudo-style for depth maps."""
FEW = 64
"""Up to this many pictures, drawing stays in this process."""


def drawn(of: Sequence[Scene], size: int, style: str = "plain") -> Iterator[torch.Tensor]:
    """Yields the pictures in bytes, [count, size, size, 3], in parts; many pictures are drawn on all cores."""
    at_once = max(1, min(FEW, PIXELS_AT_ONCE // size**2))
    parts = [(list(of[start : start + at_once]), size, style) for start in range(0, len(of), at_once)]
    if len(of) <= FEW:
        yield from (torch.from_numpy(_draw_part(part)) for part in parts)
        return
    with ProcessPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        yield from (torch.from_numpy(array) for array in pool.map(_draw_part, parts))


def _draw_part(part: tuple[list[Scene], int, str]) -> np.ndarray:
    of, size, style = part
    found = np.empty((len(of), size, size, 3), np.uint8)
    for index, scene in enumerate(of):
        picture = draw_depth(scene, size) if style == DEPTH else draw(scene, size, style)
        found[index] = (picture * 255).round()
    return found


def to_array(picture: torch.Tensor) -> np.ndarray:
    """[3, height, width] in -1..1 -> [height, width, 3] in 0..1, as in drawings and the judge."""
    return (picture.float() / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).cpu().numpy()


@torch.no_grad()
def latents(vae: Any, of: Sequence[Scene], size: int, style: str = "plain") -> torch.Tensor:
    """The scenes' encoded pictures, in the UNet's scale."""
    vae.to(DEVICE)
    return torch.cat([encoded(vae, as_seen(part.to(DEVICE))) for part in drawn(of, size, style)])


@torch.no_grad()
def encoded(vae: Any, shown: torch.Tensor) -> torch.Tensor:
    """Latents of pictures in -1..1, in the UNet's scale."""
    found = vae.encode(shown)
    return found.latent_dist.mean * vae.config.scaling_factor if hasattr(found, "latent_dist") else found.latents


@dataclass(frozen=True)
class Bank:
    """Scenes with their latents at one size, the batch size, and the bank's share of the batches."""

    scenes: list[Scene]
    latents: torch.Tensor
    batch: int
    share: float = 1.0
    more: dict[str, torch.Tensor] = field(default_factory=dict)
    """Additional data by name, with one row per scene."""

    def pick(self) -> Batch:
        """A random batch."""
        count = min(self.batch, Limits.of_size(Limits.batch, self.size))
        return Batch(self, torch.randint(len(self.scenes), (count,), device=self.latents.device))

    @property
    def size(self) -> int:
        """The pictures' width (8 times the latents'); 0 if these aren't latents of pictures."""
        return 8 * self.latents.shape[-1] if self.latents.ndim == 4 else 0


@dataclass(frozen=True)
class Batch:
    bank: Bank
    rows: torch.Tensor
    others: torch.Tensor | None = None
    """[count]: the rows of the scenes that the captions describe, if they differ from `rows`."""

    @property
    def told(self) -> torch.Tensor:
        """The rows of the scenes that the captions describe."""
        return self.rows if self.others is None else self.others

    def mistaken(self, which: torch.Tensor) -> Batch:
        """The same batch, with captions of other scenes where `which`, [count], is true."""
        known = len(self.bank.scenes)
        others = (self.rows + torch.randint(1, max(2, known), self.rows.shape, device=self.rows.device)) % known
        return replace(self, others=torch.where(which, others, self.rows))

    @property
    def clean(self) -> torch.Tensor:
        """The latents."""
        return self.bank.latents[self.rows]

    def more(self, name: str, rows: torch.Tensor | None = None) -> torch.Tensor:
        """Additional data of the bank, for the batch's rows or for others."""
        return self.bank.more[name][self.rows if rows is None else rows]


def noise_for(clean: torch.Tensor, offset: float = 0.2) -> torch.Tensor:
    """Gaussian noise whose mean also varies per channel, with deviation `offset`.

    Otherwise a large latent's mean stays visible in any noise, and the model would read the colours from it instead of the caption.
    """
    return torch.randn_like(clean) + offset * torch.randn_like(clean[:, :, :1, :1])
