"""Pictures: loaded, scaled, put together and saved, by nodes of ComfyUI and of this pack."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from ..inputs import Inputs
from ..literals import listed, literal, number, variable
from ..script import Script
from ..values import Mask, Picture, Size

METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")
MORE_IMAGES = tuple(f"image_{number}" for number in range(2, 10))


def load_image(inputs: Inputs, script: Script) -> tuple[Picture, Mask | None]:
    file = _file(inputs, script)
    inputs.ignore("upload")
    name = script.new("picture")
    mask = None
    if script.readers(0) or not script.readers(1):
        script.assign(name, script.page.part("load_picture"), [literal(file)])
    if script.readers(1):
        mask = Mask(script.page.name(f"{name}_mask"))
        script.assign(mask.name, script.page.part("load_transparency"), [literal(file)])
    return Picture(name), mask


def load_image_mask(inputs: Inputs, script: Script) -> tuple[Mask]:
    file, channel = _file(inputs, script), inputs.choice("channel", ("alpha", "red", "green", "blue"))
    inputs.ignore("upload")
    name = script.new("mask")
    script.assign(name, script.page.part("load_mask"), [literal(file), literal(channel[0].upper())])
    return (Mask(name),)


def load_image_from_url(inputs: Inputs, script: Script) -> tuple[Picture, None]:
    url, name = inputs.text("url").strip(), script.new("picture")
    if not re.match(r"https?://", url):
        raise script.refuse(f"url: {url!r} is no address that begins with http:// or https://.")
    if script.readers(1):
        raise script.refuse("the mask of a picture from the internet can't be written as a script yet.")
    load = script.page.use("diffusers.utils", "load_image")
    script.line(f"{name} = {script.page.part('to_tensor')}({load}({literal(url)}))")
    return Picture(name), None


def _file(inputs: Inputs, script: Script) -> str:
    file = inputs.text("image")
    annotated = re.fullmatch(r"(.*) \[(input|output|temp)\]", file)
    if annotated and annotated[2] != "input":
        raise script.refuse(f"{file!r} is not in the input folder.")
    file = annotated[1] if annotated else file
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts or "\\" in file:
        raise script.refuse(f"{file!r} is outside of the input folder.")
    return file


def save_image(inputs: Inputs, script: Script) -> tuple[()]:
    picture, prefix = inputs.value("images", Picture), inputs.text("filename_prefix", "ComfyUI")
    script.line(f"{script.page.part('save')}({picture.name}, {literal(_file_name(prefix))})")
    return ()


def preview_image(inputs: Inputs, script: Script) -> tuple[()]:
    picture = inputs.value("images", Picture)
    name = script.page.name(f"preview_{variable(script.node.title, 'image')}")
    script.line(f"{script.page.part('save')}({picture.name}, {literal(name)})")
    return ()


def _file_name(prefix: str) -> str:
    """A prefix that stays in the output folder."""
    parts = [part for part in re.split(r"[\\/]", re.sub(r"[%:\x00-\x1f]", "", prefix)) if part not in ("", ".", "..")]
    return "/".join(parts) or "picture"


def image_scale(inputs: Inputs, script: Script) -> tuple[Picture]:
    picture, method = inputs.value("image", Picture), inputs.choice("upscale_method", METHODS)
    width, height = inputs.whole("width"), inputs.whole("height")
    crop = inputs.choice("crop", ("disabled", "center"))
    if not width and not height:
        script.line("# as it is")
        return (picture,)
    size: Size | None = (width, height)
    sides = [str(width), str(height)]
    if not width:
        sides[0] = f"max(1, round({picture.name}.shape[-1] * {height} / {picture.name}.shape[-2]))"
        size = None
    elif not height:
        sides[1] = f"max(1, round({picture.name}.shape[-2] * {width} / {picture.name}.shape[-1]))"
        size = None
    source, name = picture.name, script.new("picture")
    if crop == "center" and size is not None:
        source = f"{script.page.part('cut_to_shape')}({source}, {width}, {height})"
    script.assign(name, script.page.part("scaled"), [source, *sides, literal(method)])
    return (Picture(name, picture.batch, size),)


def image_scale_by(inputs: Inputs, script: Script) -> tuple[Picture]:
    picture, method = inputs.value("image", Picture), inputs.choice("upscale_method", METHODS)
    factor, name = inputs.number("scale_by"), script.new("picture")
    sides = [f"round({picture.name}.shape[{axis}] * {number(factor)})" for axis in (-1, -2)]
    size = None if picture.size is None else (round(picture.size[0] * factor), round(picture.size[1] * factor))
    if size is not None:
        sides = [str(side) for side in size]
    script.assign(name, script.page.part("scaled"), [picture.name, *sides, literal(method)])
    return (Picture(name, picture.batch, size),)


def image_batch(inputs: Inputs, script: Script) -> tuple[Picture]:
    one, other = inputs.value("image1", Picture), inputs.value("image2", Picture)
    name = script.new("pictures")
    if one.size is not None and one.size == other.size:
        second = other.name
    else:
        # ComfyUI scales the second to the first, by its middle
        second = f"{script.page.part('scaled_like')}({other.name}, {one.name})"
    script.assign(name, "torch.cat", [f"[{one.name}, {second}]"])
    return (Picture(name, one.batch + other.batch, one.size),)


def image_crop(inputs: Inputs, script: Script) -> tuple[Picture]:
    picture = inputs.value("image", Picture)
    width, height = inputs.whole("width"), inputs.whole("height")
    x, y = inputs.whole("x"), inputs.whole("y")
    name = script.new("picture")
    if picture.size is None:
        rows = f"min({y}, {picture.name}.shape[-2] - 1)"
        columns = f"min({x}, {picture.name}.shape[-1] - 1)"
        top, left = script.page.name("top"), script.page.name("left")
        script.line(f"{top}, {left} = {rows}, {columns}")
        script.line(f"{name} = {picture.name}[..., {top} : {top} + {height}, {left} : {left} + {width}]")
        return (Picture(name, picture.batch),)
    x, y = min(x, picture.size[0] - 1), min(y, picture.size[1] - 1)
    script.line(f"{name} = {picture.name}[..., {y}:{y + height}, {x}:{x + width}]")
    size = (min(width, picture.size[0] - x), min(height, picture.size[1] - y))
    return (Picture(name, picture.batch, size),)


def image_composite(inputs: Inputs, script: Script) -> tuple[Picture]:
    below, above = inputs.value("destination", Picture), inputs.value("source", Picture)
    x, y, mask = inputs.whole("x"), inputs.whole("y"), inputs.optional("mask", Mask)
    source = above.name
    if inputs.flag("resize_source", False):
        source = f'torch.nn.functional.interpolate({source}, size={below.name}.shape[-2:], mode="bilinear")'
    name = script.new("picture")
    arguments = [below.name, source, str(x), str(y), *([] if mask is None else [mask.name])]
    script.assign(name, script.page.part("pasted"), arguments)
    return (Picture(name, below.batch, below.size),)


def invert_image(inputs: Inputs, script: Script) -> tuple[Picture]:
    picture, name = inputs.value("image", Picture), script.new("picture")
    script.line(f"{name} = 1 - {picture.name}")
    return (Picture(name, picture.batch, picture.size),)


def empty_image(inputs: Inputs, script: Script) -> tuple[Picture]:
    width, height, batch = inputs.whole("width"), inputs.whole("height"), inputs.whole("batch_size", 1)
    color = inputs.whole("color", 0)
    name = script.new("picture")
    red, green, blue = color >> 16 & 255, color >> 8 & 255, color & 255
    script.line(f"{name} = torch.tensor([{red}, {green}, {blue}]).view(1, 3, 1, 1) / 255")
    script.line(f"{name} = {name}.repeat({batch}, 1, {height}, {width})")
    return (Picture(name, batch, (width, height)),)


def image_grid(inputs: Inputs, script: Script) -> tuple[Picture]:
    first = inputs.value("images", Picture)
    more = [inputs.value(name, Picture) for name in MORE_IMAGES if inputs.has(name)]
    inputs.ignore(*MORE_IMAGES)
    rows, columns = inputs.whole("rows"), inputs.whole("columns")
    pictures = [first, *more]
    count = sum(picture.batch for picture in pictures)
    rows, columns = _cells(script, rows, columns, count)
    together, name = first.name, script.new("picture")
    if more:
        together = script.page.name(f"{name}_cells")
        script.line(f"{together} = {listed([picture.name for picture in pictures], len(together) + 3)}")
        together = f"torch.cat({together})"
    script.assign(name, script.page.part("grid"), [together, f"rows={rows}", f"columns={columns}"])
    size = None if first.size is None else (first.size[0] * columns, first.size[1] * rows)
    return (Picture(name, 1, size),)


def _cells(script: Script, rows: int, columns: int, count: int) -> tuple[int, int]:
    if rows == 0 and columns == 0:
        columns = next(n for n in range(1, count + 1) if n * n >= count)
        columns = next(n for n in range(columns, count + 1) if count % n == 0)
    rows = rows or count // columns
    columns = columns or count // rows
    if rows * columns != count:
        raise script.refuse(f"{count} pictures don't fill {rows} x {columns} cells.")
    return rows, columns
