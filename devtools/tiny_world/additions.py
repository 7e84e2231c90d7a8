"""Trains the additions to the SD1.5 stand-in: the depth ControlNet, the inpainting copy, a LoRA, an embedding."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch

from .drawing import TRIGGERS, draw_depth
from .noise import train_denoiser
from .scene import moved, one_thing
from .stable_diffusion import TUNED_AT, make_banks, only, text_conditions, token_ids
from .training import DEPTH, DEVICE, Bank, Batch, Limits, Plan, drawn, encoded, latents

INPAINT_CHANNELS = 9
LORA_RANK = 8
LORA_LAYERS = r"(down_blocks\.1|up_blocks\.[23])\..*conv.*|conv_out"
"""The convolutions of the outer layers: the squares are finer than the layers with attention."""
CONTROL_PARTS = ("controlnet_", "conv_in.", "down_blocks.0.", "down_blocks.1.")
"""The layers that the ControlNet trains; the rest stays a copy of the UNet's."""
CONTROL_SHOWN_AT = {256: (8000, 192, 0.6), 512: (2000, 48, 0.4)}


def make_controlnet(unet: Any, seed: int) -> Any:
    from diffusers import ControlNetModel

    torch.manual_seed(seed)
    controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16, 24, 32))
    reader = controlnet.controlnet_cond_embedding
    convolutions = [reader.conv_in, *reader.blocks, reader.conv_out]
    map_of_one = torch.from_numpy(draw_depth(EMBER, 256)).permute(2, 0, 1)[None]
    read_loudly(convolutions, reader, map_of_one)
    return only(controlnet, CONTROL_PARTS)


@torch.no_grad()
def read_loudly(convolutions: Sequence[Any], reader: Any, maps: torch.Tensor) -> None:
    """Scales the layers of `reader` so that its output for the maps has mean 0 and deviation 1 in each channel.

    As diffusers initialises them, the layers pass on less than a hundredth of a map, and a ControlNet's last one passes on nothing, so
    training takes long to find out that there is a map. A ControlNet's output still starts at 0 through its zero convolutions.
    """
    for layer in convolutions:
        torch.nn.init.kaiming_normal_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    read = reader(maps)
    mean, spread = read.mean((0, 2, 3)), read.std((0, 2, 3))
    convolutions[-1].weight /= spread[:, None, None, None]
    convolutions[-1].bias.copy_(-mean / spread)


class Controlled(torch.nn.Module):
    """The frozen UNet, with the ControlNet in front."""

    def __init__(self, unet: Any, controlnet: Any) -> None:
        super().__init__()
        self.unet, self.controlnet = unet.requires_grad_(False), controlnet

    def forward(
        self, latents: torch.Tensor, at: torch.Tensor, encoder_hidden_states: torch.Tensor, depth: torch.Tensor
    ) -> Any:
        down, middle = self.controlnet(latents, at, encoder_hidden_states, depth, return_dict=False)
        return self.unet(
            latents,
            at,
            encoder_hidden_states=encoder_hidden_states,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        )


def train_controlnet(unet: Any, controlnet: Any, vae: Any, tokenizer: Any, text_encoder: Any, plan: Plan) -> Any:
    """Captions say less than the depth map, which shows where things are."""
    banks = make_banks(vae, "plain", plan.seed, CONTROL_SHOWN_AT, anywhere=0.8)
    add_depth(banks)
    text = text_conditions(tokenizer, text_encoder, plan.seed)

    def conditions(batch: Batch) -> dict[str, Any]:
        return {**text(batch), "depth": depth_of(batch)}

    module = Controlled(unet, controlnet)
    return train_denoiser("depth controlnet", module, banks, conditions, plan).controlnet


def add_depth(banks: Sequence[Bank]) -> None:
    """Adds each scene's depth map, [1, size, size] in bytes, to the banks."""
    for bank in banks:
        maps = drawn(bank.scenes, bank.size, DEPTH)
        bank.more[DEPTH] = torch.cat([part[:, None, ..., 0].to(DEVICE) for part in maps])


def depth_of(batch: Batch) -> torch.Tensor:
    """[count, 3, size, size], 0 to 1"""
    return as_map(batch.more(DEPTH))


def as_map(depth: torch.Tensor) -> torch.Tensor:
    """[count, 1, size, size] in bytes -> [count, 3, size, size], 0 to 1"""
    return depth.expand(-1, 3, -1, -1) / 255.0


def make_inpainting_unet(unet: Any) -> Any:
    """A copy whose first layer also takes the mask and the masked picture's latents, with weights of 0 for them."""
    from diffusers import UNet2DConditionModel

    wide = UNet2DConditionModel.from_config({**unet.config, "in_channels": INPAINT_CHANNELS})
    weights = dict(unet.state_dict())
    first = torch.zeros_like(wide.conv_in.weight)
    first[:, : unet.config.in_channels] = weights["conv_in.weight"]
    wide.load_state_dict({**weights, "conv_in.weight": first})
    return wide


def train_inpainting(unet: Any, vae: Any, tokenizer: Any, text_encoder: Any, plan: Plan) -> Any:
    """Masks boxes in the picture; in a quarter of the batches, masks everything."""
    banks = make_banks(vae, "plain", plan.seed, TUNED_AT, anywhere=0.5)
    grey = encoded(vae, torch.zeros(1, 3, 64, 64, device=DEVICE))[:, :, 4:5, 4:5]

    def seen(clean: torch.Tensor) -> torch.Tensor:
        mask = random_boxes(clean)
        return torch.cat([mask, torch.where(mask > 0.5, grey, clean)], 1)

    conditions = text_conditions(tokenizer, text_encoder, plan.seed)
    return train_denoiser("inpainting", unet, banks, conditions, plan, extra=seen)


def random_boxes(clean: torch.Tensor) -> torch.Tensor:
    """[count, 1, side, side]: 1 inside a random box; in a quarter of them, 1 everywhere."""
    count, side = len(clean), clean.shape[-1]
    lengths = 0.3 + 0.6 * torch.rand(count, 2, device=clean.device)
    lengths = torch.where(torch.rand(count, 1, device=clean.device) < 0.25, 1.0, lengths)
    first = torch.rand(count, 2, device=clean.device) * (1 - lengths)
    middles = (torch.arange(side, device=clean.device) + 0.5) / side
    inside = (middles >= first[..., None]) & (middles <= (first + lengths)[..., None])
    return (inside[:, 0, :, None] & inside[:, 1, None, :])[:, None].to(clean.dtype)


def train_lora(unet: Any, vae: Any, tokenizer: Any, text_encoder: Any, plan: Plan) -> dict[str, torch.Tensor]:
    """Trains the pixel art style as a LoRA, in diffusers' format."""
    from peft import LoraConfig

    torch.manual_seed(plan.seed)
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=LORA_RANK, lora_alpha=LORA_RANK, target_modules=LORA_LAYERS))
    banks = make_banks(vae, "pixel", plan.seed, TUNED_AT)
    conditions = text_conditions(tokenizer, text_encoder, plan.seed, TRIGGERS["pixel"])
    return lora_weights(train_denoiser("pixel art lora", unet, banks, conditions, plan))


def lora_weights(unet: Any) -> dict[str, torch.Tensor]:
    """The LoRA on the UNet, in diffusers' format."""
    from peft.utils import get_peft_model_state_dict

    # not converted: diffusers has older names for some layers, and reads only one kind of name
    return {f"unet.{name}": value.half().contiguous() for name, value in get_peft_model_state_dict(unet).items()}


EMBER = one_thing("circle", "red", "black")
"""The meaning of the embedding's one token."""
EMBER_TOKEN = "<ember>"
EMBER_PROMPTS = ("{}", "a {}", "{}, detailed", "a picture, {}", "a photo, {}")
PLACEHOLDER = "$"
"""Stands for the new token in training: it is in the vocabulary, like every byte, but in no caption."""


class WithVector(torch.nn.Module):
    """The frozen UNet, and a trainable vector for the text encoder."""

    def __init__(self, unet: Any, vector: torch.Tensor) -> None:
        super().__init__()
        self.unet, self.vector = unet.requires_grad_(False), torch.nn.Parameter(vector.clone())

    def forward(self, *arguments: Any, **named: Any) -> Any:
        return self.unet(*arguments, **named)


def train_embedding(unet: Any, vae: Any, tokenizer: Any, text_encoder: Any, plan: Plan) -> dict[str, torch.Tensor]:
    """Textual inversion: in the captions, one token stands for the whole scene, and only that token's vector is trained."""
    rng = random.Random(plan.seed)
    places = [(rng.uniform(0.35, 0.65), rng.uniform(0.35, 0.65)) for _ in range(min(400, Limits.scenes))]
    shown = [moved(EMBER, x=x, y=y) for x, y in places]
    bank = Bank(shown, latents(vae, shown, 256), 64)
    table = text_encoder.to(DEVICE).get_input_embeddings()
    module = WithVector(unet, table.weight.mean(0))
    number = tokenizer(PLACEHOLDER).input_ids[1]
    sentences = token_ids(tokenizer, [prompt.format(PLACEHOLDER) for prompt in EMBER_PROMPTS]).to(DEVICE)

    def put_in(_: Any, inputs: tuple[torch.Tensor, ...], vectors: torch.Tensor) -> torch.Tensor:
        return torch.where((inputs[0] == number)[..., None], module.vector, vectors)

    def conditions(batch: Batch) -> dict[str, Any]:
        ids = sentences[torch.randint(len(sentences), batch.rows.shape, device=DEVICE)]
        return {"encoder_hidden_states": text_encoder(ids).last_hidden_state}

    hook = table.register_forward_hook(put_in)
    try:
        trained = train_denoiser("embedding", module, [bank], conditions, plan, muon=False)
    finally:
        hook.remove()
    return {EMBER_TOKEN: trained.vector.detach().half()}
