"""Trains Kandinsky 2.2's stand-ins: the prior (a text's picture embedding), the decoder (a picture from an embedding), and its depth twin."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from relay_dev.small_parts import UNCLIP, scheduler

from .clip import MEAN, PICTURE_SIZE, STD, G
from .drawing import draw_depth
from .noise import DROPPED, train_denoiser
from .scene import Scene, caption
from .schedules import KANDINSKY
from .stable_diffusion import STYLE_PARTS, make_banks
from .training import Plan, pictures, scenes, train

PRIOR_BATCH = 64
SHOWN_AT = {256: (1000, 12, 0.5), 512: (250, 3, 0.4), 768: (40, 1, 0.1)}
WIDTHS = (32, 32, 48, 64)
HINT_PARTS = (*STYLE_PARTS, "add_embedding.")
"""What the depth decoder learns anew."""


def make_prior(seed: int) -> Any:
    from diffusers import PriorTransformer

    torch.manual_seed(seed)
    return PriorTransformer(
        num_attention_heads=4, attention_head_dim=24, num_layers=3, embedding_dim=G.width, additional_embeddings=4
    )


def make_decoder_unet(seed: int, *, hint: bool = False) -> Any:
    """`hint`: the depth ControlNet decoder's, with a depth map beside the latents."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=8 if hint else 4,
        out_channels=8,
        addition_embed_type="image_hint" if hint else "image",
        down_block_types=("ResnetDownsampleBlock2D",) * 2 + ("SimpleCrossAttnDownBlock2D",) * 2,
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D",) * 2 + ("ResnetUpsampleBlock2D",) * 2,
        block_out_channels=WIDTHS,
        layers_per_block=1,
        norm_num_groups=4,
        encoder_hid_dim=G.width,
        encoder_hid_dim_type="image_proj",
        cross_attention_dim=32,
        attention_head_dim=8,
        resnet_time_scale_shift="scale_shift",
    )


@torch.no_grad()
def picture_embeddings(tower: Any, of: Sequence[Scene], style: str = "plain") -> torch.Tensor:
    """[count, width], of pictures of the size that the tower sees."""
    parts = []
    for start in range(0, len(of), 64):
        shown = pictures(of[start : start + 64], PICTURE_SIZE, style) / 2 + 0.5
        parts.append(tower((shown - MEAN) / STD).image_embeds)
    return torch.cat(parts)


@torch.no_grad()
def no_picture(tower: Any) -> torch.Tensor:
    """[width]: what the prior's pipeline gives as the negative embedding where there is no negative prompt."""
    return tower(torch.zeros(1, 3, PICTURE_SIZE, PICTURE_SIZE)).image_embeds[0]


def train_prior(prior: Any, tokenizer: Any, text_tower: Any, picture_tower: Any, plan: Plan) -> Any:
    """Prediction of the clean embedding from a noisy one, the text's embedding and its states."""
    rng = random.Random(plan.seed)
    shown = scenes(12000, plan.seed, two=0.2)
    embeddings = picture_embeddings(picture_tower, shown)
    with torch.no_grad():
        prior.clip_mean.copy_(embeddings.mean(0, keepdim=True))
        prior.clip_std.copy_(embeddings.std(0, keepdim=True))
    prior.clip_mean.requires_grad_(False)
    prior.clip_std.requires_grad_(False)
    normal = (embeddings - prior.clip_mean) / prior.clip_std
    noiser = scheduler(UNCLIP)

    def loss_of(step: int) -> torch.Tensor:
        chosen = [rng.randrange(len(shown)) for _ in range(PRIOR_BATCH)]
        texts = ["" if rng.random() < DROPPED else caption(shown[index], rng) for index in chosen]
        found = tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        with torch.no_grad():
            out = text_tower(found.input_ids)
        clean = normal[chosen]
        at = torch.randint(0, 1000, (PRIOR_BATCH,))
        noisy = noiser.add_noise(clean, torch.randn_like(clean), at)
        predicted = prior(
            noisy,
            timestep=at,
            proj_embedding=out.text_embeds,
            encoder_hidden_states=out.last_hidden_state,
            attention_mask=found.attention_mask.bool(),
        ).predicted_image_embedding
        return torch.nn.functional.mse_loss(predicted, clean)

    return train("kandinsky prior", prior, loss_of, plan)


def train_decoder(unet: Any, movq: Any, picture_tower: Any, plan: Plan, *, hint: bool = False) -> Any:
    """From the embedding of the same scene's picture. The second half of the output, the variance, is learnt as in DDPM's improved form.

    diffusers' pipelines cut the variance off unless the scheduler wants it, and so only the noise is trained.
    """
    banks = make_banks(movq, "plain", plan.seed, SHOWN_AT)
    known = {
        id(scene): vector
        for bank in banks
        for scene, vector in zip(bank.scenes, picture_embeddings(picture_tower, bank.scenes))
    }
    rng = random.Random(plan.seed)
    nothing = no_picture(picture_tower)

    def conditions(of: list[Scene], side: int) -> dict[str, Any]:
        vectors = [nothing if rng.random() < DROPPED else known[id(scene)] for scene in of]
        added = {"image_embeds": torch.stack(vectors)}
        if hint:
            depth = np.stack([draw_depth(scene, 8 * side) for scene in of])
            added["hint"] = torch.from_numpy(depth).permute(0, 3, 1, 2)
        return {"encoder_hidden_states": None, "added_cond_kwargs": added}

    name = "kandinsky depth decoder" if hint else "kandinsky decoder"
    return train_denoiser(name, unet, banks, conditions, plan, config=KANDINSKY)
