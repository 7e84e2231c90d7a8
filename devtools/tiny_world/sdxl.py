"""Trains SDXL's stand-ins: the base, and a refiner that knows only the less noisy steps and minds the aesthetic score."""

from __future__ import annotations

import random
from typing import Any

import torch

from .autoencoders import TURN
from .noise import DROPPED, Conditions, train_denoiser
from .scene import Scene, caption
from .schedules import SDXL
from .stable_diffusion import STYLE_PARTS, make_banks, make_unet, only
from .training import Bank, Plan

TIME_IDS_WIDTH = 16
REFINED_BELOW = 600
"""The refiner sees timesteps below this one of 1000."""
SCORES = {"good": 6.0, "bad": 2.5}
"""Aesthetic scores: of the world's pictures, and of ones that were spoilt. 6.0 and 2.5 are diffusers' defaults."""
SPOILT = 0.3
LARGE = {256: (1500, 12, 0.4), 512: (400, 3, 0.35), 1024: (80, 1, 0.25)}


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


LEARNT = (*STYLE_PARTS, "add_embedding.")
LEARNT_LAYERS = (".attn2.", ".norm2.")
"""What SDXL's stand-ins learn anew: the text, its sizes, and the layers nearest to the picture. The rest is SD1.5's."""


@torch.no_grad()
def start_from_sd15(unet: Any, sd15: Any) -> Any:
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
    return only(unet, LEARNT, LEARNT_LAYERS)


def base_conditions(tokenizer: Any, first: Any, second: Any, seed: int) -> Conditions:
    """Both encoders' last states but one, side by side; the second's embedding; original size, crop and size as time ids."""
    rng = random.Random(seed)

    @torch.no_grad()
    def conditions(of: list[Scene], side: int) -> dict[str, Any]:
        texts = ["" if rng.random() < DROPPED else caption(scene, rng) for scene in of]
        states, pooled = both(tokenizer, first, second, texts)
        size = 8 * side
        ids = torch.tensor([[size, size, 0, 0, size, size]] * len(of), dtype=torch.float32)
        return {"encoder_hidden_states": states, "added_cond_kwargs": {"text_embeds": pooled, "time_ids": ids}}

    return conditions


def both(tokenizer: Any, first: Any, second: Any, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """As SDXL's pipeline encodes; an empty text is zeros for the base (force_zeros_for_empty_prompt)."""
    end, start_pad = _ids(tokenizer, texts, None), _ids(tokenizer, texts, "!")
    one = first(end, output_hidden_states=True).hidden_states[-2]
    out = second(start_pad, output_hidden_states=True)
    kept = torch.tensor([float(bool(text)) for text in texts])
    states = torch.cat([one, out.hidden_states[-2]], -1) * kept[:, None, None]
    return states, out.text_embeds * kept[:, None]


def _ids(tokenizer: Any, texts: list[str], pad: str | None) -> torch.Tensor:
    """`pad`: the token that fills up; None: the end token."""
    ids = tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    if pad is not None:
        end = tokenizer.eos_token_id
        after_end = (ids == end).cumsum(1) > 1
        ids = ids.masked_fill(after_end, tokenizer.convert_tokens_to_ids(pad))
    return ids


def train_base(unet: Any, vae: Any, tokenizer: Any, first: Any, second: Any, plan: Plan) -> Any:
    banks = make_banks(vae, "plain", plan.seed, LARGE)
    return train_denoiser(
        "sdxl base", unet, banks, base_conditions(tokenizer, first, second, plan.seed), plan, config=SDXL
    )


def train_refiner(unet: Any, vae: Any, tokenizer: Any, second: Any, plan: Plan) -> Any:
    """A third of the pictures are spoilt and told so by their score, so that a high score means a clean picture."""
    rng = random.Random(plan.seed)
    banks = [_half_spoilt(bank, rng) for bank in make_banks(vae, "plain", plan.seed, LARGE)]
    spoilt = {id(scene) for bank in banks for scene in bank.scenes[len(bank.scenes) // 2 :]}

    @torch.no_grad()
    def conditions(of: list[Scene], side: int) -> dict[str, Any]:
        texts = ["" if rng.random() < DROPPED else caption(scene, rng) for scene in of]
        out = second(_ids(tokenizer, texts, "!"), output_hidden_states=True)
        size = 8 * side
        ids = torch.tensor(
            [[size, size, 0, 0, SCORES["bad" if id(scene) in spoilt else "good"]] for scene in of], dtype=torch.float32
        )
        added = {"text_embeds": out.text_embeds, "time_ids": ids}
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


def _half_spoilt(bank: Bank, rng: random.Random) -> Bank:
    """The second half of the latents with noise in them that no picture of the world has."""
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    latents = bank.latents.clone()
    half = len(latents) // 2
    noise = torch.randn(latents[half:].shape, generator=generator)
    latents[half:] = latents[half:] + SPOILT * noise
    return Bank(bank.scenes, latents, bank.batch, bank.share)
