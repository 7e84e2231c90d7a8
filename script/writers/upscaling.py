"""The two upscalers: latents to twice their size, pictures to four times."""

from __future__ import annotations

from ...pipelines.model.family import Task
from ..inputs import Inputs
from ..literals import call, number
from ..script import Script
from ..values import Latent, Model, Picture, Prompt
from .sampling import FACTOR

MULTIPLE, LEAST = 4, 8
"""Of latent pixels: what the UNet of the published x2 upscaler can halve at each of its four levels."""
WHOLE = MULTIPLE * FACTOR


def latent_upscale(inputs: Inputs, script: Script) -> tuple[Latent]:
    model, prompt = inputs.value("model", Model), inputs.value("prompt", Prompt)
    latent, seed = inputs.value("latent", Latent), inputs.whole("seed")
    steps, scale = inputs.whole("steps"), inputs.number("guidance_scale")
    if latent.noise_left is not None:
        raise script.refuse("the latent still holds noise.")
    pipeline = script.pipeline(model, Task.LATENT_UPSCALE)
    generators = script.generators(seed, latent.batch, latent.indices)
    begin = latent.name
    if not script.reads(model, latent):
        assert latent.model is not None
        script.line(f"# {model.loaded.title} can't read these latents: they go through a picture")
        picture = script.fitted(script.decoded(latent, latent.model), FACTOR)
        drawn = script.page.name("generators")
        script.line(f"{drawn} = {generators if generators.startswith('seeded(') else f'[{generators}]'}")
        generators, begin = drawn, script.page.name(f"{picture.name}_latents")
        script.assign(begin, script.page.part("encode"), [pipeline, picture.name, generators])
    size = latent.size
    fits = size is not None and all(side % WHOLE == 0 and side >= LEAST * FACTOR for side in size)
    whole = begin
    if not fits:
        begin = script.page.name(f"{whole}_padded")
        script.assign(begin, script.page.part("padded"), [whole, str(MULTIPLE), str(LEAST)])
    given = f"**{prompt.name}"
    if latent.batch > 1:
        given = f"**{{key: [text] * {latent.batch} for key, text in {prompt.name}.items()}}"
    name = script.new("latents")
    arguments = [
        given,
        f"image={begin}",
        f"num_inference_steps={steps}",
        f"guidance_scale={number(scale)}",
        f"generator={generators}",
        'output_type="latent"',
    ]
    script.assign(name, pipeline, arguments, ".images")
    if not fits:
        script.line(f"{name} = {name}[..., : 2 * {whole}.shape[-2], : 2 * {whole}.shape[-1]]")
    doubled = None if size is None else (2 * size[0], 2 * size[1])
    return (Latent(name, model, latent.batch, doubled, None, latent.mask, latent.indices),)


def super_resolution(inputs: Inputs, script: Script) -> tuple[Picture]:
    model, prompt = inputs.value("model", Model), inputs.value("prompt", Prompt)
    steps, scale = inputs.whole("steps"), inputs.number("guidance_scale")
    level, seed, tile = inputs.whole("noise_level", 20), inputs.whole("seed"), inputs.whole("tile_size", 0)
    picture, latent = inputs.optional("image", Picture), inputs.optional("latent", Latent)
    if (picture is None) == (latent is None):
        raise script.refuse("connect exactly one of image and latent.")
    pipeline = script.pipeline(model, Task.SUPER_RESOLUTION)
    indices = None
    if latent is not None:
        if latent.model is None or latent.noise_left is not None:
            raise script.refuse("its latent has no known model, or still holds noise.")
        indices = latent.indices
        script.line("# this upscaler takes pictures, so the latents are decoded first")
        large = bool(tile) and (latent.size is None or max(latent.size) > tile)
        picture = script.decoded(latent, latent.model, tiled=large)
    assert picture is not None
    size = picture.size
    in_tiles = tile > 0 and (size is None or max(size) > tile)
    fits = size is not None and size[0] % 4 == 0 and size[1] % 4 == 0
    source = picture.name
    if not fits and in_tiles:
        raise script.refuse(
            "tiles need a picture whose size is known here and divisible by 4: scale it by Upscale Image."
        )
    if in_tiles:
        unet = f"{script.page.part('InTiles')}({pipeline}.unet, {tile})"
        painter = script.page.name(f"{pipeline}_in_tiles")
        script.assign(painter, script.page.part("with_unet"), [pipeline, unet])
    else:
        painter = pipeline
    generators = script.generators(seed, picture.batch, indices)
    many = picture.batch > 1
    one = "one" if many else source
    arguments = [
        f"**{prompt.name}",
        f"image={one if fits else script.page.part('to_pil') + f'({one})'}",
        f"noise_level={level}",
        f"num_inference_steps={steps}",
        f"guidance_scale={number(scale)}",
        f"generator={'generator' if many else generators}",
        'output_type="latent"' if in_tiles else 'output_type="pt"',
    ]
    name = script.new("picture")
    if many:
        script.line(f"{name} = []")
        script.line(f"for one, generator in zip({source}.split(1), {generators}):")
        painted = f"{call(painter, arguments, 40)}.images"
        if in_tiles:
            painted = f"{script.page.part('decode_in_tiles')}({pipeline}, {painted}, {tile})"
        script.line("    " + f"{name}.append({painted})".replace("\n", "\n    "))
        script.line(f"{name} = torch.cat({name}).float().cpu()")
    elif in_tiles:
        latents = script.page.name(f"{name}_latents")
        script.assign(latents, painter, arguments, ".images")
        script.assign(name, script.page.part("decode_in_tiles"), [pipeline, latents, str(tile)])
    else:
        script.assign(name, painter, arguments, ".images.float().cpu()")
    bigger = None if size is None else (size[0] // 4 * 16, size[1] // 4 * 16)
    return (Picture(name, picture.batch, bigger),)
