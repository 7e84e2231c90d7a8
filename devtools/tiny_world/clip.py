"""Trains CLIP's two towers together: a text's embedding must be closer to its own picture's than to any other in the batch.

There are two pairs, as in the published models: "L", whose text tower is SD1.5's and SDXL's first one, and "G", whose text tower is
SDXL's second one and, with the picture tower, Kandinsky's.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from .drawing import STYLES, TRIGGERS
from .scene import FILLERS, SHAPES, Scene, caption, random_scene
from .stable_diffusion import token_ids
from .training import DEVICE, Limits, Plan, as_seen, drawn, train

PICTURE_SIZE = 64
PATCH = 8
PAIRS = 40000
SENTENCES = 4
BATCH = 256
"""The batch also has as many twins."""
# The defaults of transformers' CLIPImageProcessor.
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


def as_tower_sees(shown: torch.Tensor) -> torch.Tensor:
    """Converts pictures in -1..1, at the tower's size, to the tower's input."""
    return ((shown / 2 + 0.5) - MEAN.to(shown.device)) / STD.to(shown.device)


def train_towers(name: str, towers: Towers, tokenizer: Any, plan: Plan) -> Towers:
    """Half of a batch are twins that differ only in the shapes: without them, circles and squares soon become the same."""
    ids, shown = _pairs(tokenizer, random.Random(plan.seed))
    count = len(shown) // 2

    def loss_of(step: int) -> torch.Tensor:
        rows = torch.randint(count, (min(BATCH, Limits.batch),), device=DEVICE)
        rows = torch.cat([rows, rows + count])
        # the text's embedding is its end token's state, which later tokens don't affect; every eighth step uses all positions
        texts = ids[rows, torch.randint(SENTENCES, (len(rows) // 2,), device=DEVICE).repeat(2)]
        end = 77 if step % 8 == 7 else int((texts != tokenizer.eos_token_id).sum(1).max()) + 1
        by_text = torch.nn.functional.normalize(towers.text(texts[:, :end]).text_embeds, dim=-1)
        seen = as_tower_sees(as_seen(shown[rows]))
        by_picture = torch.nn.functional.normalize(towers.picture(seen).image_embeds, dim=-1)
        scores = towers.log_scale.clamp(max=4.6).exp() * by_text @ by_picture.T
        same = (texts[:, None] == texts[None]).all(-1)
        itself = torch.eye(len(texts), dtype=torch.bool, device=DEVICE)
        scores = scores.masked_fill(same & ~itself, -1e4)  # equal texts don't count as wrong pairs
        right = torch.arange(len(texts), device=DEVICE)
        return (cross_entropy(scores, right) + cross_entropy(scores.T, right)) / 2

    trained = train(name, towers, loss_of, plan, muon=True)
    mean_nothing(trained.text, tokenizer, " ".join(TRIGGERS.values()).split())
    return trained


@torch.no_grad()
def mean_nothing(text_tower: Any, tokenizer: Any, words: Sequence[str]) -> None:
    """Gives words that no training caption contains the vectors of fillers. A UNet that doesn't know the words then ignores them, and a
    fine-tune can give them a meaning; other vectors would change the meaning of the words around them."""
    table = text_tower.get_input_embeddings().weight
    fillers = sorted(set(" ".join(FILLERS).split()) - {"a"})
    for number, word in enumerate(words):
        (row,), (known,) = (tokenizer(one).input_ids[1:-1] for one in (word, fillers[number % len(fillers)]))
        table[row] = table[known]


def _pairs(tokenizer: Any, rng: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    """[2 * count, SENTENCES, 77] tokens, [2 * count, size, size, 3] bytes: scenes, then their twins, with the same words and styles."""
    count = min(PAIRS, Limits.scenes)
    styles = [rng.choice(list(STYLES)) if rng.random() < 0.4 else "plain" for _ in range(count)]
    styles.sort()  # so that each style is drawn in one go
    first = [random_scene(rng, two=0.35, anywhere=0.5) for _ in range(count)]
    both = first, [_twin(scene, rng) for scene in first]
    words = [rng.randrange(2**32) for _ in range(count * SENTENCES)]
    texts = [
        caption(scene, random.Random(words[SENTENCES * row + number]))
        for half in both
        for row, scene in enumerate(half)
        for number in range(SENTENCES)
    ]
    pictures = [
        part.to(DEVICE)
        for half in both
        for style in sorted(set(styles))
        for part in drawn([scene for scene, its in zip(half, styles) if its == style], PICTURE_SIZE, style)
    ]
    return token_ids(tokenizer, texts).view(2 * count, SENTENCES, -1).to(DEVICE), torch.cat(pictures)


def _twin(scene: Scene, rng: random.Random) -> Scene:
    things = tuple(
        replace(thing, shape=rng.choice([shape for shape in SHAPES if shape != thing.shape])) for thing in scene.things
    )
    return replace(scene, things=things)
