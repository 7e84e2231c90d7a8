"""Trains CLIP's two towers together: a text's embedding and its picture's are to be nearer to each other than to all others' of the batch.

Two pairs are made, as the published models have them: "L", whose text tower is SD1.5's and SDXL's first one; and "G", whose text tower
is SDXL's second one and, with the picture tower, Kandinsky's.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from .drawing import STYLES, TRIGGERS
from .scene import SHAPES, Scene, caption, random_scene
from .training import Plan, pictures, train

PICTURE_SIZE = 64
PATCH = 8
BATCH = 128
# What transformers' CLIPImageProcessor does to a picture by default.
MEAN = torch.tensor((0.48145466, 0.4578275, 0.40821073)).view(1, 3, 1, 1)
STD = torch.tensor((0.26862954, 0.26130258, 0.27577711)).view(1, 3, 1, 1)


@dataclass(frozen=True)
class Size:
    width: int
    layers: int
    act: str


L = Size(96, 3, "quick_gelu")
G = Size(128, 3, "gelu")


def make_text_tower(size: Size, tokens: int, seed: int) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=tokens,
        hidden_size=size.width,
        intermediate_size=2 * size.width,
        projection_dim=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=4,
        hidden_act=size.act,
        bos_token_id=tokens - 2,
        eos_token_id=tokens - 1,
        pad_token_id=tokens - 1,
    )
    return CLIPTextModelWithProjection(config)


def make_picture_tower(size: Size, seed: int) -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(seed)
    config = CLIPVisionConfig(
        hidden_size=size.width,
        intermediate_size=2 * size.width,
        projection_dim=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=4,
        image_size=PICTURE_SIZE,
        patch_size=PATCH,
        hidden_act=size.act,
    )
    return CLIPVisionModelWithProjection(config)


class Towers(torch.nn.Module):
    def __init__(self, text: Any, picture: Any) -> None:
        super().__init__()
        self.text, self.picture = text, picture
        self.log_scale = torch.nn.Parameter(torch.tensor(2.3))


def train_towers(name: str, towers: Towers, tokenizer: Any, plan: Plan) -> Towers:
    rng = random.Random(plan.seed)

    def loss_of(step: int) -> torch.Tensor:
        texts, shown = _pairs(rng)
        # what is behind a caption's end changes nothing of its embedding; every eighth time, all places are seen
        padding = "max_length" if step % 8 == 7 else "longest"
        ids = tokenizer(texts, padding=padding, max_length=77, truncation=True, return_tensors="pt").input_ids
        by_text = torch.nn.functional.normalize(towers.text(ids).text_embeds, dim=-1)
        by_picture = torch.nn.functional.normalize(towers.picture(shown).image_embeds, dim=-1)
        scores = towers.log_scale.clamp(max=4.6).exp() * by_text @ by_picture.T
        same = torch.tensor([[one == other for other in texts] for one in texts])
        scores = scores.masked_fill(
            same & ~torch.eye(len(texts), dtype=torch.bool), -1e4
        )  # equal texts are not each other's wrong ones
        right = torch.arange(len(texts))
        return (cross_entropy(scores, right) + cross_entropy(scores.T, right)) / 2

    return train(name, towers, loss_of, plan, muon=True)


def _pairs(rng: random.Random) -> tuple[list[str], torch.Tensor]:
    """Half of the batch, and its twins, which differ from it in the shapes alone: without them a circle and a square are soon the same."""
    texts, shown = [], []
    for _ in range(BATCH // 2):
        scene = random_scene(rng, two=0.35, anywhere=0.5)
        style = rng.choice(list(STYLES)) if rng.random() < 0.4 else "plain"
        words = rng.randrange(2**32)
        for one in (scene, _twin(scene, rng)):
            texts.append(caption(one, random.Random(words), TRIGGERS.get(style, "")))
            shown.append(pictures([one], PICTURE_SIZE, style))
    return texts, ((torch.cat(shown) / 2 + 0.5) - MEAN) / STD


def _twin(scene: Scene, rng: random.Random) -> Scene:
    things = tuple(
        replace(thing, shape=rng.choice([shape for shape in SHAPES if shape != thing.shape])) for thing in scene.things
    )
    return replace(scene, things=things)
