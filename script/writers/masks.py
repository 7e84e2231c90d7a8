"""ComfyUI's nodes for masks."""

from __future__ import annotations

from ..inputs import Inputs
from ..literals import literal
from ..script import Script
from ..values import Mask, Picture

OPERATIONS = ("multiply", "add", "subtract", "and", "or", "xor")
CHANNELS = ("red", "green", "blue")


def solid_mask(inputs: Inputs, script: Script) -> tuple[Mask]:
    value, width, height = inputs.number("value"), inputs.whole("width"), inputs.whole("height")
    name = script.new("mask")
    script.line(f"{name} = torch.full((1, 1, {height}, {width}), {literal(value)})")
    return (Mask(name, 1, (width, height)),)


def invert_mask(inputs: Inputs, script: Script) -> tuple[Mask]:
    mask, name = inputs.value("mask", Mask), script.new("mask")
    script.line(f"{name} = 1 - {mask.name}")
    return (Mask(name, mask.batch, mask.size),)


def mask_composite(inputs: Inputs, script: Script) -> tuple[Mask]:
    below, above = inputs.value("destination", Mask), inputs.value("source", Mask)
    x, y, operation = inputs.whole("x"), inputs.whole("y"), inputs.choice("operation", OPERATIONS)
    name = script.new("mask")
    script.assign(name, script.page.part("combined"), [below.name, above.name, str(x), str(y), literal(operation)])
    return (Mask(name, below.batch, below.size),)


def grow_mask(inputs: Inputs, script: Script) -> tuple[Mask]:
    mask, pixels = inputs.value("mask", Mask), inputs.whole("expand")
    rounded, name = inputs.flag("tapered_corners", True), script.new("mask")
    script.assign(name, script.page.part("grown"), [mask.name, str(pixels), literal(rounded)])
    return (Mask(name, mask.batch, mask.size),)


def mask_to_image(inputs: Inputs, script: Script) -> tuple[Picture]:
    mask, name = inputs.value("mask", Mask), script.new("picture")
    script.line(f"{name} = {mask.name}.repeat(1, 3, 1, 1)")
    return (Picture(name, mask.batch, mask.size),)


def image_to_mask(inputs: Inputs, script: Script) -> tuple[Mask]:
    picture, channel = inputs.value("image", Picture), inputs.choice("channel", CHANNELS)
    at, name = CHANNELS.index(channel), script.new("mask")
    script.line(f"{name} = {picture.name}[:, {at}:{at + 1}]")
    return (Mask(name, picture.batch, picture.size),)
