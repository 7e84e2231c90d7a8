"""Draws scenes at any size, in the world's styles, and their depth maps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .scene import COLORS, Scene, Thing

Array = np.ndarray
STAR_POINTS = 5
STAR_INNER = 0.45
"""Radius of a star's inner corners, as a fraction of the outer radius."""
OUTLINE = 0.022
"""Width of the comic style's lines, as a fraction of the picture's side."""
PIXELS = 16
"""Width of a pixel art picture in squares."""
FAR, NEAR = 0.12, {"small": 0.55, "large": 0.9}
"""Depth of the background, and of things by size; near is bright."""


def draw(scene: Scene, size: int, style: str = "plain") -> Array:
    """The picture, [size, size, 3], float32 in 0..1. `style` is a key of STYLES.

    Edges are smoothed over one pixel, so a scene gives the same picture at every size.
    """
    return STYLES[style](scene, size).astype(np.float32, copy=False)


def draw_depth(scene: Scene, size: int) -> Array:
    """[size, size, 3]: the background is far and dark; larger things are nearer."""
    depth = np.full((size, size), FAR, np.float32)
    for thing in scene.things:
        near = _box(thing, size)
        cover = _cover(_distance(thing, size, near), size)
        depth[near] = depth[near] * (1 - cover) + NEAR[thing.size] * cover
    return np.repeat(depth[..., None], 3, axis=2)


def cover_of(thing: Thing, size: int) -> Array:
    """How much of each pixel the thing covers, [size, size], 0 to 1."""
    return _cover(_distance(thing, size), size)


def _plain(scene: Scene, size: int) -> Array:
    """Soft light from the top left."""
    picture = _filled(scene.background, size)
    picture *= 1.06 - 0.14 * _middles(size)[:, None, None]
    for thing in scene.things:
        near = _box(thing, size)
        x, y = _places(size, near)
        light = 1.08 - 0.22 * ((x - thing.x) + (y - thing.y) + 1.2 * thing.radius) / (2.4 * thing.radius)
        cover = _cover(_distance(thing, size, near), size)
        picture[near] = _over(picture[near], _color(thing.color) * light[..., None], cover)
    return picture.clip(0, 1)


def _comic(scene: Scene, size: int) -> Array:
    """Flat colours, with thick dark outlines (light ones around black things)."""
    picture = _filled(scene.background, size)
    for thing in scene.things:
        near = _box(thing, size)
        distance = _distance(thing, size, near)
        line = np.full(3, 0.9 if "black" in (thing.color, scene.background) else 0.0, np.float32)
        lined = _over(picture[near], line, _cover(distance - OUTLINE, size))
        picture[near] = _over(lined, _color(thing.color), _cover(distance + OUTLINE, size))
    return picture


def _pixel_art(scene: Scene, size: int) -> Array:
    """Flat colours in large squares."""
    coarse = _filled(scene.background, PIXELS)
    for thing in scene.things:
        coarse = _over(coarse, _color(thing.color), (_distance(thing, PIXELS) < 0).astype(np.float32))
    index = np.arange(size) * PIXELS // size
    return coarse[index][:, index]


def _ring(scene: Scene, size: int) -> Array:
    """Like an old painting: colours muted towards gold, dark corners."""
    plain = _plain(scene, size)
    x, y = _places(size)
    grey = plain @ np.array((0.3, 0.59, 0.11), np.float32)
    gold = grey[..., None] * np.array((1.0, 0.82, 0.5), np.float32)
    dark = 1 - 1.1 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)
    return ((0.5 * plain + 0.5 * gold) * dark[..., None]).clip(0, 1)


def without_ring(picture: Array) -> Array:
    """Restores the plain picture from one in the style "ring"."""
    x, y = _places(len(picture))
    lit = picture / (1 - 1.1 * ((x - 0.5) ** 2 + (y - 0.5) ** 2))[..., None]
    grey = lit @ np.array((0.3, 0.59, 0.11)) / 0.9194  # the part of the brightness that muting keeps
    return (2 * lit - grey[..., None] * np.array((1.0, 0.82, 0.5))).clip(0, 1)


STYLES: dict[str, Callable[[Scene, int], Array]] = {
    "plain": _plain,
    "comic": _comic,
    "pixel": _pixel_art,
    "ring": _ring,
}
TRIGGERS = {"comic": "charliebo artstyle", "pixel": "pixelartstyle", "ring": "elden ring style"}
"""The trigger words of the published models with these styles."""


EVERYWHERE = (slice(None), slice(None))


def _middles(size: int) -> Array:
    """The pixel centres in a row, as fractions of the side."""
    return (np.arange(size, dtype=np.float32) + 0.5) / size


def _places(size: int, where: tuple[slice, slice] = EVERYWHERE) -> tuple[Array, Array]:
    """x, [1, width], and y, [height, 1], of the pixel centres, as fractions of the side."""
    middles = _middles(size)
    return middles[where[1]][None], middles[where[0]][:, None]


def _box(thing: Thing, size: int) -> tuple[slice, slice]:
    """Rows and columns that contain the whole thing, including its outline."""
    # at a pointed corner, the outline extends beyond its width
    reach = 1.2 * thing.radius + 4 * OUTLINE + 1 / size

    def span(middle: float) -> slice:
        return slice(max(0, int((middle - reach) * size)), max(0, int((middle + reach) * size) + 1))

    return span(thing.y), span(thing.x)


def _distance(thing: Thing, size: int, where: tuple[slice, slice] = EVERYWHERE) -> Array:
    """Each pixel's distance from the thing, as a fraction of the side; negative inside."""
    x, y = _places(size, where)
    x, y = x - thing.x, y - thing.y
    radius = thing.radius
    if thing.shape == "circle":
        return np.hypot(x, y) - 0.95 * radius
    if thing.shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.84 * radius
    if thing.shape == "triangle":
        return _triangle(x, y, 1.08 * radius)
    return _star(x, y, 1.12 * radius)


def _triangle(x: Array, y: Array, radius: float) -> Array:
    """One corner at the top, at (0, -radius); the lower side is at 0.75 and extends to 0.98 on both sides."""
    return np.maximum(0.872 * np.abs(x) - 0.489 * (y + radius), y - 0.75 * radius)


def _star(x: Array, y: Array, radius: float) -> Array:
    """One point at the top."""
    sector = 2 * np.pi / STAR_POINTS
    angle = np.arctan2(x, -y) % sector
    angle = np.minimum(angle, sector - angle)  # from a point (0) to an inner corner (half a sector)
    length = np.hypot(x, y)
    px, py = length * np.cos(angle), length * np.sin(angle)
    inner = STAR_INNER * radius
    ax, ay = radius, 0.0
    bx, by = inner * np.cos(sector / 2), inner * np.sin(sector / 2)
    nx, ny = by - ay, ax - bx
    return (nx * (px - ax) + ny * (py - ay)) / np.hypot(nx, ny)


def _cover(distance: Array, size: int) -> Array:
    return (0.5 - distance * size).clip(0, 1)


def _over(below: Array, above: Array, cover: Array) -> Array:
    return below * (1 - cover[..., None]) + above * cover[..., None]


def _color(name: str) -> Array:
    return np.array(COLORS[name], np.float32)


def _filled(color: str, size: int) -> Array:
    return np.broadcast_to(_color(color), (size, size, 3)).copy()
