"""Every kind of picture that a server may send, and data that only claims to be a picture."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.downloads.url_image import MOST_PIXELS, decode_image, load_image
from reference.scripts import read_like_host, soft_picture
from support.picture_server import Door, PictureServer, body, picture_server
from support.without_host import ListeningMonitor, Stopped


@pytest.fixture(scope="module")
def server() -> Iterator[PictureServer]:
    with picture_server() as running:
        yield running


def saved(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    output = BytesIO()
    picture.save(output, kind, **options)
    return output.getvalue()


def with_alpha() -> Image.Image:
    picture = soft_picture(40, 24).convert("RGBA")
    picture.putalpha(Image.fromarray(np.linspace(0, 255, 40 * 24).astype(np.uint8).reshape(24, 40)))
    return picture


def test_a_download_is_what_the_host_loads(server: PictureServer) -> None:
    server.answers["/cat.exe"] = body(saved(soft_picture(40, 24)), kind="text/html")
    monitor = ListeningMonitor()
    loaded = load_image(server.url("/cat.exe"), monitor, network=Door())
    assert torch.equal(loaded.image, read_like_host(soft_picture(40, 24)))
    assert torch.equal(loaded.mask, torch.zeros(1, 24, 40))
    assert monitor.steps


def test_a_cancel_while_it_comes(server: PictureServer) -> None:
    server.answers["/cat"] = body(saved(soft_picture(40, 24)))
    with pytest.raises(Stopped):
        load_image(server.url("/cat"), ListeningMonitor(stop_after=1), network=Door())


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_formats(kind: str) -> None:
    content = saved(soft_picture(40, 24), kind)
    loaded = decode_image(content)
    expected = np.asarray(Image.open(BytesIO(content)).convert("RGB")).astype(np.float32) / 255
    assert torch.equal(loaded.image, torch.from_numpy(expected)[None])
    assert loaded.image.dtype == loaded.mask.dtype == torch.float32
    assert loaded.mask.shape == (1, 24, 40)
    assert not loaded.mask.any()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_becomes_the_mask_and_leaves_the_picture(mode: str) -> None:
    picture = with_alpha().convert(mode)
    loaded = decode_image(saved(picture))
    assert torch.equal(loaded.image, read_like_host(picture.convert("RGB")))
    alpha = torch.from_numpy(np.asarray(picture.getchannel("A")).astype(np.float32) / 255)
    assert torch.equal(loaded.mask[0], 1 - alpha)
    assert loaded.mask.max() == 1


@pytest.mark.parametrize(("mode", "key"), [("P", 0), ("L", 0), ("RGB", (0, 0, 0))])
def test_one_transparent_colour(mode: str, key: Any) -> None:
    pixels = np.zeros((4, 6), np.uint8)
    pixels[:, 3:] = 200
    picture = Image.fromarray(pixels).convert(mode)
    if mode == "P":
        key = picture.getpixel((0, 0))
    mask = decode_image(saved(picture, transparency=key)).mask
    assert mask[0, :, :3].min() == 1
    assert mask[0, :, 3:].max() == 0


def test_sixteen_bits_are_not_cut_off() -> None:
    values = np.array([[0, 257 * 100, 1000, 65535]], np.uint16)
    image = decode_image(saved(Image.fromarray(values))).image
    assert image.shape == (1, 1, 4, 3)
    assert torch.allclose(image[0, 0, :, 1], torch.tensor([0, 100 / 255, 1000 / 65535, 1.0]), atol=1e-7)
    with pytest.raises(RelayError, match=r"url: .*floating-point values"):
        decode_image(saved(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    upright = np.zeros((2, 3, 3), np.uint8)
    upright[0, 0] = 255  # the top left corner, and the pixel below it at half brightness
    upright[1, 0] = 128
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(undo(upright)))
    loaded = decode_image(saved(stored, exif=exif))
    assert torch.equal(loaded.image[0], torch.from_numpy(upright.astype(np.float32) / 255))
    assert loaded.mask.shape == (1, 2, 3)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_several(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black", "red")]
    content = saved(frames[0], kind, save_all=True, append_images=frames[1:])
    assert torch.equal(decode_image(content).image, torch.ones(1, 8, 8, 3))


def png_header(width: int, height: int, after: bytes = b"") -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + after + chunk(b"IDAT", after or b"x") + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8200, 12_000, 60_000, 2**31 - 1])
def test_a_bomb_is_not_unpacked(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def unpacked(*_: object) -> None:
        raise AssertionError("unpacked")

    monkeypatch.setattr(Image.Image, "load", unpacked)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", unpacked)
    assert side * side > MOST_PIXELS
    with pytest.raises(RelayError, match=r"url: the image (is|has more than) .*pixels.*smaller"):
        decode_image(png_header(side, side))


def test_a_bomb_of_text_is_refused() -> None:
    text = b"comment\0\0" + zlib.compress(b"\0" * (1 << 27))
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    whole = saved(Image.new("L", (8, 8)))
    with pytest.raises(RelayError, match="url: the image is damaged"):
        decode_image(whole[:33] + chunk + whole[33:])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html><body>a cat</body></html>",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        b"%PDF-1.4",
        b"\x89PNG\r\n\x1a\n",
        bytes(1000),
    ],
    ids=["nothing", "page", "svg", "eps", "pdf", "signature", "zeros"],
)
def test_what_is_no_picture(content: bytes) -> None:
    with pytest.raises(RelayError, match=r"url: (this is not an image \(\d+ bytes\).*PNG, JPEG|the image is damaged)"):
        decode_image(content)


def test_a_format_that_needs_another_program_is_not_tried() -> None:
    content = saved(Image.new("RGB", (8, 8)), "EPS")
    assert Image.open(BytesIO(content)).format == "EPS"
    with pytest.raises(RelayError, match="not an image"):
        decode_image(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_half_a_picture(kind: str) -> None:
    content = saved(soft_picture(200, 200), kind)
    with pytest.raises(RelayError, match=r"url: (the image is damaged|this is not an image)"):
        decode_image(content[: len(content) // 2])
