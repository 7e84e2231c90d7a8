"""Super-resolution in tiles: no seams, the memory of one tile, one progress bar, and a cancel within a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
import torch

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.images import Extent
from diffusers_relay.pipelines.denoising.tiling import Tiles, blended, check_tile_size, tiles_for
from diffusers_relay.pipelines.latents.autoencoder import Autoencoder
from diffusers_relay.pipelines.latents.encode_decode import encode
from diffusers_relay.pipelines.runs.super_resolution import SuperResolutionSettings, super_resolution
from reference import scripts
from support.without_host import Stopped, counting_runtime, load
from support.without_host import encode as encode_text

pytestmark = pytest.mark.usefixtures("inference_mode")
TILE = 64


def picture(width: int, height: int) -> torch.Tensor:
    return scripts.read_like_host(scripts.soft_picture(width, height))


def run(image: torch.Tensor | None, tile_size: int = TILE, *, runtime: Any = None, latent: Any = None, **changes: Any):
    model = load("x4_upscaler")
    settings = SuperResolutionSettings(
        **{"steps": 3, "guidance_scale": 3.0, "noise_level": 20, "seed": 3, "tile_size": tile_size} | changes
    )
    prompt = encode_text(model, "a cat")
    return super_resolution(model, prompt, settings, runtime or counting_runtime(), image=image, latent=latent)


@pytest.mark.parametrize(
    ("extent", "size"), [(Extent(512, 512), 128), (Extent(100, 300), 64), (Extent(68, 40), 64), (Extent(2000, 65), 64)]
)
def test_tiles_cover_the_picture_and_share_a_quarter(extent: Extent, size: int) -> None:
    tiles = Tiles(extent, size)
    covered = torch.zeros(extent.height, extent.width)
    for rows, columns in tiles:
        covered[rows, columns] += 1
        assert rows.stop - rows.start == min(size, extent.height)
        assert columns.stop - columns.start == min(size, extent.width)
    assert covered.min() >= 1
    for starts, length in ((tiles._starts(extent.width), extent.width), (tiles._starts(extent.height), extent.height)):
        assert starts[0] == 0
        assert max(starts) + size >= length
        assert all(0 < later - earlier <= size - size // 4 for earlier, later in pairwise(starts))


def test_a_picture_that_is_no_larger_has_no_tiles() -> None:
    assert tiles_for(Extent(64, 64), 64) is None
    assert tiles_for(Extent(640, 640), 0) is None
    assert len(tiles_for(Extent(65, 64), 64) or ()) == 2
    for size in (1, 63, 65, 100, -8):
        with pytest.raises(RelayError, match=r"tile_size: tiles can't be -?\d+ pixels"):
            check_tile_size(size)


@pytest.mark.parametrize("factor", [1, 4])
def test_what_agrees_between_tiles_is_unchanged(factor: int) -> None:
    whole = torch.randn(2, 3, 100, 84, generator=torch.Generator().manual_seed(1))

    def enlarged(part: torch.Tensor) -> torch.Tensor:
        return part.repeat_interleave(factor, -1).repeat_interleave(factor, -2)

    result = blended(whole, Tiles(Extent(84, 100), 64), enlarged, factor=factor)
    assert torch.allclose(result, enlarged(whole), atol=1e-6)


def test_between_tiles_that_differ_there_is_no_step() -> None:
    """Each tile has a different value: along a line through the tiles, the slope is at most 1 / overlap."""
    numbers = iter(range(100))
    tiles = Tiles(Extent(160, 64), 64)
    result = blended(torch.zeros(1, 1, 64, 160), tiles, lambda part: torch.full_like(part, float(next(numbers))))
    line = result[0, 0, 32]
    assert line[0] == 0
    assert line[-1] == len(tiles) - 1
    assert line.diff().abs().max() <= 1.01 / tiles.overlap


@pytest.mark.parametrize(("width", "height"), [(64, 64), (40, 64)])
def test_a_tile_as_large_as_the_picture_is_exactly_the_untiled_run(width: int, height: int) -> None:
    runtimes = counting_runtime(), counting_runtime()
    whole, tiled = (run(picture(width, height), size, runtime=r) for size, r in zip((0, TILE), runtimes))
    assert torch.equal(whole, tiled)
    assert runtimes[0].monitor.steps == runtimes[1].monitor.steps == [(1, 3), (2, 3), (3, 3)]


@contextmanager
def largest_inputs() -> Iterator[dict[str, tuple[int, ...]]]:
    """{part: the largest batch, height and width of its inputs}"""
    seen: dict[str, tuple[int, ...]] = {}
    model = load("x4_upscaler")
    parts = {"unet": model["unet"], "decoder": model["vae"].decoder, "encoder": model["vae"].encoder}

    def note(name: str, value: torch.Tensor) -> None:
        shape = (value.shape[0], *value.shape[-2:])
        seen[name] = tuple(map(max, zip(seen.get(name, shape), shape)))

    hooks = [
        part.register_forward_pre_hook(lambda _module, inputs, name=name: note(name, inputs[0]))
        for name, part in parts.items()
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize(("width", "height", "batch"), [(64, 64, 1), (132, 68, 1), (100, 160, 1), (68, 64, 3)])
def test_unet_and_decoder_never_see_more_than_one_tile(width: int, height: int, batch: int) -> None:
    """The sizes determine their memory. devtools/benchmarks/upscale_memory.py measures the memory itself."""
    with largest_inputs() as seen:
        run(picture(width, height).expand(batch, -1, -1, -1), steps=1)
    assert seen == {"unet": (2, TILE, TILE), "decoder": (1, TILE, TILE)}


def borders(tiles: Tiles, factor: int) -> tuple[set[int], set[int]]:
    """Columns and rows inside the enlarged picture where a tile begins or ends."""
    columns, rows = set(), set()
    for one, other in tiles:
        rows |= {one.start * factor, one.stop * factor}
        columns |= {other.start * factor, other.stop * factor}
    return (
        columns - {0, tiles.extent.width * factor},
        rows - {0, tiles.extent.height * factor},
    )


def steepness(change: torch.Tensor, tiles: Tiles) -> float:
    """The size of the steps across tile borders, relative to the steps 3 to 8 pixels away; 1 means no visible seam."""
    across, nearby = [], []
    columns, rows = borders(tiles, 4)
    for places, axis in ((columns, 2), (rows, 1)):
        steps = change.diff(dim=axis).abs().transpose(0, axis).flatten(1).mean(1)
        across += [steps[place - 1] for place in places]
        nearby += [steps[place - 1 + away] for place in places for away in (*range(-8, -2), *range(3, 9))]
    return float(torch.stack(across).mean() / torch.stack(nearby).mean())


@pytest.mark.parametrize(("width", "height"), [(112, 64), (80, 100)])
def test_no_seams_at_the_borders_of_tiles(width: int, height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The difference that tiling makes has no step at tile borders; with hard edges it does."""
    tiles = Tiles(Extent(width, height), TILE)
    whole = run(picture(width, height), 0, steps=2)
    soft = steepness(run(picture(width, height), steps=2) - whole, tiles)
    monkeypatch.setattr("diffusers_relay.pipelines.denoising.tiling._ramp", lambda length, edge: torch.ones(length))
    hard = steepness(run(picture(width, height), steps=2) - whole, tiles)
    assert soft < 1.1
    assert hard > 2


def test_it_is_the_picture_of_the_untiled_run() -> None:
    """The noise is shared by the whole picture, so tiling changes details where the UNet looks far, but not the picture."""
    small = picture(80, 64)
    whole, tiled = run(small, 0), run(small)
    other = run(small, 0, seed=4)
    apart = (whole - tiled).square().mean().sqrt()
    assert 0 < apart < 0.5 * (whole - other).square().mean().sqrt()
    assert torch.equal(tiled, run(small))


def test_a_batch_is_separate_runs() -> None:
    pictures = torch.cat([picture(80, 64), picture(80, 64).flip(1)])
    together = run(pictures, seed=9)
    assert torch.equal(together[1:], run(pictures[1:], seed=10))


def test_one_bar_over_all_tiles_and_pictures() -> None:
    runtime = counting_runtime(previews=True)
    run(picture(112, 64).expand(2, -1, -1, -1), runtime=runtime)
    tiles = len(Tiles(Extent(112, 64), TILE))
    assert tiles == 2
    total = 2 * 3 * tiles
    reported = runtime.monitor.steps
    assert {maximum for _, maximum in reported} == {total}
    assert sorted({done for done, _ in reported}) == list(range(1, total + 1))
    assert [done for done, _ in reported] == sorted(done for done, _ in reported)
    assert len(runtime.monitor.previewed) == 6
    assert runtime.monitor.previewed[0].shape == (1, 4, 64, 112)


def test_cancel_within_a_step() -> None:
    runtime = counting_runtime(stop_after=3, previews=True)
    with pytest.raises(Stopped):
        run(picture(160, 160), runtime=runtime)
    assert len(runtime.monitor.previewed) == 0, "the first step has more tiles than that"


def test_cancel_while_it_is_decoded() -> None:
    class StopsAtTheEnd(type(counting_runtime().monitor)):
        def check(self) -> None:
            if len(self.previewed) == 3:
                raise Stopped

    runtime = counting_runtime()
    object.__setattr__(runtime, "monitor", StopsAtTheEnd(previews=True))
    with largest_inputs() as seen, pytest.raises(Stopped):
        run(picture(112, 64), runtime=runtime)
    assert "decoder" not in seen


def test_a_large_latent_is_decoded_in_tiles_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    decode = Autoencoder.decode

    def listening(self: Autoencoder, raw: Any, policy: Any, tiled: bool = False, **others: Any) -> Any:
        asked.append(tiled)
        return decode(self, raw, policy, tiled, **others)

    monkeypatch.setattr(Autoencoder, "decode", listening)
    for name, size, expected in (("sd15", 0, False), ("sd15", TILE, True), ("kandinsky_decoder", TILE, False)):
        asked.clear()
        latent = encode(load(name), picture(72, 64), 1, counting_runtime())
        run(None, size, latent=latent, steps=1)
        assert asked[0] is expected, name
