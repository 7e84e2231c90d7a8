"""Pictures in and out: sizes, channels, unusual values, grids."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.images import (
    Extent,
    as_rgb,
    check_extent,
    grid,
    joined,
    to_host_images,
    to_pil,
    to_pixels,
)
from reference.scripts import read_like_host, soft_picture


@pytest.mark.parametrize(
    ("width", "height", "multiple", "nearest"),
    [
        (100, 64, 8, (104, 64)),
        (99, 67, 8, (96, 64)),
        (1, 1, 64, (64, 64)),
        (95, 97, 64, (64, 128)),
        (96, 64, 64, (128, 64)),
    ],
)
def test_the_nearest_size(width: int, height: int, multiple: int, nearest: tuple[int, int]) -> None:
    assert Extent(width, height).nearest(multiple) == Extent(*nearest)
    with pytest.raises(RelayError, match=f"{width}x{height}.*{nearest[0]}x{nearest[1]}"):
        check_extent(Extent(width, height), multiple, "A model")


def test_sizes_that_fit_and_sizes_that_are_none() -> None:
    check_extent(Extent(64, 128), 64, "A model")
    with pytest.raises(RelayError, match="no pixels"):
        check_extent(Extent(0, 64), 8, "A model")
    with pytest.raises(RelayError, match="too large"):
        check_extent(Extent(64, 4096), 8, "A model", greatest=2048)


def test_channels_are_those_of_the_host_s_vae_encode() -> None:
    rgb = read_like_host(soft_picture(16, 8))
    assert torch.equal(as_rgb(rgb), rgb)
    rgba = torch.cat([rgb, torch.zeros_like(rgb[..., :1])], dim=-1)
    assert torch.equal(as_rgb(rgba), rgb), "alpha is dropped, not blended"
    grey = rgb[..., :1]
    assert torch.equal(as_rgb(grey), grey.expand(-1, -1, -1, 3))


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (torch.zeros(0, 8, 8, 3), "empty"),
        (torch.zeros(1, 0, 8, 3), "no pixels"),
        (torch.zeros(1, 8, 8, 2), "channels"),
        (torch.zeros(8, 8, 3), "expected"),
        (torch.full((1, 8, 8, 3), float("nan")), "NaN"),
        (torch.full((1, 8, 8, 3), float("inf")), "NaN or infinite"),
    ],
)
def test_what_is_no_picture_is_refused(images: torch.Tensor, text: str) -> None:
    with pytest.raises(RelayError, match=f"image: .*{text}"):
        as_rgb(images)


def test_values_outside_0_to_1_are_clamped_and_not_taken_for_another_range() -> None:
    """diffusers assumes -1..1 if a tensor has a negative value."""
    images = torch.full((1, 8, 8, 3), -0.001)
    assert torch.equal(to_pixels(images, 8), torch.full((1, 3, 8, 8), -1.0))


@pytest.mark.parametrize("size", [(64, 64), (72, 64), (101, 77)])
def test_pixels_are_those_that_a_script_s_picture_becomes(size: tuple[int, int]) -> None:
    picture = soft_picture(*size)
    expected = VaeImageProcessor(vae_scale_factor=8).preprocess(picture)
    assert torch.equal(to_pixels(read_like_host(picture), 8), expected)


def test_a_picture_that_is_smaller_than_a_latent_pixel_is_refused() -> None:
    with pytest.raises(RelayError, match="smaller than one latent pixel"):
        to_pixels(torch.zeros(1, 7, 64, 3), 8)


def test_pil_and_back_is_exact_for_8_bits() -> None:
    values = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    assert np.array_equal(np.array(to_pil(read_like_host(Image.fromarray(values))[0])), values)


def test_decoded_pictures_become_images_as_output_type_pt_does() -> None:
    decoded = torch.randn(2, 3, 8, 16)
    expected = VaeImageProcessor().postprocess(decoded, output_type="pt").permute(0, 2, 3, 1)
    images = to_host_images(decoded)
    assert torch.equal(images, expected)
    assert images.shape == (2, 8, 16, 3)
    assert 0 <= float(images.min()) <= float(images.max()) <= 1


def numbered(count: int, height: int = 2, width: int = 3) -> torch.Tensor:
    return torch.arange(count).float().reshape(count, 1, 1, 1).expand(count, height, width, 3)


@pytest.mark.parametrize(
    ("count", "rows", "columns", "layout"),
    [
        (4, 2, 2, [[0, 1], [2, 3]]),
        (3, 1, 0, [[0, 1, 2]]),
        (3, 0, 1, [[0], [1], [2]]),
        (6, 2, 3, [[0, 1, 2], [3, 4, 5]]),
        (4, 0, 0, [[0, 1], [2, 3]]),
        (6, 0, 0, [[0, 1, 2], [3, 4, 5]]),
        (5, 0, 0, [[0, 1, 2, 3, 4]]),
        (1, 1, 1, [[0]]),
    ],
)
def test_a_grid_goes_row_by_row(count: int, rows: int, columns: int, layout: list[list[int]]) -> None:
    made = grid(numbered(count), rows, columns)
    assert made.shape == (1, 2 * len(layout), 3 * len(layout[0]), 3)
    assert made[0, ::2, ::3, 0].tolist() == layout


def test_a_grid_is_what_make_image_grid_makes() -> None:
    from diffusers.utils import make_image_grid

    pictures = [soft_picture(8, 4, seed) for seed in range(6)]
    images = torch.cat([read_like_host(picture) for picture in pictures])
    expected = read_like_host(make_image_grid(pictures, rows=2, cols=3))
    assert torch.equal(grid(images, 2, 3), expected)


@pytest.mark.parametrize(("count", "rows", "columns"), [(4, 2, 3), (4, 3, 1), (4, 3, 0), (0, 1, 1), (4, -1, -4)])
def test_a_grid_of_another_number_of_cells_is_refused(count: int, rows: int, columns: int) -> None:
    with pytest.raises(RelayError, match="rows, columns"):
        grid(numbered(count), rows, columns)


def test_pictures_and_batches_are_joined_in_the_order_of_their_inputs() -> None:
    one, two, three = numbered(1), numbered(3)[1:], numbered(4)[3:]
    assert torch.equal(joined({"images": one, "image_2": two, "image_4": three}), numbered(4))
    assert joined({"images": one}) is one


def test_a_picture_of_another_size_is_refused() -> None:
    """The grid is for comparing, so nothing is scaled or cropped silently."""
    with pytest.raises(RelayError, match="image_3: 16x8, but images is 8x8"):
        joined(
            {"images": torch.zeros(1, 8, 8, 3), "image_2": torch.zeros(2, 8, 8, 3), "image_3": torch.zeros(1, 8, 16, 3)}
        )


def test_pictures_with_and_without_alpha_are_joined_as_rgb() -> None:
    rgb, grey = torch.full((1, 4, 4, 3), 0.25), torch.full((1, 4, 4, 1), 0.5)
    rgba = torch.cat([torch.full((1, 4, 4, 3), 0.75), torch.zeros(1, 4, 4, 1)], dim=-1)
    expected = torch.tensor([0.25, 0.75, 0.5]).reshape(3, 1, 1, 1).expand(-1, 4, 4, 3)
    assert torch.equal(joined({"images": rgb, "image_2": rgba, "image_3": grey}), expected)
    assert joined({"images": rgba, "image_2": rgba}).shape[-1] == 4
