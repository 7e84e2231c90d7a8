"""Trains a Union ControlNet for the SDXL stand-in, of whose modes it knows one: depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.functional import avg_pool2d, mse_loss, silu

from small_models.parts import scheduler

from .additions import add_depth, as_map, depth_of, read_loudly
from .autoencoders import TURN
from .noise import noise_levels
from .schedules import SDXL
from .sdxl import TOP_WIDTH, added_conditions, both, say_nothing
from .stable_diffusion import Captions, make_banks, only
from .training import DEPTH, DEVICE, Plan, drawn, fit, noise_for, scenes, train

DEPTH_MODE, MODES = 1, 6
"""In xinsir's order: pose, depth, scribble, line, normal, segment."""
SHOWN_AT = {512: (4000, 96, 1.0)}
NEW_OUTPUTS = 3
"""SDXL's stand-in has this many outputs before the one that is SD1.5's second."""
LEARNS = (
    "controlnet_cond_embedding.",
    "conv_in.",
    "down_blocks.0.",
    "down_blocks.1.",
    "task_embedding",
    "transformer_layes.",
    "spatial_ch_projs.",
    "control_add_embedding.",
    "add_embedding.",
)
"""The rest is SD1.5's ControlNet or a copy of the UNet."""


def make_union(unet: Any, sd15_controlnet: Any, seed: int) -> Any:
    """The UNet is SD1.5's with another level on top. So the Union begins as the UNet, but for what the depth ControlNet of SD1.5's has; its
    outputs for the new level stay 0."""
    from diffusers import ControlNetUnionModel

    torch.manual_seed(seed)
    channels = (4, 8, 16, 32)
    plain = ControlNetUnionModel.from_unet(
        unet, conditioning_embedding_out_channels=channels, load_weights_from_unet=False
    )
    narrow = {
        "num_control_type": MODES,
        "num_trans_channel": TOP_WIDTH,
        "num_trans_head": 4,
        "num_proj_channel": TOP_WIDTH,
    }
    config = {name: value for name, value in plain.config.items() if not name.startswith("_")}
    union = ControlNetUnionModel(**{**config, **narrow})
    own, known = union.state_dict(), unet.state_dict()
    same = {name: known[name] for name, value in own.items() if name in known and known[name].shape == value.shape}
    union.load_state_dict({**own, **same, **_from_sd15(sd15_controlnet)})
    readers = {name: unet.get_submodule(name) for name, _ in union.named_modules() if name.endswith("time_emb_proj")}
    for name in readers:
        if name.startswith("down_blocks.2."):
            readers[name] = sd15_controlnet.get_submodule(name.replace("down_blocks.2.", "down_blocks.1."))
    _fit_times(union, unet, readers)
    reader = union.controlnet_cond_embedding
    (maps,) = drawn(scenes(1, seed, two=1, empty=0), 512, DEPTH)
    read_loudly([reader.conv_in, *reader.blocks, reader.conv_out], reader, as_map(maps[..., :1].permute(0, 3, 1, 2)))
    return only(union, LEARNS)


def _from_sd15(controlnet: Any) -> dict[str, torch.Tensor]:
    """What SD1.5's depth ControlNet has for the levels below the first two, by its name one level down."""
    found = {}
    for name, value in controlnet.state_dict().items():
        block, number, rest = [*name.split(".", 2), "", ""][:3]
        if block == "down_blocks" and number == "1" and "time_emb" not in rest:
            found[f"down_blocks.2.{rest}"] = value
        elif block == "controlnet_down_blocks" and int(number) > 0:
            found[f"{block}.{int(number) + NEW_OUTPUTS - 1}.{rest}"] = value
        elif block == "controlnet_mid_block":
            found[name] = value
    return found


@torch.no_grad()
def _fit_times(union: Any, unet: Any, readers: Mapping[str, Any]) -> None:
    """A Union ControlNet encodes time in fewer numbers than this UNet, so the layers that write and read them are fitted to have the same
    effect. At first, it reads neither the pooled text nor the sizes nor the mode. readers: {the name of a layer that reads them: one that
    reads the UNet's}."""
    times = torch.arange(1000)
    waves = unet.time_proj(times)
    sizes = unet.add_time_proj(torch.tensor([512, 512, 0, 0, 512, 512])).flatten()
    none = torch.zeros(unet.add_embedding.linear_1.in_features - len(sizes))
    whole = unet.time_embedding(waves) + unet.add_embedding(torch.cat([none, sizes])[None])
    known, writer = unet.time_embedding, union.time_embedding
    width = writer.linear_1.out_features
    writer.linear_1.weight.copy_(known.linear_1.weight[:width])
    writer.linear_1.bias.copy_(known.linear_1.bias[:width])
    fit(writer.linear_2, silu(writer.linear_1(waves)), whole[:, :width])
    part = writer(waves)
    for name, reader in readers.items():
        fit(union.get_submodule(name), silu(part), reader(silu(whole)))
    say_nothing(union.add_embedding)
    say_nothing(union.control_add_embedding)


def train_union(union: Any, sd15_controlnet: Any, vae: Any, tokenizer: Any, texts: tuple[Any, Any], plan: Plan) -> Any:
    """Trains it to give what SD1.5's depth ControlNet gives for the same noisy latents at half the width: the layers of SDXL's stand-in that
    get it are SD1.5's. texts: both text encoders of SDXL's."""
    (bank,) = make_banks(vae, "plain", plan.seed, SHOWN_AT, anywhere=0.8)
    add_depth([bank])
    captions = Captions(tokenizer, plan.seed)
    noiser = scheduler({**SDXL, "_class_name": "DDPMScheduler"})
    for module in (sd15_controlnet, *texts):
        module.to(DEVICE)

    def loss_of(step: int) -> torch.Tensor:
        batch = bank.pick()
        at = noise_levels((0, 1000), len(batch.rows))
        depth = depth_of(batch)
        noisy = noiser.add_noise(batch.clean, noise_for(batch.clean), at)
        ids, kept = captions.pick(batch)
        with torch.no_grad():
            states, pooled = both(tokenizer, *texts, ids, kept)
            text = texts[0](ids).last_hidden_state
            wanted, wanted_middle = sd15_controlnet(as_sd15(noisy), at, text, avg_pool2d(depth, 2), return_dict=False)
        kinds = torch.zeros(len(ids), MODES, device=DEVICE)
        kinds[:, DEPTH_MODE] = 1
        down, middle = union(
            noisy,
            at,
            states,
            controlnet_cond=[depth],
            control_type=kinds,
            control_type_idx=[DEPTH_MODE],
            added_cond_kwargs=added_conditions(pooled, bank.size),
            return_dict=False,
        )
        pairs = [*zip(down[NEW_OUTPUTS:], wanted[1:], strict=True), (middle, wanted_middle)]
        return torch.stack([mse_loss(own, other) / other.square().mean() for own, other in pairs]).mean()

    return train("union controlnet", union, loss_of, plan, muon=True)


def as_sd15(noisy: torch.Tensor) -> torch.Tensor:
    """SD1.5's latents at half the width, with as much noise."""
    return torch.einsum("ji,bjhw->bihw", TURN.to(noisy.device), noisy[..., ::2, ::2])
