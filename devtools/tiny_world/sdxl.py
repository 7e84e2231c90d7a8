"""Trains SDXL's stand-ins: the base, and a refiner that knows only the less noisy steps and uses the aesthetic score."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from .noise import Conditions, train_denoiser
from .schedules import SDXL
from .stable_diffusion import WIDTHS, Captions, make_banks, make_unet, only
from .training import DEVICE, Bank, Batch, Plan

TIME_IDS_WIDTH = 16
REFINED_BELOW = 600
"""The refiner is trained on timesteps below this (of 1000)."""
SCORES = {"good": 6.0, "bad": 2.5}
"""Aesthetic scores of clean and degraded pictures. 6.0 and 2.5 are diffusers' defaults."""
SPOILT = 0.3
LARGE = {512: (6000, 192, 0.6), 1024: (1500, 48, 0.4)}


def make_sdxl_unet(cross: int, pooled: int, time_ids: int, seed: int) -> Any:
    """SD1.5's stand-in with another level on top, so that 1024 x 1024 is like 512 x 512 there, and with SDXL's additional inputs: the second
    encoder's embedding and the sizes."""
    return make_unet(
        cross,
        seed,
        block_out_channels=(TOP_WIDTH, *WIDTHS),
        down_block_types=("DownBlock2D",) * 3 + ("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",) * 3,
        time_embedding_dim=4 * WIDTHS[0],
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_IDS_WIDTH,
        projection_class_embeddings_input_dim=pooled + time_ids * TIME_IDS_WIDTH,
    )


TOP_WIDTH = 16
LEARNS = (
    "conv_in.",
    "down_blocks.0.",
    "down_blocks.1.",
    "up_blocks.3.",
    "up_blocks.4.",
    "conv_norm_out.",
    "conv_out.",
    "time_embedding.linear_1.",
    "add_embedding.",
)
LEARNS_LAYERS = (".attn2.", ".norm2.")
"""What the base trains: the layers nearest to the picture, the text, and the sizes. The rest is SD1.5's, so the file is small."""
REFINER_LEARNS = tuple(part for part in LEARNS if part != "up_blocks.3.")
REFINER_LAYERS = (".attn2.to_k.", ".attn2.to_v.")
"""The ones of these that the refiner trains."""


@torch.no_grad()
def start_from_sd15(unet: Any, sd15: Any) -> None:
    """Starts the base from SD1.5's stand-in, shifted by one level, and makes the new layers trainable.

    The base encodes time with fewer waves, so the layer that reads them is fitted to give the same output.
    """
    known = {_one_level_down(name): value for name, value in sd15.state_dict().items()}
    _take(unet, known)
    times = torch.arange(1000)
    waves, layer = unet.time_proj(times), unet.time_embedding.linear_1
    wanted = sd15.time_embedding.linear_1(sd15.time_proj(times))
    fitted = torch.linalg.lstsq(torch.cat([waves, torch.ones(len(waves), 1)], 1), wanted).solution
    layer.weight.copy_(fitted[:-1].T)
    layer.bias.copy_(fitted[-1])
    say_nothing(unet.add_embedding)
    only(unet, LEARNS, LEARNS_LAYERS)


@torch.no_grad()
def start_from_base(unet: Any, base: Any) -> None:
    """Starts the refiner from the base, and makes most of the base's trained layers trainable. It uses only the second text encoder."""
    _take(unet, base.state_dict(), last=True)
    say_nothing(unet.add_embedding)
    only(unet, REFINER_LEARNS, REFINER_LAYERS)


def _one_level_down(name: str) -> str:
    """The name of an SD1.5 module in a UNet with another level on top. Up blocks count from the bottom."""
    block, number, rest = [*name.split(".", 2), "", ""][:3]
    return f"{block}.{int(number) + 1}.{rest}" if block == "down_blocks" else name


def _take(unet: Any, known: dict[str, torch.Tensor], *, last: bool = False) -> None:
    """Copies weights of the same shape, up to 1 x 1 dimensions; for text of another width, copies the first (or `last`) common columns."""
    for name, value in unet.state_dict().items():
        found = known.get(name)
        if found is None:
            continue
        if found.numel() == value.numel():
            value.copy_(found.reshape(value.shape))
        elif name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
            width = min(found.shape[1], value.shape[1])
            value[:, :width] = found[:, -width:] if last else found[:, :width]


def say_nothing(embedding: Any) -> None:
    """Makes the embedding's output 0, so its sum with the time embedding doesn't change at first."""
    torch.nn.init.zeros_(embedding.linear_2.weight)
    torch.nn.init.zeros_(embedding.linear_2.bias)


def base_conditions(tokenizer: Any, first: Any, second: Any, seed: int) -> Conditions:
    """Both encoders' second to last states, concatenated; the second's embedding; original size, crop and size as time ids."""
    captions = Captions(tokenizer, seed)
    first.to(DEVICE)
    second.to(DEVICE)

    @torch.no_grad()
    def conditions(batch: Batch) -> dict[str, Any]:
        states, pooled = both(tokenizer, first, second, *captions.pick(batch))
        return {"encoder_hidden_states": states, "added_cond_kwargs": added_conditions(pooled, batch.bank.size)}

    return conditions


def added_conditions(pooled: torch.Tensor, size: int) -> dict[str, torch.Tensor]:
    """For square pictures of this size that aren't cropped."""
    ids = torch.tensor([[size, size, 0, 0, size, size]] * len(pooled), dtype=torch.float32, device=pooled.device)
    return {"text_embeds": pooled, "time_ids": ids}


def both(
    tokenizer: Any, first: Any, second: Any, ids: torch.Tensor, kept: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encodes like SDXL's pipeline; dropped captions are zeros, as for the base's empty text (force_zeros_for_empty_prompt)."""
    one = first(ids, output_hidden_states=True).hidden_states[-2]
    out = second(padded(tokenizer, ids, "!"), output_hidden_states=True)
    states = torch.cat([one, out.hidden_states[-2]], -1) * kept[:, None, None]
    return states, out.text_embeds * kept[:, None]


def padded(tokenizer: Any, ids: torch.Tensor, pad: str) -> torch.Tensor:
    """The same tokens, padded with `pad` after the end token."""
    after_end = (ids == tokenizer.eos_token_id).cumsum(1) > 1
    return ids.masked_fill(after_end, tokenizer.convert_tokens_to_ids(pad))


def train_base(unet: Any, vae: Any, tokenizer: Any, first: Any, second: Any, plan: Plan) -> Any:
    banks = make_banks(vae, "plain", plan.seed, LARGE)
    return train_denoiser(
        "sdxl base", unet, banks, base_conditions(tokenizer, first, second, plan.seed), plan, config=SDXL
    )


def train_refiner(unet: Any, vae: Any, tokenizer: Any, second: Any, plan: Plan) -> Any:
    """Half of the pictures are degraded and have a low score, so that a high score means a clean picture."""
    generator = torch.Generator().manual_seed(plan.seed)
    banks = [_half_spoilt(bank, generator) for bank in make_banks(vae, "plain", plan.seed, LARGE)]
    captions = Captions(tokenizer, plan.seed)
    second.to(DEVICE)

    @torch.no_grad()
    def conditions(batch: Batch) -> dict[str, Any]:
        out = second(padded(tokenizer, captions.pick(batch)[0], "!"), output_hidden_states=True)
        scores = batch.more("score")
        sizes = torch.tensor([[batch.bank.size, batch.bank.size, 0.0, 0.0]], device=DEVICE).expand(len(scores), 4)
        added = {"text_embeds": out.text_embeds, "time_ids": torch.cat([sizes, scores], 1)}
        return {"encoder_hidden_states": out.hidden_states[-2], "added_cond_kwargs": added}

    return train_denoiser(
        "sdxl refiner",
        unet,
        banks,
        conditions,
        plan,
        config=SDXL,
        timesteps=(0, REFINED_BELOW),
        offset=0.05,
        most=50.0,
    )


def _half_spoilt(bank: Bank, generator: torch.Generator) -> Bank:
    """Adds noise that no clean picture has to the second half of the latents, and adds each picture's score."""
    latents = bank.latents.clone()
    half = len(latents) // 2
    latents[half:] += SPOILT * torch.randn(latents[half:].shape, generator=generator).to(latents.device)
    scores = torch.full((len(latents), 1), SCORES["good"], device=latents.device)
    scores[half:] = SCORES["bad"]
    return replace(bank, latents=latents, more={"score": scores})
