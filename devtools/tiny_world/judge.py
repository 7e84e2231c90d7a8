"""Recognises what a picture of the tiny world shows: the background and the things, with colours, shapes and positions.

A colour is the nearest in the palette; a shape is the ideal shape of the same area with the best overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .drawing import PIXELS, Array, cover_of, draw
from .scene import COLORS, SHAPES, Scene, Thing

BORDER = 0.05
"""Width of the rim whose median colour is the background's, as a fraction of the side."""
DIFFERENT = 0.22
"""RGB distance above which a pixel isn't background."""
LEAST_STEP = 0.03
"""RGB distance between neighbouring pixels; smaller differences are shading."""
LEAST_AREA = 0.008
"""Minimum area of a thing, as a fraction of the picture."""


def _measures(shape: str) -> tuple[float, float]:
    """For a thing of radius 1: the radius of the circle with the same area, and how far the centroid is below the position."""
    cover = cover_of(Thing(shape, "red", "large", 0.5, 0.5, 0.3), 256)
    below = (ndimage.center_of_mass(cover)[0] + 0.5) / 256 - 0.5
    return float(np.sqrt(cover.mean() / np.pi)) / 0.3, below / 0.3


MEASURES = {shape: _measures(shape) for shape in SHAPES}


@dataclass(frozen=True)
class SeenThing:
    """Position and radius (of the circle with the same area) as fractions of the side; `area` as a fraction of the picture."""

    shape: str
    color: str
    x: float
    y: float
    radius: float
    area: float
    overlap: float
    """Overlap (intersection over union) with the ideal shape, 0 to 1."""
    rgb: tuple[float, float, float]


@dataclass(frozen=True)
class Seen:
    background: str
    things: tuple[SeenThing, ...]
    """Largest first."""

    @property
    def largest(self) -> SeenThing | None:
        return self.things[0] if self.things else None


def look(picture: Array) -> Seen:
    """picture: [height, width, 3], 0 to 1."""
    ground = _rim_color(picture)
    away = np.linalg.norm(picture - ground, axis=2)
    differs = away > DIFFERENT
    labels, count = ndimage.label(ndimage.binary_opening(differs, iterations=max(1, len(picture) // 128)))
    areas = ndimage.sum_labels(np.ones(labels.shape), labels, range(1, count + 1)) / labels.size
    order = [int(index) + 1 for index in np.argsort(-areas) if areas[index] >= LEAST_AREA]
    return Seen(nearest_color(ground), tuple(_thing(picture, labels == label, away) for label in order))


def agrees(seen: Seen, scene: Scene, *, colors_only: bool = False) -> bool:
    """Whether the background and the largest thing's colour and shape match the scene (with one thing)."""
    wanted, found = scene.things[0], seen.largest
    if found is None or seen.background != scene.background or found.color != wanted.color:
        return False
    return colors_only or found.shape == wanted.shape


def nearest_color(rgb: Array) -> str:
    """The nearest colour in the palette, independent of lighting."""
    names = list(COLORS)
    palette = np.array([COLORS[name] for name in names])
    return names[int(np.linalg.norm(palette - rgb, axis=1).argmin())]


def towards(picture: Array, color: str) -> float:
    """How near the picture's pixels are to the colour: the mean of exp(-distance / 0.3), from 0 (far) to 1 (all pixels)."""
    return float(np.exp(-np.linalg.norm(picture - np.array(COLORS[color]), axis=2) / 0.3).mean())


def redrawn(seen: Seen, size: int) -> Array:
    """An ideal drawing of what is seen; a picture's distance from it measures how clean the picture is."""
    return draw(Scene(seen.background, tuple(_thing_of(thing) for thing in seen.things)), size)


def _thing_of(seen: SeenThing) -> Thing:
    by_area, below = MEASURES[seen.shape]
    radius = seen.radius / by_area
    return Thing(seen.shape, seen.color, "large", seen.x, seen.y - below * radius, radius)


def in_squares(picture: Array, count: int = PIXELS) -> float:
    """The variation inside each of count x count squares, relative to that in shifted squares: below 1 if the picture consists of
    squares."""
    side = len(picture) // count
    half = side // 2

    def spread(of: Array) -> float:
        parts = of.reshape(len(of) // side, side, -1, side, 3)
        return float(parts.std((1, 3)).mean())

    return spread(picture[: count * side, : count * side]) / (
        spread(picture[half : half - side, half : half - side]) + 1e-6
    )


def outlined(picture: Array, seen: SeenThing) -> float:
    """The dark part of the thing's rim, 0 to 1."""
    side = max(picture.shape[:2])
    cover = cover_of(_thing_of(seen), side)
    rim = ndimage.binary_dilation(cover > 0.5, iterations=side // 32) & ~ndimage.binary_erosion(
        cover > 0.5, iterations=side // 32
    )
    dark = ndimage.binary_dilation(picture.max(2) < 0.3, iterations=side // 64)
    return float((dark & rim).sum() / max(1, rim.sum()))


def edge_strength(picture: Array) -> float:
    """The steepness of the steps between pixels, averaged with the steps themselves as weights: larger for sharper edges, whatever their
    length."""
    steps = np.linalg.norm(np.stack(np.gradient(picture, axis=(0, 1))), axis=(0, 3))
    steps = steps[steps > LEAST_STEP]
    return float((steps**2).sum() / max(1e-6, steps.sum()))


def _rim_color(picture: Array) -> Array:
    width = max(1, round(BORDER * min(picture.shape[:2])))
    inner = np.ones(picture.shape[:2], bool)
    inner[width:-width, width:-width] = False
    return np.median(picture[inner], axis=0)


def _thing(picture: Array, mask: Array, away: Array) -> SeenThing:
    """mask: where the picture differs from the background; the thing ends halfway between both colours. away: distance from the background."""
    depth = ndimage.distance_transform_edt(mask)
    inner = depth >= depth.max() / 2  # with an outline, the colour is in the middle
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
    """Overlap with the shape of the same area and centre. The picture is square, or is treated as part of a square."""
    side = max(mask.shape)
    unit = cover_of(Thing(shape, "red", "large", 0.5, 0.5, 0.3), 128)
    area, cy, cx = unit.mean(), *((np.array(ndimage.center_of_mass(unit)) + 0.5) / 128)
    scale = np.sqrt(mask.sum() / side**2 / area)
    ideal = Thing(shape, "red", "large", x - scale * (cx - 0.5), y - scale * (cy - 0.5), 0.3 * scale)
    cover = cover_of(ideal, side)[: mask.shape[0], : mask.shape[1]]
    return float(np.minimum(cover, mask).sum() / np.maximum(cover, mask).sum())


def _triple(rgb: Array) -> tuple[float, float, float]:
    return float(rgb[0]), float(rgb[1]), float(rgb[2])
