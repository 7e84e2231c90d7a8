"""Trains the upscalers' stand-ins: x2, which doubles a latent, and x4, which enlarges a picture four times."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch.nn.functional import interpolate, mse_loss

from small_models.parts import scheduler
from small_models.upscalers import LOW_RES_SCHEDULER, NOISE_EMBED_WIDTH, X4_SCHEDULER

from .drawing import STYLES
from .scene import Scene
from .stable_diffusion import Captions, make_unet
from .training import DEVICE, Bank, Plan, as_seen, drawn, encoded, latents, scenes, train

X2_SMALL = 128
"""Side of the small pictures; the large ones are twice as wide."""
X2_SCENES = 8000
X2_BATCH = 128
X4_SIDE = 128
"""Side of the windows that the x4 upscaler paints."""
X4_SHOWN_AT = {X4_SIDE: 3000, 2 * X4_SIDE: 3000, 4 * X4_SIDE: 3000}
"""{size of the pictures that they are cut from: number}."""
X4_BATCH = 128
NOISE_LEVELS = 250
"""In training, the x4 pipeline's noise_level is below this. Its default is 20."""


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
        block_out_channels=(32, 64, 64),  # its norms need multiples of 32
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
    """Trains with the preconditioning of Karras et al. (2022, table 1) and sigma_data 1, as the pipeline calls this UNet."""
    shown, styles = scenes(X2_SCENES, plan.seed, two=0.5, anywhere=1), list(STYLES)
    parts = [shown[number :: len(styles)] for number in range(len(styles))]
    small, large = (
        torch.cat([latents(vae, part, size, style) for part, style in zip(parts, styles)])
        for size in (X2_SMALL, 2 * X2_SMALL)
    )
    bank = Bank([scene for part in parts for scene in part], large, X2_BATCH, more={"small": small})
    captions = Captions(tokenizer, plan.seed)
    text_encoder.to(DEVICE)
    level = torch.tensor([1.0] * (NOISE_EMBED_WIDTH // 2) + [0.0] * (NOISE_EMBED_WIDTH // 2), device=DEVICE)

    def loss_of(step: int) -> torch.Tensor:
        batch = bank.pick()
        clean = batch.clean
        with torch.no_grad():
            states, pooled = hidden_and_pooled(tokenizer, text_encoder, captions.pick(batch)[0])
        given = interpolate(batch.more("small"), scale_factor=2, mode="nearest")
        noise = torch.randn_like(clean)
        sigma = (torch.randn_like(clean[:, :1, :1, :1]) * 1.6 - 0.2).exp().clamp(0.03, 14.7)
        size = (sigma**2 + 1).sqrt()
        inputs = torch.cat([(clean + sigma * noise) / size, given], 1)
        known = torch.cat([level.expand(len(clean), -1), pooled], 1)
        found = unet(inputs, sigma.flatten().log() / 4, encoder_hidden_states=states, timestep_cond=known).sample
        return mse_loss(found[:, :-1], (sigma * clean - noise) / size)

    return train("x2 upscaler", unet, loss_of, plan, muon=True)


def hidden_and_pooled(tokenizer: Any, text_encoder: Any, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The last layer's states before the final norm, and the pooled states, as in the x2 pipeline."""
    out = text_encoder(ids, output_hidden_states=True)
    pooled = (
        out.pooler_output if "pooler_output" in out else _pooled(out.last_hidden_state, ids, tokenizer.eos_token_id)
    )
    return out.hidden_states[-1], pooled


def _pooled(states: torch.Tensor, ids: torch.Tensor, end: int) -> torch.Tensor:
    return states[torch.arange(len(ids), device=ids.device), (ids == end).int().argmax(1)]


def make_x4_unet(width: int, seed: int) -> Any:
    return make_unet(
        width,
        seed,
        in_channels=7,
        out_channels=4,
        block_out_channels=(16, 24, 32),
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        use_linear_projection=True,
        num_class_embeds=1000,
    )


def train_x4(unet: Any, vae: Any, tokenizer: Any, text_encoder: Any, plan: Plan) -> Any:
    """Trains velocity prediction for a latent a quarter as wide as the picture, with the noisy small picture as additional channels."""
    noiser = scheduler({**X4_SCHEDULER, "_class_name": "DDPMScheduler"})
    low_res = scheduler(LOW_RES_SCHEDULER)
    bank = _windows(vae, random.Random(plan.seed))
    captions = Captions(tokenizer, plan.seed)
    text_encoder.to(DEVICE)

    def loss_of(step: int) -> torch.Tensor:
        batch = bank.pick()
        clean, small = batch.clean, as_seen(batch.more("small"))
        levels = torch.randint(0, NOISE_LEVELS, clean.shape[:1], device=DEVICE)
        given = low_res.add_noise(small, torch.randn_like(small), levels)
        with torch.no_grad():
            states = text_encoder(captions.pick(batch)[0]).last_hidden_state
        noise, at = torch.randn_like(clean), torch.randint(0, 1000, clean.shape[:1], device=DEVICE)
        inputs = torch.cat([noiser.add_noise(clean, noise, at), given], 1)
        found = unet(inputs, at, states, class_labels=levels).sample
        return mse_loss(found, noiser.get_velocity(clean, noise, at))

    return train("x4 upscaler", unet, loss_of, plan, muon=True)


@torch.no_grad()
def _windows(vae: Any, rng: random.Random) -> Bank:
    """One window from each picture, in several sizes and all styles, with the picture's scene: its latents and the small picture."""
    vae.to(DEVICE)
    of: list[Scene] = []
    clean, small = [], []
    for size, count in X4_SHOWN_AT.items():
        shown = scenes(count, rng.randrange(2**31), two=0.5, anywhere=1)
        for number, style in enumerate(STYLES):
            part = shown[number :: len(STYLES)]
            of += part
            for pictures in drawn(part, size, style):
                x, y = rng.randrange(size - X4_SIDE + 1), rng.randrange(size - X4_SIDE + 1)
                wanted = as_seen(pictures[:, y : y + X4_SIDE, x : x + X4_SIDE].to(DEVICE))
                clean.append(encoded(vae, wanted))
                low = torch.nn.functional.avg_pool2d(wanted, 4)
                small.append(((low + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1))
    return Bank(of, torch.cat(clean), X4_BATCH, more={"small": torch.cat(small)})
