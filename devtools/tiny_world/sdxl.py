"""Trains SDXL's stand-ins: the base, and a refiner that knows only the less noisy steps and minds the aesthetic score."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from .autoencoders import TURN
from .noise import Conditions, train_denoiser
from .schedules import SDXL
from .stable_diffusion import STYLE_PARTS, Captions, make_banks, make_unet
from .training import DEVICE, Bank, Batch, Plan

TIME_IDS_WIDTH = 16
REFINED_BELOW = 600
"""The refiner sees timesteps below this one of 1000."""
SCORES = {"good": 6.0, "bad": 2.5}
"""Aesthetic scores: of the world's pictures, and of ones that were spoilt. 6.0 and 2.5 are diffusers' defaults."""
SPOILT = 0.3
LARGE = {256: (12000, 256, 0.45), 512: (3000, 64, 0.35), 1024: (400, 16, 0.2)}


def make_sdxl_unet(cross: int, pooled: int, time_ids: int, seed: int) -> Any:
    """The levels of SD1.5's stand-in, with what SDXL has beside the text: the second encoder's embedding and the sizes."""
    return make_unet(
        cross,
        seed,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_IDS_WIDTH,
        projection_class_embeddings_input_dim=pooled + time_ids * TIME_IDS_WIDTH,
    )


REFINER_LEARNS = (*STYLE_PARTS, "add_embedding.")
REFINER_LEARNS_LAYERS = (".attn2.", ".norm2.")
"""What the refiner learns: the text, its sizes, and the layers nearest to the picture. The rest is SD1.5's, and so its file is small."""


@torch.no_grad()
def start_from_sd15(unet: Any, sd15: Any) -> None:
    """Gives the UNet what SD1.5's stand-in knows: of pictures all, as its latents are those of SDXL's turned; of the text what fits."""
    weights = dict(sd15.state_dict())
    weights["conv_in.weight"] = torch.einsum("oihw,ji->ojhw", weights["conv_in.weight"], TURN)
    for part in ("weight", "bias"):
        weights[f"conv_out.{part}"] = torch.einsum("ji,i...->j...", TURN, weights[f"conv_out.{part}"])
    for name, value in unet.state_dict().items():
        known = weights.get(name)
        if known is None:
            continue
        if known.shape == value.shape:
            value.copy_(known)
        elif known.ndim == 4:  # the projections round a transformer, here linear layers
            value.copy_(known[:, :, 0, 0])
        else:  # keys and values of a wider text, whose first part is the same encoder's
            width = min(known.shape[1], value.shape[1])
            value[:, :width] = known[:, :width]


def base_conditions(tokenizer: Any, first: Any, second: Any, seed: int) -> Conditions:
    """Both encoders' last states but one, side by side; the second's embedding; original size, crop and size as time ids."""
    captions = Captions(tokenizer, seed)
    first.to(DEVICE)
    second.to(DEVICE)

    @torch.no_grad()
    def conditions(batch: Batch) -> dict[str, Any]:
        states, pooled = both(tokenizer, first, second, *captions.pick(batch))
        size = batch.size
        ids = torch.tensor([[size, size, 0, 0, size, size]] * len(pooled), dtype=torch.float32, device=DEVICE)
        return {"encoder_hidden_states": states, "added_cond_kwargs": {"text_embeds": pooled, "time_ids": ids}}

    return conditions


def both(
    tokenizer: Any, first: Any, second: Any, ids: torch.Tensor, kept: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """As SDXL's pipeline encodes; what is not kept is zeros, as an empty text is for the base (force_zeros_for_empty_prompt)."""
    one = first(ids, output_hidden_states=True).hidden_states[-2]
    out = second(padded(tokenizer, ids, "!"), output_hidden_states=True)
    states = torch.cat([one, out.hidden_states[-2]], -1) * kept[:, None, None]
    return states, out.text_embeds * kept[:, None]


def padded(tokenizer: Any, ids: torch.Tensor, pad: str) -> torch.Tensor:
    """The same tokens, filled up with `pad` behind the end token."""
    after_end = (ids == tokenizer.eos_token_id).cumsum(1) > 1
    return ids.masked_fill(after_end, tokenizer.convert_tokens_to_ids(pad))


def train_base(unet: Any, vae: Any, tokenizer: Any, first: Any, second: Any, plan: Plan) -> Any:
    banks = make_banks(vae, "plain", plan.seed, LARGE)
    return train_denoiser(
        "sdxl base", unet, banks, base_conditions(tokenizer, first, second, plan.seed), plan, config=SDXL
    )


def train_refiner(unet: Any, vae: Any, tokenizer: Any, second: Any, plan: Plan) -> Any:
    """Half of the pictures are spoilt and told so by their score, so that a high score means a clean picture."""
    generator = torch.Generator().manual_seed(plan.seed)
    banks = [_half_spoilt(bank, generator) for bank in make_banks(vae, "plain", plan.seed, LARGE)]
    captions = Captions(tokenizer, plan.seed)
    second.to(DEVICE)

    @torch.no_grad()
    def conditions(batch: Batch) -> dict[str, Any]:
        out = second(padded(tokenizer, captions.pick(batch)[0], "!"), output_hidden_states=True)
        scores = batch.more("score")
        sizes = torch.tensor([[batch.size, batch.size, 0.0, 0.0]], device=DEVICE).expand(len(scores), 4)
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
    """The second half of the latents with noise in them that no picture of the world has; and each one's score."""
    latents = bank.latents.clone()
    half = len(latents) // 2
    latents[half:] += SPOILT * torch.randn(latents[half:].shape, generator=generator).to(latents.device)
    scores = torch.full((len(latents), 1), SCORES["good"], device=latents.device)
    scores[half:] = SCORES["bad"]
    return replace(bank, latents=latents, more={"score": scores})
