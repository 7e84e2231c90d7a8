"""What a picture of the tiny world shows: the background, the things, their colours, shapes and places.

Colours are the nearest of the palette; shapes are what overlaps best with the thing, drawn ideally over the same area.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .drawing import PIXELS, Array, cover_of, draw
from .scene import COLORS, SHAPES, Scene, Thing

BORDER = 0.05
"""How wide the rim is, in parts of the side, whose middle colour is the background's."""
DIFFERENT = 0.22
"""Distance in RGB from which a pixel is not background."""
LEAST_STEP = 0.03
"""From pixel to pixel, in RGB: less than that is light and shade."""
LEAST_AREA = 0.008
"""What is smaller, in parts of the picture, is not seen as a thing."""


def _measures(shape: str) -> tuple[float, float]:
    """Of a thing of radius 1: the radius of the circle of the same area, and how far its middle of mass lies below its place."""
    cover = cover_of(Thing(shape, "red", "large", 0.5, 0.5, 0.3), 256)
    below = (ndimage.center_of_mass(cover)[0] + 0.5) / 256 - 0.5
    return float(np.sqrt(cover.mean() / np.pi)) / 0.3, below / 0.3


MEASURES = {shape: _measures(shape) for shape in SHAPES}


@dataclass(frozen=True)
class SeenThing:
    """Place and radius (of the circle of the same area) in parts of the side; `area` in parts of the picture."""

    shape: str
    color: str
    x: float
    y: float
    radius: float
    area: float
    overlap: float
    """Of the thing with the ideal shape: common area by joint area, 0 to 1."""
    rgb: tuple[float, float, float]


@dataclass(frozen=True)
class Seen:
    background: str
    things: tuple[SeenThing, ...]
    """The largest first."""

    @property
    def largest(self) -> SeenThing | None:
        return self.things[0] if self.things else None


def look(picture: Array) -> Seen:
    """`picture`: [height, width, 3], 0 to 1."""
    ground = _rim_color(picture)
    away = np.linalg.norm(picture - ground, axis=2)
    differs = away > DIFFERENT
    labels, count = ndimage.label(ndimage.binary_opening(differs, iterations=max(1, len(picture) // 128)))
    areas = ndimage.sum_labels(np.ones(labels.shape), labels, range(1, count + 1)) / labels.size
    order = [int(index) + 1 for index in np.argsort(-areas) if areas[index] >= LEAST_AREA]
    return Seen(nearest_color(ground), tuple(_thing(picture, labels == label, away) for label in order))


def agrees(seen: Seen, scene: Scene, *, colors_only: bool = False) -> bool:
    """Whether the background, and the largest thing's colour and shape, are the scene's (of a scene with one thing)."""
    wanted, found = scene.things[0], seen.largest
    if found is None or seen.background != scene.background or found.color != wanted.color:
        return False
    return colors_only or found.shape == wanted.shape


def nearest_color(rgb: Array) -> str:
    """The palette's colour that is nearest, whatever light is on it."""
    names = list(COLORS)
    palette = np.array([COLORS[name] for name in names])
    return names[int(np.linalg.norm(palette - rgb, axis=1).argmin())]


def towards(picture: Array, color: str) -> float:
    """How near the picture's pixels are to the colour, as the mean of exp(-distance / 0.3): 0 far, 1 all of it."""
    return float(np.exp(-np.linalg.norm(picture - np.array(COLORS[color]), axis=2) / 0.3).mean())


def redrawn(seen: Seen, size: int) -> Array:
    """What is seen, as the world draws it: how far a picture is from this says how clean it is."""
    return draw(Scene(seen.background, tuple(_thing_of(thing) for thing in seen.things)), size)


def _thing_of(seen: SeenThing) -> Thing:
    by_area, below = MEASURES[seen.shape]
    radius = seen.radius / by_area
    return Thing(seen.shape, seen.color, "large", seen.x, seen.y - below * radius, radius)


def in_squares(picture: Array, count: int = PIXELS) -> float:
    """How little the pixels of each of count x count squares differ, against those of squares that lie across: under 1 where the picture is
    made of squares."""
    side = len(picture) // count
    half = side // 2

    def spread(of: Array) -> float:
        parts = of.reshape(len(of) // side, side, -1, side, 3)
        return float(parts.std((1, 3)).mean())

    return spread(picture[: count * side, : count * side]) / (
        spread(picture[half : half - side, half : half - side]) + 1e-6
    )


def outlined(picture: Array, seen: SeenThing) -> float:
    """How large a part of the rim of the thing is dark."""
    side = max(picture.shape[:2])
    cover = cover_of(_thing_of(seen), side)
    rim = ndimage.binary_dilation(cover > 0.5, iterations=side // 32) & ~ndimage.binary_erosion(
        cover > 0.5, iterations=side // 32
    )
    dark = ndimage.binary_dilation(picture.max(2) < 0.3, iterations=side // 64)
    return float((dark & rim).sum() / max(1, rim.sum()))


def edge_strength(picture: Array) -> float:
    """How steep the steps from pixel to pixel are where there are any, in the mean weighted by themselves: the sharper the larger, however
    long the edges are."""
    steps = np.linalg.norm(np.stack(np.gradient(picture, axis=(0, 1))), axis=(0, 3))
    steps = steps[steps > LEAST_STEP]
    return float((steps**2).sum() / max(1e-6, steps.sum()))


def _rim_color(picture: Array) -> Array:
    width = max(1, round(BORDER * min(picture.shape[:2])))
    inner = np.ones(picture.shape[:2], bool)
    inner[width:-width, width:-width] = False
    return np.median(picture[inner], axis=0)


def _thing(picture: Array, mask: Array, away: Array) -> SeenThing:
    """`mask`: all that differs from the ground there; the thing ends half way between its colour and the ground's. `away`: from the ground."""
    depth = ndimage.distance_transform_edt(mask)
    inner = depth >= depth.max() / 2  # a thing with an outline has its colour in the middle
    rgb = np.median(picture[inner], axis=0)
    mask = mask & (away > np.median(away[inner]) / 2)
    rows, columns = np.nonzero(mask)
    side = max(mask.shape)
    x, y = (columns.mean() + 0.5) / side, (rows.mean() + 0.5) / side
    area = mask.sum() / mask.size
    overlaps = {shape: _overlap(mask, shape, x, y) for shape in SHAPES}
    shape = max(overlaps, key=lambda name: overlaps[name])
    return SeenThing(
        shape, nearest_color(rgb), x, y, float(np.sqrt(area / np.pi)), float(area), overlaps[shape], _triple(rgb)
    )


def _overlap(mask: Array, shape: str, x: float, y: float) -> float:
    """With the shape of the same area and middle. The picture is square, or is taken as part of a square."""
    side = max(mask.shape)
    unit = cover_of(Thing(shape, "red", "large", 0.5, 0.5, 0.3), 128)
    area, cy, cx = unit.mean(), *((np.array(ndimage.center_of_mass(unit)) + 0.5) / 128)
    scale = np.sqrt(mask.sum() / side**2 / area)
    ideal = Thing(shape, "red", "large", x - scale * (cx - 0.5), y - scale * (cy - 0.5), 0.3 * scale)
    cover = cover_of(ideal, side)[: mask.shape[0], : mask.shape[1]]
    return float(np.minimum(cover, mask).sum() / np.maximum(cover, mask).sum())


def _triple(rgb: Array) -> tuple[float, float, float]:
    return float(rgb[0]), float(rgb[1]), float(rgb[2])
