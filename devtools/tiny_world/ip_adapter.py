"""Trains an IP-Adapter for the SD1.5 stand-in: a picture's embedding says what the text leaves out.

Each layer's new attention learns to add what the caption would have added there. So nothing goes through the UNet but a few batches
beforehand, and a minute is enough.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.functional import linear, mse_loss, scaled_dot_product_attention

from small_models.parts import scheduler

from .clip import G, L
from .kandinsky import picture_embeddings
from .noise import noise_levels
from .scene import SHAPES, SIZES, Scene, plain_caption, shape_caption
from .schedules import SD15
from .stable_diffusion import encode
from .training import DEVICE, Limits, Plan, fit, latents, noise_for, scenes, train

TOKENS = 4
"""How many tokens a picture becomes; diffusers expects 4 of an adapter with these names."""
SAID = (3, 4, 7, 9)
"""Their places in "a large red circle on a blue background": the thing's color and shape, the background's color, and the end."""
FITTED, WATCHED = 3000, 2000
"""How many scenes the tokens and the layers learn from."""
AT_ONCE, BATCH = 16, 128
NAMED, NOTHING = 0.4, 0.1
"""How often a text names the shape, while the picture is another one with the same colors; and how often there is neither."""

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Watched:
    """What the layers with text were asked, and what the caption added to their answers. `pictures`: [count, width]; for each layer,
    `asked` and `added`: [count, positions, channels]."""

    pictures: torch.Tensor
    asked: list[torch.Tensor]
    added: list[torch.Tensor]


class Adapter(torch.nn.Module):
    """The projection of the picture to tokens, and each layer's keys and values."""

    def __init__(self, pipeline: Any, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.proj = torch.nn.Linear(G.width, TOKENS * L.width)
        self.norm = torch.nn.LayerNorm(L.width)
        layers = layers_of(pipeline.unet)
        self.numbers, self.heads = [number for number, _ in layers], [layer.heads for _, layer in layers]
        self.keys, self.values = (
            torch.nn.ParameterList(getattr(layer, part).weight.detach().clone() for _, layer in layers)
            for part in ("to_k", "to_v")
        )

    def forward(self, pictures: torch.Tensor, asked: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """What the layers add, [count, positions, channels] each."""
        tokens = self.norm(self.proj(pictures).unflatten(1, (TOKENS, L.width)))
        return [
            attend(query, linear(tokens, key), linear(tokens, value), heads)
            for query, key, value, heads in zip(asked, self.keys, self.values, self.heads)
        ]

    def tensors(self) -> Tensors:
        """With the published files' names."""
        found = {
            f"image_proj.{name}": value
            for name, value in self.state_dict().items()
            if name.startswith(("proj", "norm"))
        }
        for number, key, value in zip(self.numbers, self.keys, self.values):
            found[f"ip_adapter.{number}.to_k_ip.weight"] = key
            found[f"ip_adapter.{number}.to_v_ip.weight"] = value
        return {name: value.detach().half().contiguous() for name, value in found.items()}


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
    parts = (one.unflatten(-1, (heads, -1)).transpose(1, 2) for one in (query, key, value))
    return scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)


def train_ip_adapter(pipeline: Any, plan: Plan) -> Tensors:
    """pipeline: the SD1.5 stand-in's, with the picture tower as its image_encoder. Its UNet stays as it is."""
    pipeline.to(DEVICE)
    adapter = Adapter(pipeline, plan.seed)
    fit_tokens(adapter, pipeline, plan.seed)
    watched = watch(pipeline, plan.seed)

    def loss_of(step: int) -> torch.Tensor:
        rows = torch.randint(len(watched.pictures), (min(BATCH, Limits.batch * 8),), device=DEVICE)
        found = adapter(watched.pictures[rows], [asked[rows] for asked in watched.asked])
        wanted = [added[rows] for added in watched.added]
        return torch.stack([mse_loss(*both) / both[1].square().mean() for both in zip(found, wanted)]).mean()

    return train("ip adapter", adapter, loss_of, plan, muon=True).tensors()


@torch.no_grad()
def fit_tokens(adapter: Adapter, pipeline: Any, seed: int) -> None:
    """Fits a picture's tokens to the states of its caption's words."""
    shown = scenes(FITTED, seed, two=0, empty=0)
    states = encode(pipeline.tokenizer, pipeline.text_encoder, [plain_caption(scene) for scene in shown])[:, SAID]
    last = next(value for name, value in pipeline.text_encoder.named_modules() if name.endswith("final_layer_norm"))
    adapter.norm.load_state_dict(last.state_dict())
    adapter.to(DEVICE)
    fit(
        adapter.proj, picture_embeddings(pipeline.image_encoder, shown), ((states - last.bias) / last.weight).flatten(1)
    )


class Listener:
    """An attention processor for a layer with text that notes its queries, and what the whole text adds to what `less` of it says."""

    def __init__(self) -> None:
        self.less = torch.empty(0)
        self.asked: list[torch.Tensor] = []
        self.added: list[torch.Tensor] = []

    def __call__(self, layer: Any, states: torch.Tensor, encoder_hidden_states: torch.Tensor, **_: Any) -> torch.Tensor:
        query = layer.to_q(states)
        whole, less = (
            attend(query, layer.to_k(text), layer.to_v(text), layer.heads)
            for text in (encoder_hidden_states, self.less)
        )
        self.asked.append(query)
        self.added.append(whole - less)
        return layer.to_out[0](whole)  # type: ignore[no-any-return]


@torch.no_grad()
def watch(pipeline: Any, seed: int) -> Watched:
    """Denoises scenes with their captions, and notes what the text adds to the empty text, or to one with only the shape."""
    rng = random.Random(seed)
    shown = scenes(WATCHED, seed, two=0.1, empty=0)
    named, nothing = ([rng.random() < chance for _ in shown] for chance in (NAMED, NOTHING))
    whole = ["" if none else plain_caption(scene) for scene, none in zip(shown, nothing)]
    less = [shape_caption(scene, rng) if some and not none else "" for scene, some, none in zip(shown, named, nothing)]
    seen = [_recast(scene, rng) if some else scene for scene, some in zip(shown, named)]
    pictures = picture_embeddings(pipeline.image_encoder, seen)
    pictures[torch.tensor(nothing, device=DEVICE)] = 0
    clean = latents(pipeline.vae, shown, 256)
    noiser = scheduler({**SD15, "_class_name": "DDPMScheduler"})
    torch.manual_seed(seed)
    listeners = [Listener() for _ in layers_of(pipeline.unet)]
    usual = pipeline.unet.attn_processors
    places = [f"{name}.processor" for name in _names(pipeline.unet)]
    pipeline.unet.set_attn_processor({**usual, **dict(zip(places, listeners))})
    try:
        for start in range(0, len(shown), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            for listener in listeners:
                listener.less = encode(pipeline.tokenizer, pipeline.text_encoder, less[part])
            at = noise_levels((0, 1000), len(shown[part]))
            noisy = noiser.add_noise(clean[part], noise_for(clean[part]), at)
            pipeline.unet(noisy, at, encode(pipeline.tokenizer, pipeline.text_encoder, whole[part]))
    finally:
        pipeline.unet.set_attn_processor(usual)
    return Watched(pictures, [torch.cat(one.asked) for one in listeners], [torch.cat(one.added) for one in listeners])


def _recast(scene: Scene, rng: random.Random) -> Scene:
    """The same colors with other shapes."""

    def other(shape: str) -> str:
        return rng.choice([one for one in SHAPES if one != shape])

    size = rng.choice(list(SIZES)) if len(scene.things) == 1 else "small"
    radius = sum(SIZES[size]) / 2
    return replace(
        scene,
        things=tuple(replace(thing, shape=other(thing.shape), size=size, radius=radius) for thing in scene.things),
    )


def _names(unet: Any) -> list[str]:
    return [name for name, layer in unet.named_modules() if name.endswith("attn2") and hasattr(layer, "to_k")]


def layers_of(unet: Any) -> list[tuple[int, Any]]:
    """(number in a published file, layer) of the layers that read the text."""
    numbers = {name.removesuffix(".processor"): number for number, name in enumerate(unet.attn_processors)}
    return [(numbers[name], unet.get_submodule(name)) for name in _names(unet)]


def put_on(pipeline: Any, adapter: Tensors) -> None:
    """Loads the adapter into the pipeline, which must have its picture encoder."""
    parts: dict[str, Tensors] = {"image_proj": {}, "ip_adapter": {}}
    for name, value in adapter.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value.detach().float()
    pipeline.load_ip_adapter(parts, subfolder="", weight_name="", image_encoder_folder=None, low_cpu_mem_usage=False)


def widened(adapter: Tensors, times: int) -> Tensors:
    """The adapter for the widened text: a picture's tokens are repeated side by side, and the keys and values read the first copy."""
    found = {}
    for name, value in adapter.items():
        if name.startswith("ip_adapter."):
            found[name] = torch.nn.functional.pad(value, (0, value.shape[1] * (times - 1)))
        else:
            tokens = value.unflatten(0, (-1, L.width))
            found[name] = tokens.repeat(1, times, *[1] * (value.ndim - 1)).flatten(0, 1)
    return found
