"""Trains the upscalers' stand-ins: x2, which doubles a latent, and x4, which paints a picture four times as large."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch.nn.functional import interpolate, mse_loss

from relay_dev.small_parts import scheduler
from relay_dev.small_upscalers import LOW_RES_SCHEDULER, NOISE_EMBED_WIDTH, X4_SCHEDULER

from .autoencoders import from_bytes, to_bytes
from .drawing import STYLES
from .noise import DROPPED
from .scene import Scene, caption, random_scene
from .stable_diffusion import encode, make_unet
from .training import Limits, Plan, latents, pictures, scenes, train

X2_SMALL = 128
"""Side of the smaller pictures; the larger are twice that."""
X2_BATCH = 8
X4_SIDE = 128
"""Of the windows that the x4 upscaler is to paint."""
X4_BATCH = 8
NOISE_LEVELS = 250
"""The x4 pipeline's noise_level is below this in training. Its default is 20."""


def make_x2_unet(width: int, seed: int) -> Any:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=8,
        out_channels=5,
        down_block_types=("KDownBlock2D",) + ("KCrossAttnDownBlock2D",) * 2,
        mid_block_type=None,
        up_block_types=("KCrossAttnUpBlock2D",) * 2 + ("KUpBlock2D",),
        block_out_channels=(32, 64, 64),  # its norms want multiples of 32
        layers_per_block=1,
        only_cross_attention=False,
        act_fn="gelu",
        norm_num_groups=None,
        cross_attention_dim=width,
        attention_head_dim=16,
        resnet_time_scale_shift="scale_shift",
        time_embedding_type="fourier",
        timestep_post_act="gelu",
        time_cond_proj_dim=NOISE_EMBED_WIDTH + width,
        conv_in_kernel=1,
        conv_out_kernel=1,
    )


def train_x2(unet: Any, vae: Any, tokenizer: Any, text_encoder: Any, plan: Plan) -> Any:
    """Karras et al.'s preconditioning (2022, table 1) with sigma_data 1, in which the pipeline calls this UNet."""
    rng = random.Random(plan.seed)
    shown, styles = scenes(1200, plan.seed, two=0.5, anywhere=1), list(STYLES)
    parts = [shown[number :: len(styles)] for number in range(len(styles))]
    ordered = [scene for part in parts for scene in part]
    small = torch.cat([latents(vae, part, X2_SMALL, style) for part, style in zip(parts, styles)])
    large = torch.cat([latents(vae, part, 2 * X2_SMALL, style) for part, style in zip(parts, styles)])
    level = torch.cat([torch.ones(X2_BATCH, NOISE_EMBED_WIDTH // 2), torch.zeros(X2_BATCH, NOISE_EMBED_WIDTH // 2)], 1)

    def loss_of(step: int) -> torch.Tensor:
        chosen = [rng.randrange(len(ordered)) for _ in range(X2_BATCH)]
        texts = ["" if rng.random() < DROPPED else caption(ordered[index], rng) for index in chosen]
        with torch.no_grad():
            states, pooled = hidden_and_pooled(tokenizer, text_encoder, texts)
        clean = large[chosen]
        given = interpolate(small[chosen], scale_factor=2, mode="nearest")
        noise = torch.randn_like(clean)
        sigma = (torch.randn(X2_BATCH, 1, 1, 1) * 1.6 - 0.2).exp().clamp(0.03, 14.7)
        size = (sigma**2 + 1).sqrt()
        inputs = torch.cat([(clean + sigma * noise) / size, given], 1)
        found = unet(
            inputs, sigma.flatten().log() / 4, encoder_hidden_states=states, timestep_cond=torch.cat([level, pooled], 1)
        ).sample
        return mse_loss(found[:, :-1], (sigma * clean - noise) / size)

    return train("x2 upscaler", unet, loss_of, plan, muon=True)


def hidden_and_pooled(tokenizer: Any, text_encoder: Any, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """The last layer's states before the final norm, and the pooled ones, as the x2 pipeline takes them."""
    ids = tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    out = text_encoder(ids, output_hidden_states=True)
    pooled = (
        out.pooler_output if "pooler_output" in out else _pooled(out.last_hidden_state, ids, tokenizer.eos_token_id)
    )
    return out.hidden_states[-1], pooled


def _pooled(states: torch.Tensor, ids: torch.Tensor, end: int) -> torch.Tensor:
    return states[torch.arange(len(ids)), (ids == end).int().argmax(1)]


def make_x4_unet(width: int, seed: int) -> Any:
    return make_unet(
        width,
        seed,
        in_channels=7,
        out_channels=4,
        block_out_channels=(24, 32, 32),
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        use_linear_projection=True,
        num_class_embeds=1000,
    )


def train_x4(unet: Any, vae: Any, tokenizer: Any, text_encoder: Any, plan: Plan) -> Any:
    """Predicts the velocity of a latent a quarter as wide as the picture, with the small picture, noisy too, beside it."""
    rng = random.Random(plan.seed)
    noiser = scheduler({**X4_SCHEDULER, "_class_name": "DDPMScheduler"})
    low_res = scheduler(LOW_RES_SCHEDULER)
    windows = _Windows(rng)

    def loss_of(step: int) -> torch.Tensor:
        texts, wanted = windows.batch()
        clean = encode_scaled(vae, wanted)
        small = torch.nn.functional.avg_pool2d(wanted, 4)
        levels = torch.randint(0, NOISE_LEVELS, (X4_BATCH,))
        given = low_res.add_noise(small, torch.randn_like(small), levels)
        with torch.no_grad():
            states = encode(tokenizer, text_encoder, texts)
        noise, at = torch.randn_like(clean), torch.randint(0, 1000, (X4_BATCH,))
        inputs = torch.cat([noiser.add_noise(clean, noise, at), given], 1)
        found = unet(inputs, at, states, class_labels=levels).sample
        return mse_loss(found, noiser.get_velocity(clean, noise, at))

    return train("x4 upscaler", unet, loss_of, plan, muon=True)


@torch.no_grad()
def encode_scaled(vae: Any, shown: torch.Tensor) -> torch.Tensor:
    return vae.encode(shown).latent_dist.mean * vae.config.scaling_factor


class _Windows:
    """Windows of pictures of several sizes, with their whole pictures' captions. The pictures are drawn once."""

    def __init__(self, rng: random.Random, count: int = 600) -> None:
        self.rng = rng
        self.shown: list[tuple[Scene, torch.Tensor]] = []
        for _ in range(min(count, Limits.scenes)):
            scene, whole = random_scene(rng, two=0.5, anywhere=1), X4_SIDE * rng.choice((1, 2, 4))
            self.shown.append((scene, to_bytes(pictures([scene], whole, rng.choice(list(STYLES))))))

    def batch(self) -> tuple[list[str], torch.Tensor]:
        texts, parts = [], []
        for scene, picture in self.rng.choices(self.shown, k=X4_BATCH):
            room = picture.shape[-1] - X4_SIDE
            x, y = self.rng.randrange(room + 1), self.rng.randrange(room + 1)
            parts.append(picture[:, :, y : y + X4_SIDE, x : x + X4_SIDE])
            texts.append("" if self.rng.random() < DROPPED else caption(scene, self.rng))
        return texts, from_bytes(torch.cat(parts))
