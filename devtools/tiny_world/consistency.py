"""Distils the SD1.5 stand-in into an LCM-LoRA, which paints in four steps without guidance (Luo et al. 2023).

A consistency model predicts from every point of a path of the teacher's, from noise to a picture, where the path ends. Here the teacher
walks whole paths first, so the ends are known: hundreds of steps are enough, where a model that learns from its own predictions needs
thousands.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch

from .additions import LORA_RANK, lora_weights
from .scene import caption
from .stable_diffusion import encode
from .training import DEVICE, Limits, Plan, scenes, train

SIZES = {256: (2000, 64, 0.7), 512: (400, 16, 0.3)}
"""{picture size: (number of paths, points per batch, share of the batches)}."""
LAYERS = (
    r"(down_blocks|mid_block|up_blocks)\..*"
    r"(conv|conv1|conv2|conv_shortcut|proj_in|proj_out|to_q|to_out\.0|attn1\.to_k|attn1\.to_v|net\.0\.proj|net\.2)"
)
"""Everything but what reads the text, whose width differs in the published layout."""
WALKED, GUIDANCE = 20, 3.0
"""Steps of a path, and its guidance scale, which the LoRA learns with it."""
JUMPS = 4
"""Half of the points are those at which a run of four steps begins its steps."""
HUBER = 0.01


@dataclass(frozen=True)
class Paths:
    """`states`: [count, 77, width], of the captions. `latents`: [count, WALKED + 1, 4, height, width]; the last ones are the pictures'.
    `times`: [WALKED], the timesteps of the others."""

    states: torch.Tensor
    latents: torch.Tensor
    times: torch.Tensor
    batch: int
    share: float


@torch.no_grad()
def walk(pipeline: Any, size: int, count: int, batch: int, share: float, seed: int) -> Paths:
    """The teacher's paths for random captions."""
    rng = random.Random(seed)
    shown = scenes(Limits.of_size(min(count, Limits.scenes), size), seed, two=0.2, empty=0)
    states = encode(pipeline.tokenizer, pipeline.text_encoder, [caption(scene, rng) for scene in shown])
    nothing = encode(pipeline.tokenizer, pipeline.text_encoder, [""])
    at_once = Limits.of_size(min(batch, Limits.batch), size)
    walked = []
    for part in states.split(at_once):
        points = [torch.randn(len(part), 4, size // 8, size // 8, device=DEVICE)]

        def keep(_: Any, step: int, at: Any, given: dict[str, Any], points: list[torch.Tensor] = points) -> Any:
            points.append(given["latents"])
            return given

        pipeline(
            prompt_embeds=part,
            negative_prompt_embeds=nothing.expand(len(part), -1, -1),
            latents=points[0],
            num_inference_steps=WALKED,
            guidance_scale=GUIDANCE,
            output_type="latent",
            callback_on_step_end=keep,
        )
        walked.append(torch.stack(points, 1))
    return Paths(states, torch.cat(walked), pipeline.scheduler.timesteps.to(DEVICE), at_once, share)


def train_lcm_lora(pipeline: Any, plan: Plan) -> dict[str, torch.Tensor]:
    """pipeline: the SD1.5 stand-in's, with a solver of the probability flow as its scheduler. Returns the LoRA in diffusers' format."""
    from diffusers import LCMScheduler
    from peft import LoraConfig

    torch.manual_seed(plan.seed)
    pipeline.to(DEVICE)
    banks = [walk(pipeline, size, *how, seed=plan.seed + size) for size, how in SIZES.items()]
    unet = pipeline.unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=LORA_RANK, lora_alpha=LORA_RANK, target_modules=LAYERS))
    lcm = LCMScheduler.from_config(pipeline.scheduler.config)
    signal = lcm.alphas_cumprod.to(DEVICE)
    rng = random.Random(plan.seed)

    def loss_of(step: int) -> torch.Tensor:
        (paths,) = rng.choices(banks, [bank.share for bank in banks])
        rows = torch.randint(len(paths.states), (paths.batch,), device=DEVICE)
        points = points_of(paths.batch)
        noisy, at = paths.latents[rows, points], paths.times[points]
        velocity = unet(noisy, at, encoder_hidden_states=paths.states[rows]).sample
        kept = signal[at][:, None, None, None]
        clean = kept.sqrt() * noisy - (1 - kept).sqrt() * velocity
        skip, out = (one[:, None, None, None] for one in lcm.get_scalings_for_boundary_condition_discrete(at))
        off = out * clean + skip * noisy - paths.latents[rows, -1]
        return ((off**2 + HUBER**2).sqrt() - HUBER).mean()

    return lora_weights(train("lcm lora", unet, loss_of, plan, muon=True))


def points_of(count: int) -> torch.Tensor:
    """Which points of their paths a batch has."""
    anywhere = torch.randint(WALKED, (count,), device=DEVICE)
    jumps = torch.randint(JUMPS, (count,), device=DEVICE) * (WALKED // JUMPS)
    return torch.where(torch.rand(count, device=DEVICE) < 0.5, jumps, anywhere)
