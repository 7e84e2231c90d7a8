"""The functions that scripts get a copy of, against what the pack itself does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from diffusers_relay.pipelines.base.images import Extent, grid, to_pixels
from diffusers_relay.pipelines.denoising.masked_picture import fit_repaint_mask
from diffusers_relay.pipelines.denoising.step_callback import fit_mask
from diffusers_relay.pipelines.denoising.tiling import blended, tiles_for
from diffusers_relay.script.part_texts import Import, with_needs


def part(name: str) -> Any:
    """A function as a script has it: made from the text, with the imports that the text needs."""
    parts = with_needs([name])
    imports = {entry for one in parts for entry in one.imports if not entry.module.startswith("compel")}
    text = "\n".join([*map(line, imports), *(one.text for one in parts)])
    scope: dict[str, Any] = {}
    exec(compile(text, name, "exec"), scope)  # noqa: S102
    return scope[name]


def line(entry: Import) -> str:
    alias = f" as {entry.alias}" if entry.alias else ""
    return f"from {entry.module} import {entry.name}{alias}" if entry.name else f"import {entry.module}{alias}"


@pytest.fixture
def numbers() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.mark.parametrize(("width", "height", "size"), [(72, 64, 64), (200, 130, 64), (64, 300, 128)])
def test_tiles_are_blended_as_in_the_pack(numbers: torch.Generator, width: int, height: int, size: int) -> None:
    whole = torch.rand(2, 4, height, width, generator=numbers)
    tiles = tiles_for(Extent(width, height), size)
    assert tiles is not None

    def run(tile: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(tile * tile.mean(), scale_factor=2.0)

    assert torch.equal(part("blended")(whole, size, run, factor=2), blended(whole, tiles, run, factor=2))


@pytest.mark.parametrize(("width", "height"), [(96, 64), (101, 70), (9, 15)])
def test_pictures_are_fitted_as_in_the_pack(numbers: torch.Generator, width: int, height: int) -> None:
    pictures = (torch.rand(2, height, width, 3, generator=numbers) * 255).round() / 255
    fitted = part("fit")(pictures.movedim(-1, 1))
    assert torch.equal(2 * fitted - 1, to_pixels(pictures, 8))


def test_a_grid_is_that_of_the_node(numbers: torch.Generator) -> None:
    pictures = torch.rand(6, 5, 4, 3, generator=numbers)
    assert torch.equal(part("grid")(pictures.movedim(-1, 1), 2, 3).movedim(1, -1), grid(pictures, 2, 3))


@pytest.mark.parametrize(("width", "height"), [(64, 48), (40, 90)])
def test_a_mask_is_fitted_as_in_the_pack(numbers: torch.Generator, width: int, height: int) -> None:
    mask = torch.nn.functional.interpolate(
        torch.rand(1, 1, 4, 4, generator=numbers), size=(height, width), mode="bicubic"
    )
    mask = mask.clamp(0, 1)
    expected = fit_repaint_mask(mask[:, 0], None, Extent(64, 48), 8, 1)
    assert torch.equal(part("to_repaint")(mask, 64, 48), expected)


def test_a_mask_of_a_latent_is_kept_as_in_the_pack(numbers: torch.Generator) -> None:
    begin, mask = torch.rand(2, 4, 8, 8, generator=numbers), torch.rand(1, 1, 32, 32, generator=numbers)
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]

    class Pipeline:
        num_timesteps = 2

        class scheduler:
            timesteps = torch.tensor([9, 5, 1])

            @staticmethod
            def add_noise(samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
                return samples + noise * timesteps

    callback = part("keep_unmasked")(begin, mask, generators)
    drawn = torch.cat([torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (3, 4)])
    repaint = fit_mask(mask, begin)
    for step, kept in ((0, begin + drawn), (1, begin)):
        latents = torch.ones_like(begin)
        found = callback(Pipeline, step, None, {"latents": latents})["latents"]
        assert torch.allclose(found, repaint * latents + (1 - repaint) * kept)


def test_a_picture_without_alpha_has_an_empty_mask_of_64_pixels(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the host's Load Image gives it."""
    (tmp_path / "input").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "input" / "a.png")
    Image.new("RGBA", (8, 6), (0, 0, 0, 51)).save(tmp_path / "input" / "b.png")
    monkeypatch.chdir(tmp_path)
    assert torch.equal(part("load_transparency")("a.png"), torch.zeros(1, 1, 64, 64))
    assert torch.allclose(part("load_transparency")("b.png"), torch.full((1, 1, 6, 8), 0.8))
