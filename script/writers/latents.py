"""Latents: decoded, encoded, converted, scaled, masked."""

from __future__ import annotations

from dataclasses import replace

from ..inputs import Inputs
from ..literals import literal, number
from ..script import Script
from ..values import Latent, Mask, Model, Picture
from .sampling import FACTOR


def decode(inputs: Inputs, script: Script) -> tuple[Picture]:
    model, latent, tiled = inputs.value("model", Model), inputs.value("latent", Latent), inputs.flag("tiled", False)
    of = model if script.reads(model, latent) else latent.model
    assert of is not None
    if of is not model:
        script.line(f"# with the autoencoder of {of.loaded.name}, whose latents these are")
    return (script.decoded(latent, of, tiled=tiled, name=script.new("picture")),)


def encode(inputs: Inputs, script: Script) -> tuple[Latent]:
    model, picture, seed = inputs.value("model", Model), inputs.value("image", Picture), inputs.whole("seed", 0)
    return (encoded(script, model, picture, seed),)


def encoded(script: Script, model: Model, picture: Picture, seed: int | None) -> Latent:
    """seed None: the most likely latents."""
    picture = script.fitted(picture, FACTOR)
    pipeline = script.plain_pipeline(model)
    name = script.new("latents")
    if model.family.takes_image_embeds:
        script.assign(name, script.page.part("encode_movq"), [pipeline, picture.name])
    else:
        generators = [] if seed is None else [script.generators(seed, picture.batch)]
        lists = [one if one.startswith("seeded(") else f"[{one}]" for one in generators]
        script.assign(name, script.page.part("encode"), [pipeline, picture.name, *lists])
    return Latent(name, model, picture.batch, picture.size)


def convert(inputs: Inputs, script: Script) -> tuple[Latent]:
    model, latent = inputs.value("model", Model), inputs.value("latent", Latent)
    if script.reads(model, latent):
        script.line(f"# {latent.name} is in the space of {model.loaded.name} already")
        return (replace(latent, model=model),)
    assert latent.model is not None
    if latent.noise_left is not None:
        raise script.refuse("the latent still holds noise, so it can't be converted.")
    picture = script.decoded(latent, latent.model)
    return (replace(encoded(script, model, picture, None), mask=latent.mask, indices=latent.indices),)


def latent_upscale(inputs: Inputs, script: Script) -> tuple[Latent]:
    latent, method = inputs.value("samples", Latent), _method(inputs)
    width, height = inputs.whole("width"), inputs.whole("height")
    crop = inputs.choice("crop", ("disabled", "center"))
    if not (width and height):
        raise script.refuse("a width or height of 0 can't be written as a script yet.")
    size = (max(64, width) // 8, max(64, height) // 8)
    return (_scaled(script, latent, str(size[0]), str(size[1]), method, crop == "center", (size[0] * 8, size[1] * 8)),)


def latent_upscale_by(inputs: Inputs, script: Script) -> tuple[Latent]:
    latent, method, factor = inputs.value("samples", Latent), _method(inputs), inputs.number("scale_by")
    if latent.size is not None:
        sides = [round(side // 8 * factor) for side in latent.size]
        size = (sides[0] * 8, sides[1] * 8)
        return (_scaled(script, latent, str(sides[0]), str(sides[1]), method, False, size),)
    width, height = (f"round({latent.name}.shape[{axis}] * {number(factor)})" for axis in (-1, -2))
    return (_scaled(script, latent, width, height, method, False, None),)


def _method(inputs: Inputs) -> str:
    return inputs.choice("upscale_method", ("nearest-exact", "bilinear", "area", "bicubic", "bislerp"))


def _scaled(
    script: Script, latent: Latent, width: str, height: str, method: str, crop: bool, size: tuple[int, int] | None
) -> Latent:
    name, source = script.new("latents"), latent.name
    if crop:
        source = f"{script.page.part('cut_to_shape')}({source}, {width}, {height})"
    if method == "bislerp":
        script.assign(name, script.page.part("turned_and_scaled"), [source, width, height])
    else:
        script.assign(name, script.page.part("scaled"), [source, width, height, literal(method)])
    return replace(latent, name=name, size=size, noise_left=None)


def empty_latent(inputs: Inputs, script: Script) -> tuple[Latent]:
    width, height, batch = inputs.whole("width"), inputs.whole("height"), inputs.whole("batch_size", 1)
    name = script.new("latents")
    script.line(f"{name} = torch.zeros({batch}, 4, {height // 8}, {width // 8})")
    return (Latent(name, None, batch, (width // 8 * 8, height // 8 * 8)),)


def set_noise_mask(inputs: Inputs, script: Script) -> tuple[Latent]:
    latent, mask = inputs.value("samples", Latent), inputs.value("mask", Mask)
    script.line(f"# only where {mask.name} is 1, {latent.name} will be repainted")
    return (replace(latent, mask=mask),)
