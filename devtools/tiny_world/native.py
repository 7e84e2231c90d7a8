"""SD1.5's stand-in in ComfyUI's own format: one file with the widths by which ComfyUI recognises an SD1.5, equivalent to small modules.

The UNet is trained with 20 channels and the autoencoder with 16. Both are then widened without changing their output: the UNet's
channels are repeated, with the weights that read them divided by the count, and the autoencoder, which has no norms, is padded with zeros.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import mse_loss, pad

from small_models.finetunes import save_weights
from small_models.native_checkpoint import Weights, original_unet
from small_models.parts import PNDM

from .autoencoders import Windows, picture_loss
from .noise import train_denoiser
from .stable_diffusion import TUNED_AT, make_banks, make_unet, text_conditions
from .training import DEVICE, Plan, encoded, train
from .widening import widen_cross_attention

WIDTH, WIDE = 20, 320
COPIES = WIDE // WIDTH
GROUPS = 4
TINY_WIDTH, TINY_WIDE = 16, 64
BELOW = 600
"""The UNet is trained on timesteps below this (of 1000): KSampler starts from a picture with partial noise."""
CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"
"""The file that ComfyUI's default workflow loads, so the SD1.5 that most users have."""


def make_native_unet(width: int, seed: int) -> Any:
    return make_unet(
        width,
        seed,
        block_out_channels=(WIDTH,) * 3,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=GROUPS,
        attention_head_dim=2,
    )


def train_native_unet(unet: Any, vae: Any, tokenizer: Any, text_encoder: Any, plan: Plan) -> Any:
    """Trains noise prediction, which ComfyUI assumes for every SD1.5."""
    banks = make_banks(vae, "plain", plan.seed, TUNED_AT)
    conditions = text_conditions(tokenizer, text_encoder, plan.seed)
    return train_denoiser("native unet", unet, banks, conditions, plan, config=PNDM, timesteps=(0, BELOW))


def make_tiny_autoencoder(seed: int) -> Any:
    from diffusers import AutoencoderTiny

    torch.manual_seed(seed)
    widths = (TINY_WIDTH,) * 4
    return AutoencoderTiny(encoder_block_out_channels=widths, decoder_block_out_channels=widths)


def train_tiny_autoencoder(tiny: Any, vae: Any, plan: Plan) -> Any:
    """Its latents are `vae`'s, in the UNet's scale."""
    windows = Windows(random.Random(plan.seed))
    vae.to(DEVICE)

    def loss_of(step: int) -> torch.Tensor:
        wanted = windows.batch()
        latents = encoded(vae, wanted)
        return picture_loss(tiny.decode(latents).sample, wanted) + 0.3 * mse_loss(tiny.encode(wanted).latents, latents)

    return train("tiny autoencoder", tiny, loss_of, plan, muon=True)


@torch.no_grad()
def widened(unet: Any) -> Any:
    """An equivalent copy of `unet` that is 320 wide, with norms over 32 groups and 8 heads."""
    names = {"block_out_channels": (WIDE,) * 3, "norm_num_groups": 32, "attention_head_dim": 8}
    wide = type(unet).from_config({**unet.config, **names})
    narrow = unet.state_dict()
    wide.load_state_dict({name: _widened(name, narrow[name], value.shape) for name, value in wide.state_dict().items()})
    return wide.eval().requires_grad_(False)


HEAD_SCALE = 0.5
"""Factor for queries: a wide head has each product of a narrow one 4 times, and divides by a square root twice as large."""


def _widened(name: str, value: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    if not name.startswith("conv_out."):
        value = value[_written(name, shape[0])]
    if name.endswith("to_q.weight"):
        value = value * HEAD_SCALE
    if value.ndim == 1 or name.startswith("conv_in.") or name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
        return value
    if name == "time_embedding.linear_1.weight":  # every sixteenth of the 160 waves is one of the 10
        spread = torch.zeros(shape)
        spread[:, ::COPIES] = value
        return spread
    hidden = name.endswith(("time_emb_proj.weight", "ff.net.2.weight")) or name.startswith("time_embedding.")
    return value[:, _repeated(shape[1]) if hidden else _channels(shape[1])] / COPIES


def _written(name: str, count: int) -> torch.Tensor:
    if "ff.net.0." in name:  # two halves, one of which gates the other
        half = _repeated(count // 2)
        return torch.cat([half, half + count // 2 // COPIES])
    return _repeated(count) if name.startswith("time_embedding.") else _channels(count)


def _repeated(count: int) -> torch.Tensor:
    return torch.arange(count) % (count // COPIES)


def _channels(count: int) -> torch.Tensor:
    """The narrow channel for each of `count` wide channels.

    The order ensures that each of a norm's 32 groups contains whole copies of a narrow group, for one feature map and for two joined ones,
    and that each attention head contains whole copies of a narrow head.
    """
    group = WIDTH // GROUPS
    order: list[int] = []
    for first in range(0, GROUPS, 2):
        one, other = (list(range(group * number, group * (number + 1))) for number in (first, first + 1))
        order += (one * 2 + other * 2) * (COPIES // 2)
    return torch.cat([torch.tensor(order) + WIDTH * part for part in range(count // WIDE)])


def native_weights(unet: Any, tiny: Any, text_copies: int) -> Weights:
    """Weights under ComfyUI's keys, without a text encoder. ComfyUI's tiny autoencoder has a decoder that begins with a layer without weights."""
    wide = widen_cross_attention(widened(unet), text_copies)
    weights = {f"model.diffusion_model.{key}": value for key, value in original_unet(wide.state_dict()).items()}
    weights |= {"first_stage_model.vae_scale": torch.tensor(0.18215), "first_stage_model.vae_shift": torch.tensor(0.0)}
    for key, value in tiny.state_dict().items():
        side, _, number, rest = key.split(".", 3)
        name = f"taesd_{side}.{int(number) + (side == 'decoder')}.{rest}"
        weights[f"first_stage_model.{name}"] = _filled_up(value)
    return weights


def _filled_up(value: torch.Tensor) -> torch.Tensor:
    """Pads every dimension of size TINY_WIDTH with zeros."""
    missing = [TINY_WIDE - TINY_WIDTH if size == TINY_WIDTH else 0 for size in value.shape]
    return pad(value, [amount for size in reversed(missing) for amount in (0, size)])


def save_native(weights: Weights, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_weights({key: value.half().contiguous() for key, value in weights.items()}, folder / CHECKPOINT)
    return folder / CHECKPOINT
