"""What a picture of the tiny world shows: the background, the things, their colours, shapes and places.

Colours are the nearest of the palette; shapes are what overlaps best with the thing, drawn ideally over the same area.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .drawing import Array, cover_of
from .scene import COLORS, SHAPES, Scene, Thing

BORDER = 0.05
"""How wide the rim is, in parts of the side, whose middle colour is the background's."""
DIFFERENT = 0.22
"""Distance in RGB from which a pixel is not background."""
LEAST_AREA = 0.008
"""What is smaller, in parts of the picture, is not seen as a thing."""


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
    background_rgb: tuple[float, float, float]
    things: tuple[SeenThing, ...]
    """The largest first."""

    @property
    def largest(self) -> SeenThing | None:
        return self.things[0] if self.things else None


def look(picture: Array) -> Seen:
    """`picture`: [height, width, 3], 0 to 1."""
    ground = _rim_color(picture)
    differs = np.linalg.norm(picture - ground, axis=2) > DIFFERENT
    labels, count = ndimage.label(ndimage.binary_opening(differs, iterations=max(1, len(picture) // 128)))
    areas = ndimage.sum_labels(np.ones(labels.shape), labels, range(1, count + 1)) / labels.size
    order = [int(index) + 1 for index in np.argsort(-areas) if areas[index] >= LEAST_AREA]
    return Seen(nearest_color(ground), _triple(ground), tuple(_thing(picture, labels == label) for label in order))


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


def edge_strength(picture: Array) -> float:
    """The steepest hundredth of the steps from pixel to pixel, in brightness: what an edge that is one pixel wide makes large."""
    grey = picture.mean(2)
    steps = np.hypot(*np.gradient(grey))
    return float(np.quantile(steps, 0.99))


def _rim_color(picture: Array) -> Array:
    width = max(1, round(BORDER * min(picture.shape[:2])))
    inner = np.ones(picture.shape[:2], bool)
    inner[width:-width, width:-width] = False
    return np.median(picture[inner], axis=0)


def _thing(picture: Array, mask: Array) -> SeenThing:
    rows, columns = np.nonzero(mask)
    side = max(mask.shape)
    x, y = (columns.mean() + 0.5) / side, (rows.mean() + 0.5) / side
    area = mask.sum() / mask.size
    inner = ndimage.binary_erosion(mask, iterations=max(1, side // 64))
    rgb = np.median(picture[inner if inner.any() else mask], axis=0)
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
