"""Scenes of the tiny world, and the captions that describe them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

COLORS = {
    "red": (0.87, 0.13, 0.13),
    "orange": (0.98, 0.55, 0.08),
    "yellow": (0.97, 0.88, 0.16),
    "green": (0.16, 0.62, 0.22),
    "blue": (0.13, 0.33, 0.87),
    "purple": (0.55, 0.18, 0.72),
    "white": (0.95, 0.95, 0.95),
    "black": (0.07, 0.07, 0.07),
}
"""RGB, 0 to 1."""
SHAPES = {
    "circle": ("ball", "balloon", "sun"),
    "square": ("box", "house"),
    "triangle": ("mountain", "tent"),
    "star": ("flower", "starfish"),
}
"""{shape: words for it}."""
BACKGROUNDS = ("on a {} background", "on a {} background", "under a {} sky", "in a {} field", "on a {} sea")
SIZES = {"small": (0.15, 0.19), "large": (0.29, 0.36)}
"""Radius of a thing, as a fraction of the picture's side."""
FILLERS = ("detailed", "sharp focus", "soft light", "high quality", "best quality", "a photo", "a picture", "drawing")
"""Words from prompts that mean nothing in this world. The models see them in training and learn to ignore them."""


@dataclass(frozen=True)
class Thing:
    """Position and radius are fractions of the picture's side, from the top left corner."""

    shape: str
    color: str
    size: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    background: str
    things: tuple[Thing, ...]
    """No thing, one, or one on the left and one on the right."""


OFF_MIDDLE = 0.1
"""Maximum distance from the middle of a thing in a caption, as a fraction of the picture's side."""


def random_scene(
    rng: random.Random, *, two: float = 0.3, empty: float = 0.03, anywhere: float = 0.1, off_middle: float = OFF_MIDDLE
) -> Scene:
    """two, empty: how often there are two things, and none. anywhere: how often a single thing is anywhere instead of within
    `off_middle` of the middle.

    Captions don't say where things are. Most pictures of one thing have it near the middle, as people's pictures do; a model that has to
    choose among all positions needs far longer to learn to choose one.
    """
    background = rng.choice(list(COLORS))
    chance = rng.random()
    if chance < empty:
        return Scene(background, ())
    if chance < empty + two:
        return Scene(background, tuple(random_thing(rng, background, side) for side in (0.27, 0.73)))
    thing = random_thing(rng, background)
    if rng.random() >= anywhere:
        x, y = (0.5 + rng.uniform(-off_middle, off_middle) for _ in "xy")
        thing = replace(thing, x=x, y=y)
    return Scene(background, (thing,))


def random_thing(rng: random.Random, background: str, side: float | None = None) -> Thing:
    """side: the approximate horizontal position; None means anywhere."""
    size = rng.choice(list(SIZES))
    radius = rng.uniform(*SIZES[size])
    if side is not None:
        radius = min(radius, 0.22) if size == "large" else radius * 0.7
    edge = radius + 0.03
    x = rng.uniform(edge, 1 - edge) if side is None else side + rng.uniform(-0.03, 0.03)
    color = rng.choice([name for name in COLORS if name != background])
    return Thing(rng.choice(list(SHAPES)), color, size, x, rng.uniform(edge, 1 - edge), radius)


def one_thing(shape: str, color: str, background: str, *, size: str = "large", x: float = 0.5, y: float = 0.5) -> Scene:
    """A scene with one thing, with the mean radius for its size."""
    return Scene(background, (Thing(shape, color, size, x, y, sum(SIZES[size]) / 2),))


def moved(scene: Scene, **changes: float | str) -> Scene:
    """The scene with the same changes to every thing."""
    return replace(scene, things=tuple(replace(thing, **changes) for thing in scene.things))  # type: ignore[arg-type]


def plain_caption(scene: Scene) -> str:
    """The complete caption: "a large red circle on a blue background"."""
    things = _things(scene, [thing.shape for thing in scene.things])
    return _spelled(f"{things} {BACKGROUNDS[0].format(scene.background)}".strip())


def caption(scene: Scene, rng: random.Random, style: str = "") -> str:
    """A random caption: with synonyms, without some sizes or parts, with meaningless words, and with the style's trigger."""
    words = [thing.shape if rng.random() < 0.5 else rng.choice(SHAPES[thing.shape]) for thing in scene.things]
    things = _things(scene, words, sizes=rng.random() < 0.7)
    background = rng.choice(BACKGROUNDS).format(scene.background)
    chance = rng.random()
    text = background.removeprefix("on ").removeprefix("in ").removeprefix("under ")
    if things:
        text = things if chance < 0.08 else text if chance < 0.12 else f"{things} {background}"
        if chance > 0.96 and len(scene.things) == 1:
            text = rng.choice((scene.things[0].color, words[0]))
    parts = [text, *rng.sample(FILLERS, rng.choice((1, 2)))] if rng.random() < 0.3 else [text]
    if style:
        parts.insert(rng.choice((0, len(parts))), style)
    return _spelled(", ".join(parts))


def shape_caption(scene: Scene, rng: random.Random) -> str:
    """A random caption without colours: "a large star". Empty for a scene without things."""
    sizes = rng.random() < 0.5
    words = [rng.choice((thing.shape, rng.choice(SHAPES[thing.shape]))) for thing in scene.things]
    named = [f"a {f'{thing.size} ' if sizes else ''}{word}" for thing, word in zip(scene.things, words)]
    return " left of ".join(named)


def _things(scene: Scene, words: Sequence[str], *, sizes: bool = True) -> str:
    named = [f"a {f'{thing.size} ' if sizes else ''}{thing.color} {word}" for thing, word in zip(scene.things, words)]
    return " left of ".join(named)


def _spelled(text: str) -> str:
    return text.replace("a orange", "an orange")


def vocabulary(triggers: Sequence[str] = ()) -> list[str]:
    """All words in captions, sorted; each is one token in the models' tokenizer."""
    texts = [*COLORS, *SHAPES, *(word for words in SHAPES.values() for word in words), *BACKGROUNDS, *SIZES, *FILLERS]
    every = " ".join([*texts, *triggers, "a an left of right and the with style"]).replace("{}", "")
    return sorted(set(every.split()))
