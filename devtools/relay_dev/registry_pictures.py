"""Draws the icon and the banner of the pack's page in the registry: `PYTHONPATH=devtools python -m relay_dev.registry_pictures`."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from relay_host.paths import ROOT

ICON = ROOT / "docs" / "icon.png"
BANNER = ROOT / "docs" / "banner.png"
ICON_SIDE = 400
"""Pixels: the most that the registry takes."""
BANNER_SIZE = (1680, 720)
"""Pixels: 21:9, as the registry shows it."""
FINER = 4
"""Everything is drawn this many times larger and then scaled down."""
NIGHT = ((30, 27, 58), (14, 14, 24))
"""The background's colours, top left and bottom right."""
SKY = ((255, 94, 122), (255, 190, 92))
SUN = (255, 246, 214)
HILLS = ((84, 46, 120), (44, 28, 84))
WIRE = (255, 156, 249)
"""The colour of a LATENT link in ComfyUI."""
TEXT = (244, 241, 255)
QUIET_TEXT = (178, 170, 214)
GRAINS = 7
"""Grains of noise along a side of a picture."""


def gradient(
    size: tuple[int, int], start: tuple[int, int, int], end: tuple[int, int, int], slant: float
) -> Image.Image:
    """From ``start`` at the top to ``end`` at the bottom; with ``slant`` 1, also from left to right."""
    width, height = size
    down, across = np.mgrid[0:height, 0:width]
    share = (down / height + slant * across / width) / (1 + slant)
    colours = np.array(start) + share[..., None] * (np.array(end) - np.array(start))
    return Image.fromarray(colours.astype(np.uint8))


def scene(side: int, noise: float, grains: int) -> Image.Image:
    """A sun over hills, of which ``noise`` (0 to 1) is coarse coloured noise."""
    picture = gradient((side, side), *SKY, slant=0)
    draw = ImageDraw.Draw(picture)
    draw.ellipse([side * 0.36, side * 0.2, side * 0.68, side * 0.52], fill=SUN)
    draw.ellipse([side * -0.45, side * 0.56, side * 0.75, side * 1.6], fill=HILLS[0])
    draw.ellipse([side * 0.25, side * 0.66, side * 1.5, side * 1.7], fill=HILLS[1])
    colours = np.random.default_rng(7).integers(0, 256, (grains, grains, 3), dtype=np.uint8)
    coarse = Image.fromarray(colours).resize((side, side), Image.Resampling.NEAREST)
    return Image.blend(picture, coarse, noise)


def chain(canvas: Image.Image, centres: list[tuple[float, float]], side: int, grains: int = GRAINS) -> None:
    """Draws pictures of this side, from noise to a clean one, and the wire from each to the next."""
    draw = ImageDraw.Draw(canvas)
    thick = side * 0.085
    for (left, top), (right, bottom) in pairwise(centres):
        a, b = (left + side / 2, top), (right - side / 2, bottom)
        reach = max(side * 0.5, (b[0] - a[0]) * 0.6)
        points = [spline(a, b, reach, step / 400) for step in range(401)]
        for x, y in points:
            draw.ellipse([x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2], fill=WIRE)
    for (x, y), noise in zip(centres, np.linspace(1, 0, len(centres)), strict=True):
        tile = scene(side, float(noise), grains)
        shape = Image.new("L", (side, side))
        ImageDraw.Draw(shape).rounded_rectangle([0, 0, side - 1, side - 1], side * 0.2, fill=255)
        canvas.paste(tile, (round(x - side / 2), round(y - side / 2)), shape)
    for number, (x, y) in enumerate(centres):
        for end in ([-1] if number else []) + ([1] if number < len(centres) - 1 else []):
            socket(draw, x + end * side / 2, y, thick)


def spline(a: tuple[float, float], b: tuple[float, float], reach: float, t: float) -> tuple[float, float]:
    """The point at ``t`` (0 to 1) of the curve that leaves ``a`` to the right and reaches ``b`` from the left."""
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
    xs, ys = (a[0], a[0] + reach, b[0] - reach, b[0]), (a[1], a[1], b[1], b[1])
    return sum(w * x for w, x in zip(weights, xs, strict=True)), sum(w * y for w, y in zip(weights, ys, strict=True))


def socket(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float) -> None:
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=WIRE, outline=NIGHT[1], width=round(radius / 3))


def draw_icon() -> Image.Image:
    side = ICON_SIDE * FINER
    canvas = gradient((side, side), *NIGHT, slant=1)
    chain(canvas, [(side * 0.28, side * 0.7), (side * 0.72, side * 0.3)], round(side * 0.4), grains=5)
    corners = Image.new("L", (side, side))
    ImageDraw.Draw(corners).rounded_rectangle([0, 0, side - 1, side - 1], side * 0.18, fill=255)
    canvas.putalpha(corners)
    return canvas.resize((ICON_SIDE, ICON_SIDE), Image.Resampling.LANCZOS)


def draw_banner() -> Image.Image:
    width, height = (value * FINER for value in BANNER_SIZE)
    canvas = gradient((width, height), *NIGHT, slant=1)
    tile = round(height * 0.36)
    chain(canvas, [(width * share, height * 0.33) for share in (0.2, 0.5, 0.8)], tile)
    draw = ImageDraw.Draw(canvas)
    for text, size, y, colour in (
        ("Diffusers Relay", 0.15, 0.72, TEXT),
        ("Hugging Face diffusers on ComfyUI's canvas, from model to model", 0.053, 0.87, QUIET_TEXT),
    ):
        # Pillow's own font, so that the picture is the same on every machine.
        font = ImageFont.load_default(height * size)
        draw.text((width / 2, height * y), text, font=font, fill=colour, anchor="mm")
    return canvas.resize(BANNER_SIZE, Image.Resampling.LANCZOS)


if __name__ == "__main__":
    draw_icon().save(ICON, optimize=True)
    draw_banner().save(BANNER, optimize=True)
