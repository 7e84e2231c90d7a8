"""Trains Kandinsky 2.2's stand-ins: the prior (text to picture embedding), the decoder (embedding to picture) and its depth version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from small_models.parts import UNCLIP, scheduler

from .additions import add_depth, as_map, random_boxes, read_loudly
from .clip import PICTURE_SIZE, G, as_tower_sees
from .noise import DROPPED, Conditions, train_denoiser
from .scene import OFF_MIDDLE, Scene
from .schedules import KANDINSKY
from .stable_diffusion import NEAREST_PARTS, STYLE_PARTS, Captions, make_banks, only
from .training import DEPTH, DEVICE, Bank, Batch, Plan, as_seen, drawn, scenes, train

PRIOR_SCENES = 30000
PRIOR_BATCH = 512
SHOWN_AT = {256: (16000, 256, 0.6), 512: (4000, 64, 0.32), 768: (600, 24, 0.08)}
TUNED_AT = {256: (5000, 192, 0.6), 512: (1200, 48, 0.32), 768: (200, 16, 0.08)}
MISTAKEN_POOLED = 0.4
"""How often the prior gets the text embedding of another scene. Compel weights only the states, and a prior that could rely on the
embedding would ignore them."""
WIDTHS = (32, 32, 48, 64)
INPAINT_CHANNELS = 9
"""The noisy latents, the picture's latents where it is kept (0 elsewhere), and a mask with 1 where it is kept."""


def make_prior(seed: int) -> Any:
    from diffusers import PriorTransformer

    torch.manual_seed(seed)
    return PriorTransformer(
        num_attention_heads=4, attention_head_dim=24, num_layers=3, embedding_dim=G.width, additional_embeddings=4
    )


def make_decoder_unet(seed: int, *, hint: bool = False, channels: int = 4) -> Any:
    """hint: for the depth ControlNet decoder, whose 8 channels are 4 for the latents and 4 for a depth map."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=8 if hint else channels,
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


def going_on(unet: Any, plain: Any) -> Any:
    """Starts the UNet for depth or inpainting from the plain decoder's weights.

    Its first layer's weights for the additional channels start at 0.
    """
    known, own = plain.state_dict(), unet.state_dict()
    same = {name: value for name, value in known.items() if name in own and own[name].shape == value.shape}
    first = torch.zeros_like(own["conv_in.weight"])
    first[:, : plain.config.in_channels] = known["conv_in.weight"]
    unet.load_state_dict({**own, **same, "conv_in.weight": first})
    return only(unet, STYLE_PARTS if unet.config.addition_embed_type == "image_hint" else NEAREST_PARTS)


@torch.no_grad()
def picture_embeddings(tower: Any, of: Sequence[Scene], style: str = "plain") -> torch.Tensor:
    """[count, width]: embeddings of pictures at the tower's size."""
    tower.to(DEVICE)
    parts = [tower(as_tower_sees(as_seen(part.to(DEVICE)))).image_embeds for part in drawn(of, PICTURE_SIZE, style)]
    return torch.cat(parts)


@torch.no_grad()
def no_picture(tower: Any) -> torch.Tensor:
    """[width]: the prior pipeline's negative embedding without a negative prompt."""
    return tower(torch.zeros(1, 3, PICTURE_SIZE, PICTURE_SIZE, device=tower.device)).image_embeds[0]


def train_prior(prior: Any, tokenizer: Any, text_tower: Any, picture_tower: Any, plan: Plan) -> Any:
    """Trains it to predict the clean embedding from a noisy one, the text's embedding and its states."""
    shown = scenes(PRIOR_SCENES, plan.seed, two=0.2)
    embeddings = picture_embeddings(picture_tower, shown)
    with torch.no_grad():
        prior.clip_mean.copy_(embeddings.mean(0, keepdim=True))
        prior.clip_std.copy_(embeddings.std(0, keepdim=True))
    prior.clip_mean.requires_grad_(False)
    prior.clip_std.requires_grad_(False)
    prior.to(DEVICE)
    bank = Bank(shown, (embeddings - prior.clip_mean) / prior.clip_std, PRIOR_BATCH)
    captions = Captions(tokenizer, plan.seed)
    noiser = scheduler(UNCLIP)
    text_tower.to(DEVICE)

    def loss_of(step: int) -> torch.Tensor:
        batch = bank.pick()
        ids, _ = captions.pick(batch)
        with torch.no_grad():
            out = text_tower(ids)
        pooled = torch.where(
            torch.rand(len(ids), 1, device=DEVICE) < MISTAKEN_POOLED, out.text_embeds.roll(1, 0), out.text_embeds
        )
        clean = batch.clean
        at = torch.randint(0, 1000, clean.shape[:1], device=clean.device)
        noisy = noiser.add_noise(clean, torch.randn_like(clean), at)
        predicted = prior(
            noisy,
            timestep=at,
            proj_embedding=pooled,
            encoder_hidden_states=out.last_hidden_state,
            attention_mask=(ids == tokenizer.eos_token_id).cumsum(1) - (ids == tokenizer.eos_token_id).int() == 0,
        ).predicted_image_embedding
        return torch.nn.functional.mse_loss(predicted, clean)

    return train("kandinsky prior", prior, loss_of, plan, muon=True)


def train_decoder(
    name: str,
    unet: Any,
    movq: Any,
    picture_tower: Any,
    plan: Plan,
    *,
    shown_at: dict[int, tuple[int, int, float]] = SHOWN_AT,
    anywhere: float = 0.1,
    hint: bool = False,
    extra: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Any:
    """Trains the decoder on the embedding of the same scene's picture. The second half of its output is a learned variance, as in improved DDPM.

    diffusers' pipelines drop the variance unless the scheduler uses it, so only the noise is trained.
    """
    banks = make_banks(movq, "plain", plan.seed, shown_at, anywhere=anywhere, off_middle=OFF_MIDDLE)
    for bank in banks:
        bank.more["embedding"] = picture_embeddings(picture_tower, bank.scenes)
    conditions = decoder_conditions(no_picture(picture_tower), hint=hint)
    if not hint:
        return train_denoiser(name, unet, banks, conditions, plan, config=KANDINSKY, extra=extra)
    block = unet.add_embedding.input_hint_block
    read_hints(block, banks)
    unet.add_embedding.input_hint_block = torch.nn.Identity()
    trained = train_denoiser(name, unet, banks, conditions, plan, config=KANDINSKY)
    trained.add_embedding.input_hint_block = block.cpu()
    return trained


@torch.no_grad()
def read_hints(block: Any, banks: Sequence[Bank]) -> None:
    """Adds the output of `block` for the depth maps to the banks: 4 channels of a latent's size, with mean about 0 and deviation 1.

    The block isn't trained: its 256 channels would take nine tenths of each step, and a random block's output carries as much information.
    """
    add_depth(banks)
    block.to(DEVICE)
    convolutions = [layer for layer in block if hasattr(layer, "weight")]
    read_loudly(convolutions, block, as_map(banks[0].more[DEPTH][:8]))
    for bank in banks:  # in bytes until they are read: as floats, all maps would take gigabytes
        bank.more["hint"] = torch.cat([block(as_map(part)) for part in bank.more.pop(DEPTH).split(8)])


def decoder_conditions(nothing: torch.Tensor, *, hint: bool) -> Conditions:
    def conditions(batch: Batch) -> dict[str, Any]:
        kept = torch.rand(batch.rows.shape, device=nothing.device) >= DROPPED
        added = {"image_embeds": torch.where(kept[:, None], batch.more("embedding", batch.told), nothing)}
        if hint:
            added["hint"] = batch.more("hint")
        return {"encoder_hidden_states": None, "added_cond_kwargs": added}

    return conditions


def seen_round_boxes(clean: torch.Tensor) -> torch.Tensor:
    """The inpainting decoder's input in addition to the noisy latents."""
    kept = 1 - random_boxes(clean)
    return torch.cat([clean * kept, kept], 1)
