"""Trains the autoencoders: SD1.5's, SDXL's, the x4 upscaler's (all AutoencoderKL) and Kandinsky's (VQModel, known as MoVQ).

They train on pictures of the world in every style and on abstract ones, so that they also work passably on other pictures. Each is
first trained as a whole; then training continues with only the decoder, on fixed latents.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import interpolate, mse_loss

from .drawing import STYLES
from .training import DEVICE, Limits, Plan, as_seen, drawn, scenes, train

LATENT_CHANNELS = 4
LATENT_NOISE = 0.03
"""Standard deviation of noise, in the UNet's scale, that the decoder must tolerate: samplers don't hit latents exactly."""

COLORS_LIE = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]])
"""An orthogonal matrix. Rotated by it, three of a latent's channels are the mean red, green and blue of its pixels; the fourth is free.

Of all matrices with one entry per row, it makes ComfyUI's previews, designed for the published SD1.5's latents, closest to the
pictures: pale, with the right hues.
"""
SDXL_COLORS_LIE = torch.tensor([[1.0, -1, 1, -1], [1, -1, -1, 1], [1, 1, -1, -1], [1, 1, 1, 1]]) / 2
"""The same for SDXL's latents and previews, of all matrices whose entries have equal size."""
COLORS_SPAN = 1.4
"""The factor from a picture's -1..1 to the UNet's scale, which gives these channels a deviation of about 1."""


def make_autoencoder_kl(widths: Sequence[int], scaling_factor: float, seed: int, **config: Any) -> Any:
    """An AutoencoderKL; each width after the first halves the picture."""
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    vae = AutoencoderKL(
        block_out_channels=tuple(widths),
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=2,  # norms over many groups would lose the colour of plain areas
        sample_size=128,
        scaling_factor=scaling_factor,
        **config,
    )
    torch.nn.init.constant_(vae.quant_conv.bias[LATENT_CHANNELS:], -6.0)  # little posterior noise at first
    return vae


def make_movq(seed: int) -> Any:
    """A VQModel with Kandinsky's spatial norm, whose 32 groups must divide the widths."""
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
    """Losses for the picture, its edges, a posterior close to the normal distribution, and latents arranged like the colours.

    Otherwise such a small encoder spends most of its latents on borders and edges, and red and orange become so similar that a UNet can't
    distinguish them under any noise.
    The encoder is trained in the UNet's scale; the division by scaling_factor is then folded into its last layer.
    """
    windows = Windows(random.Random(plan.seed))

    def loss_of(step: int) -> torch.Tensor:
        wanted = windows.batch()
        posterior = vae.encode(wanted).latent_dist
        latents = posterior.sample() + LATENT_NOISE * torch.randn_like(posterior.mean)
        divergence = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        loss = picture_loss(vae.decode(latents).sample, wanted) + 1e-4 * divergence
        return loss + colors_loss(posterior.mean, wanted) + 0.02 * _beyond_unit(posterior.mean)

    trained = train(name, vae, loss_of, plan, muon=True)
    fold_scale(trained, trained.config.scaling_factor)
    return trained


DECODED_AT = {128: (8000, 64), 256: (2000, 16)}
"""{picture size: (number of different pictures, pictures per step)}; the sizes alternate, three steps to one."""


def train_decoder(name: str, vae: Any, plan: Plan) -> Any:
    """Continues with only the decoder: steps are faster, and use whole pictures with their borders."""
    rng = random.Random(plan.seed)
    vae.requires_grad_(False).to(DEVICE)
    vae.decoder.requires_grad_(True)
    movq = hasattr(vae, "quantize")
    shown = {size: _encoded(vae, rng, size, count) for size, (count, _) in DECODED_AT.items()}
    scale = 1.0 if movq else 1 / vae.config.scaling_factor
    """The size of 1 in the UNet's scale, in the decoder's latents."""
    sizes = list(shown)

    def loss_of(step: int) -> torch.Tensor:
        size = sizes[step % 4 == 3]
        wanted, latents = shown[size]
        chosen = torch.randint(len(wanted), (min(DECODED_AT[size][1], Limits.batch),), device=DEVICE)
        given = latents[chosen]
        given = given + LATENT_NOISE * scale * torch.randn_like(given)
        back = vae.decode(given, force_not_quantize=True).sample if movq else vae.decode(given).sample
        return picture_loss(back, as_seen(wanted[chosen]))

    return train(f"{name} decoder", vae, loss_of, plan, muon=True)


@torch.no_grad()
def _encoded(vae: Any, rng: random.Random, size: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole pictures in bytes, and their latents in the decoder's scale."""
    shown = _every_kind(rng, size, count)
    parts = [vae.encode(as_seen(part)) for part in shown.split(64)]
    latents = [part.latent_dist.mean if hasattr(part, "latent_dist") else part.latents for part in parts]
    return shown, torch.cat(latents)


TURN = SDXL_COLORS_LIE.T @ COLORS_LIE
"""The rotation from SD1.5's latents to SDXL's."""


@torch.no_grad()
def turned(vae: Any, scaling_factor: float, **config: Any) -> Any:
    """Another latent space for the same pictures: rotates the channels in the UNet's scale by TURN, and scales them differently.

    The latents of the published SD1.5 and SDXL have nothing in common. Training a second autoencoder as long as the first would be no
    better an example of that, and this costs no time.
    """
    factor = vae.config.scaling_factor / scaling_factor
    other = type(vae).from_config({**vae.config, "scaling_factor": scaling_factor, **config})
    weights = {name: value.clone() for name, value in vae.state_dict().items()}
    mean, spread = slice(0, LATENT_CHANNELS), slice(LATENT_CHANNELS, 2 * LATENT_CHANNELS)
    for part in ("weight", "bias"):
        value = weights[f"quant_conv.{part}"]
        value[mean] = factor * torch.einsum("ij,j...->i...", TURN, value[mean])
    weights["quant_conv.bias"][spread] += 2 * torch.tensor(factor).log()
    weights["post_quant_conv.weight"] = torch.einsum("oihw,ji->ojhw", weights["post_quant_conv.weight"], TURN) / factor
    other.load_state_dict(weights)
    return other.eval().requires_grad_(False)


def train_movq(name: str, movq: Any, plan: Plan) -> Any:
    """Trains it to decode the same picture from unquantised latents, as Kandinsky does, and from the nearest codebook entries."""
    windows = Windows(random.Random(plan.seed))

    def loss_of(step: int) -> torch.Tensor:
        wanted = windows.batch()
        latents = movq.encode(wanted).latents
        noisy = latents + LATENT_NOISE * torch.randn_like(latents)
        quantised, commitment, _ = movq.quantize(latents)
        use = quantised if step % 4 == 3 else noisy
        shown = movq.decode(use, force_not_quantize=True).sample
        return picture_loss(shown, wanted) + 0.1 * commitment + 0.02 * _beyond_unit(latents)

    return train(name, movq, loss_of, plan)


def picture_loss(shown: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """The absolute difference of the pictures and of the steps between neighbouring pixels, which keeps edges sharp.

    Also the squared difference: without it, the model soon leaves out things that differ little from their surroundings (yellow on orange).
    """
    loss = (shown - expected).abs().mean() + 2 * mse_loss(shown, expected)
    for axis in (-1, -2):
        loss = loss + (shown.diff(dim=axis) - expected.diff(dim=axis)).abs().mean()
    return loss


def colors_loss(latents: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """The distance of latents in the UNet's scale from the colours that they represent."""
    colors = torch.nn.functional.avg_pool2d(shown, shown.shape[-1] // latents.shape[-1]) * COLORS_SPAN
    return mse_loss(torch.einsum("ij,bjhw->bihw", COLORS_LIE.to(latents.device), latents)[:, :3], colors)


class Windows:
    """Windows from pictures drawn once, in every style, a tenth of them abstract: drawing for each step would take a third of its time."""

    DRAWN_AT = {64: 6000, 128: 12000, 256: 6000}
    """{size of the whole pictures: number}."""

    def __init__(self, rng: random.Random, size: int = 64, count: int = 64) -> None:
        self.count = count
        cut = []
        for whole, number in self.DRAWN_AT.items():
            for part in _every_kind(rng, whole, number).split(32):
                x, y = rng.randrange(whole - size + 1), rng.randrange(whole - size + 1)
                cut.append(part[:, y : y + size, x : x + size])
        self.cut = torch.cat(cut)

    def batch(self) -> torch.Tensor:
        """[count, 3, size, size] in -1..1"""
        count = min(self.count, Limits.batch)
        return as_seen(self.cut[torch.randint(len(self.cut), (count,), device=self.cut.device)])


def _every_kind(rng: random.Random, size: int, count: int) -> torch.Tensor:
    """[count, size, size, 3] in bytes, in random order"""
    of = scenes(count, rng.randrange(2**31), two=0.5, anywhere=1)
    abstract = max(1, len(of) // 10)
    parts = [_abstract(rng, size) for _ in range(abstract)]
    for number, style in enumerate(STYLES):
        parts += drawn(of[abstract + number :: len(STYLES)], size, style)
    together = torch.cat(parts)
    order = torch.randperm(len(together), generator=torch.Generator().manual_seed(rng.randrange(2**31)))
    return together[order].to(DEVICE)


def _abstract(rng: random.Random, size: int) -> torch.Tensor:
    """[1, size, size, 3] in bytes: random colours at a few scales."""
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    total = torch.zeros(1, 3, size, size)
    for cells in (2, 4, 9, 18):
        coarse = torch.randn(1, 3, cells, cells, generator=generator)
        total = total + rng.random() / cells**0.5 * interpolate(coarse, (size, size), mode="bicubic")
    return ((total.tanh() + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)


def _beyond_unit(latents: torch.Tensor) -> torch.Tensor:
    """How far each channel of the batch is from mean 0 and deviation 1."""
    return (latents.mean((0, 2, 3)) ** 2 + (latents.std((0, 2, 3)) - 1) ** 2).sum()


@torch.no_grad()
def fold_scale(vae: Any, scaling_factor: float) -> None:
    """Rescales encoder and decoder from latents in the UNet's scale to latents divided by `scaling_factor`."""
    mean = slice(0, LATENT_CHANNELS)
    spread = slice(LATENT_CHANNELS, 2 * LATENT_CHANNELS)
    vae.quant_conv.weight[mean] /= scaling_factor
    vae.quant_conv.bias[mean] /= scaling_factor
    vae.quant_conv.bias[spread] -= 2 * torch.tensor(scaling_factor).log()
    vae.post_quant_conv.weight *= scaling_factor
