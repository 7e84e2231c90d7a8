"""The blueprints: whole pipelines as one node, whose inputs are only what one turns. make_blueprints.py makes their files."""

from __future__ import annotations

from collections.abc import Callable

from .blueprint import Blueprint
from .chains import kandinsky_mix, refine, restyle_chain, upscale
from .single import control_by_depth, image_to_image, inpaint, text_to_image

BLUEPRINTS: tuple[Callable[[], Blueprint], ...] = (
    image_to_image,
    text_to_image,
    refine,
    restyle_chain,
    control_by_depth,
    upscale,
    inpaint,
    kandinsky_mix,
)
