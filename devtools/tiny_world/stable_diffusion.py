"""Trains SD1.5's stand-in and its fine-tunes: the comic, pixel art and restyle models."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from .drawing import TRIGGERS
from .noise import DROPPED, Conditions, train_denoiser
from .scene import Scene, caption
from .training import DEVICE, Bank, Batch, Limits, Plan, latents, scenes

SHOWN_AT = {256: (24000, 384, 0.7), 512: (6000, 96, 0.3)}
"""{picture size: (number of different pictures, pictures per batch, share of the batches)}."""
TUNED_AT = {256: (6000, 192, 0.6), 512: (1500, 48, 0.4)}
"""The same for a fine-tune."""

WIDTHS = (32, 32, 64, 96)


def make_unet(width: int, seed: int, **config: Any) -> Any:
    """A UNet with four levels, like SD1.5's; `width` is the text's width.

    The upper levels are narrow and the lower ones wide, with attention in the lowest two. So it is fast at 512 x 512, where these two are 16
    and 8 pixels wide and see the whole picture.
    """
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed)
    layout = {
        "sample_size": 16,
        "block_out_channels": WIDTHS,
        "down_block_types": ("DownBlock2D",) * 2 + ("CrossAttnDownBlock2D",) * 2,
        "up_block_types": ("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",) * 2,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 4,
        "cross_attention_dim": width,
    }
    return UNet2DConditionModel(**{**layout, **config})


OFF_MIDDLE = 0.03
"""Maximum distance from the middle for things that only a caption describes, since captions don't say where things are. With more, the
model first paints a blur of all positions, and is slow to learn the caption's shape from it."""


def make_banks(
    vae: Any,
    style: str,
    seed: int,
    sizes: dict[int, tuple[int, int, float]] = SHOWN_AT,
    *,
    anywhere: float = 0.1,
    off_middle: float = OFF_MIDDLE,
) -> list[Bank]:
    """anywhere: how often a thing isn't near the middle."""
    banks = []
    for size, (count, batch, share) in sizes.items():
        count = min(count, Limits.of_size(Limits.scenes, size))
        shown = scenes(count, seed + size, two=0.2, anywhere=anywhere, off_middle=off_middle)
        banks.append(Bank(shown, latents(vae, shown, size, style), batch, share))
    return banks


class Captions:
    """Captions for the scenes in banks: SENTENCES different captions per scene, as tokens, made when a bank is first used."""

    SENTENCES = 6

    def __init__(self, tokenizer: Any, seed: int, say: Callable[[Scene, random.Random], str] = caption) -> None:
        self.tokenizer, self.say, self.rng = tokenizer, say, random.Random(seed)
        self.empty = token_ids(tokenizer, [""]).to(DEVICE)
        self.known: dict[int, torch.Tensor] = {}

    def pick(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """[count, 77] tokens, one caption per scene, some of them dropped; and [count], which ones are kept."""
        rows, device = batch.told, batch.rows.device
        sentences = torch.randint(self.SENTENCES, rows.shape, device=device)
        kept = torch.rand(rows.shape, device=device) >= DROPPED
        return torch.where(kept[:, None], self._of(batch.bank)[rows, sentences], self.empty), kept

    def _of(self, bank: Bank) -> torch.Tensor:
        if id(bank) not in self.known:
            texts = [self.say(scene, self.rng) for scene in bank.scenes for _ in range(self.SENTENCES)]
            ids = token_ids(self.tokenizer, texts)
            self.known[id(bank)] = ids.view(len(bank.scenes), self.SENTENCES, -1).to(DEVICE)
        return self.known[id(bank)]


def text_conditions(tokenizer: Any, text_encoder: Any, seed: int, trigger: str = "") -> Conditions:
    """Encoded captions of the scenes, with random wording; some are dropped."""
    captions = Captions(tokenizer, seed, partial(caption, style=trigger))
    text_encoder.to(DEVICE)

    @torch.no_grad()
    def conditions(batch: Batch) -> dict[str, Any]:
        return {"encoder_hidden_states": text_encoder(captions.pick(batch)[0]).last_hidden_state}

    return conditions


def token_ids(tokenizer: Any, texts: Sequence[str]) -> torch.Tensor:
    """[count, 77], padded as in StableDiffusionPipeline."""
    return torch.tensor(tokenizer(list(texts), padding="max_length", max_length=77, truncation=True).input_ids)


def encode(tokenizer: Any, text_encoder: Any, texts: Sequence[str]) -> torch.Tensor:
    """[count, 77, width], as in StableDiffusionPipeline."""
    return text_encoder(token_ids(tokenizer, texts).to(text_encoder.device)).last_hidden_state


STYLE_PARTS = (
    "conv_in.",
    "down_blocks.0.",
    "down_blocks.1.",
    "up_blocks.2.",
    "up_blocks.3.",
    "conv_norm_out.",
    "conv_out.",
)
"""What a fine-tune changes: the layers nearest to the picture, which keeps its file small."""
NEAREST_PARTS = tuple(part for part in STYLE_PARTS if part != "up_blocks.2.")
"""For fine-tunes that don't change outlines."""


def only(unet: Any, parts: Sequence[str], layers: Sequence[str] = ()) -> Any:
    """Makes only these parts of the module trainable, and any layer whose name contains one of `layers`. Returns the module."""
    for name, value in unet.named_parameters():
        value.requires_grad_(name.startswith(tuple(parts)) or any(layer in name for layer in layers))
    return unet


def train_unet(name: str, unet: Any, vae: Any, tokenizer: Any, text_encoder: Any, style: str, plan: Plan) -> Any:
    banks = make_banks(vae, style, plan.seed, SHOWN_AT if style == "plain" else TUNED_AT)
    conditions = text_conditions(tokenizer, text_encoder, plan.seed, TRIGGERS.get(style, ""))
    return train_denoiser(name, unet, banks, conditions, plan)
