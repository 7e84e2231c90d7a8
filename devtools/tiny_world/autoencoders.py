"""Trains the autoencoders: SD1.5's, SDXL's, the x4 upscaler's (all AutoencoderKL) and Kandinsky's (VQModel, known as MoVQ).

They see pictures of the world in every style, and abstract ones, so that they also carry pictures from elsewhere tolerably.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import interpolate

from .drawing import STYLES
from .scene import random_scene
from .training import Plan, pictures, train

LATENT_CHANNELS = 4
LATENT_NOISE = 0.03
"""Standard deviation, in the UNet's scale, that the decoder has to bear: samplers do not hit latents exactly."""


def make_autoencoder_kl(widths: Sequence[int], scaling_factor: float, seed: int, **config: Any) -> Any:
    """AutoencoderKL; each width after the first halves the picture once."""
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    vae = AutoencoderKL(
        block_out_channels=tuple(widths),
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=128,
        scaling_factor=scaling_factor,
        **config,
    )
    torch.nn.init.constant_(vae.quant_conv.bias[LATENT_CHANNELS:], -6.0)  # little posterior noise to begin with
    return vae


def make_movq(seed: int) -> Any:
    """VQModel with Kandinsky's spatial norm, whose 32 groups ask for widths that they divide."""
    from diffusers import VQModel

    torch.manual_seed(seed)
    return VQModel(
        block_out_channels=(32, 32, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3 + ("AttnDownEncoderBlock2D",),
        up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        num_vq_embeddings=256,
        vq_embed_dim=LATENT_CHANNELS,
        norm_num_groups=32,
        norm_type="spatial",
    )


def train_autoencoder_kl(name: str, vae: Any, plan: Plan) -> Any:
    """Picture, edges, and a posterior that stays near the normal distribution.

    The encoder is trained in the UNet's scale; dividing by scaling_factor is then folded into its last layer.
    """
    rng = random.Random(plan.seed)

    def loss_of(step: int) -> torch.Tensor:
        wanted = training_pictures(rng, step)
        posterior = vae.encode(wanted).latent_dist
        latents = posterior.sample() + LATENT_NOISE * torch.randn_like(posterior.mean)
        divergence = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        loss = picture_loss(vae.decode(latents).sample, wanted) + 1e-4 * divergence
        return loss + 0.02 * _beyond_unit(posterior.mean)

    trained = train(name, vae, loss_of, plan)
    fold_scale(trained, trained.config.scaling_factor)
    return trained


def train_movq(name: str, movq: Any, plan: Plan) -> Any:
    """The same picture from the latents as they are, which is how Kandinsky decodes, and from the codebook's nearest entries."""
    rng = random.Random(plan.seed)

    def loss_of(step: int) -> torch.Tensor:
        wanted = training_pictures(rng, step)
        latents = movq.encode(wanted).latents
        noisy = latents + LATENT_NOISE * torch.randn_like(latents)
        quantised, commitment, _ = movq.quantize(latents)
        use = quantised if step % 4 == 3 else noisy
        shown = movq.decode(use, force_not_quantize=True).sample
        return picture_loss(shown, wanted) + 0.1 * commitment + 0.02 * _beyond_unit(latents)

    return train(name, movq, loss_of, plan)


def picture_loss(shown: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Absolute difference, of the pictures and of the steps between neighbouring pixels, which keeps edges sharp."""
    loss = (shown - wanted).abs().mean()
    for axis in (-1, -2):
        loss = loss + (shown.diff(dim=axis) - wanted.diff(dim=axis)).abs().mean()
    return loss


def training_pictures(rng: random.Random, step: int) -> torch.Tensor:
    """A batch in -1..1: mostly small pictures, every eighth time a few large ones; windows of them, so that edges are everywhere."""
    size, count = (256, 1) if step % 8 == 7 else (64, 16)
    parts = []
    for _ in range(count):
        if rng.random() < 0.15:
            parts.append(_abstract(rng, size))
            continue
        whole = size * rng.choice((1, 2, 2, 4))
        picture = pictures([random_scene(rng, two=0.5)], whole, rng.choice(list(STYLES)))
        x, y = rng.randrange(whole - size + 1), rng.randrange(whole - size + 1)
        parts.append(picture[:, :, y : y + size, x : x + size])
    return torch.cat(parts)


def _abstract(rng: random.Random, size: int) -> torch.Tensor:
    """Random colours at a few scales."""
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    total = torch.zeros(1, 3, size, size)
    for cells in (2, 4, 9, 18):
        coarse = torch.randn(1, 3, cells, cells, generator=generator)
        total = total + rng.random() / cells**0.5 * interpolate(coarse, (size, size), mode="bicubic")
    return total.tanh()


def _beyond_unit(latents: torch.Tensor) -> torch.Tensor:
    """How far from mean 0 and deviation 1 each channel of the batch is."""
    return (latents.mean((0, 2, 3)) ** 2 + (latents.std((0, 2, 3)) - 1) ** 2).sum()


@torch.no_grad()
def fold_scale(vae: Any, scaling_factor: float) -> None:
    """Makes an encoder of latents in the UNet's scale one of latents that are `scaling_factor` times smaller in it; and the decoder."""
    mean = slice(0, LATENT_CHANNELS)
    spread = slice(LATENT_CHANNELS, 2 * LATENT_CHANNELS)
    vae.quant_conv.weight[mean] /= scaling_factor
    vae.quant_conv.bias[mean] /= scaling_factor
    vae.quant_conv.bias[spread] -= 2 * torch.tensor(scaling_factor).log()
    vae.post_quant_conv.weight *= scaling_factor
