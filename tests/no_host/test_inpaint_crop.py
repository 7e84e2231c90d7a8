"""padding_mask_crop: the script's picture with one decode, and a latent of the whole picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.images import Extent
from diffusers_relay.pipelines.latents.autoencoder import Autoencoder, autoencoder_of
from diffusers_relay.pipelines.latents.conversion import convert
from diffusers_relay.pipelines.latents.encode_decode import decode
from diffusers_relay.pipelines.latents.encode_decode import encode as encode_image
from diffusers_relay.pipelines.latents.latent_space import Latents, from_host
from diffusers_relay.pipelines.runs.inpainting import InpaintSettings, inpaint
from diffusers_relay.pipelines.runs.mask_crop import MaskCrop, Region, crop_to_mask
from reference import inpaint_scripts
from reference.control_scripts import Control, edges
from reference.inpaint_scripts import as_mask, mask_picture
from reference.scripts import read_like_host, soft_picture
from relay_dev.model_folders import SmallModels
from support.kandinsky import kandinsky_prompt
from support.tasks import controlnet, make_unit
from support.without_host import counting_runtime, encode, load

SIZE = (120, 101)
PICTURE = soft_picture(*SIZE)
MASK = mask_picture(*SIZE, (40, 30, 62, 58))
PROMPT, NEGATIVE = "a red cat", "dog"


def run(name: str, picture: Any = PICTURE, mask: Any = MASK, runtime: Any = None, **changes: Any) -> Latents:
    model = load(name)
    numbers = {"strength": 1.0, "steps": 3, "guidance_scale": 7.5, "seed": 7, "padding_mask_crop": 5}
    own = {key: changes.pop(key) for key in list(changes) if key in (*numbers, "soft_mask")}
    prompt = kandinsky_prompt() if "kandinsky" in name else encode(model, PROMPT, NEGATIVE)
    if "latent" not in changes:
        changes["image"] = read_like_host(picture) if isinstance(picture, Image.Image) else picture
    repaint = as_mask(mask) if isinstance(mask, Image.Image) else mask
    return inpaint(model, prompt, repaint, InpaintSettings(**numbers | own), runtime or counting_runtime(), **changes)


def decoded(name: str, latents: Latents) -> np.ndarray:
    """After a way through the host's dict."""
    return decode(load(name), from_host(latents.to_host()), False, counting_runtime()).numpy()


def script(models: SmallModels, name: str, picture: Any = PICTURE, mask: Any = MASK, **settings: Any) -> np.ndarray:
    """Without width and height: at the model's own size."""
    size = {"width": None, "height": None, "seed": 7, "num_inference_steps": 3, "padding_mask_crop": 5}
    (made,) = inpaint_scripts.inpaint(
        models.named[name], picture, mask, PROMPT, NEGATIVE, output_type="pil", **size | settings
    )
    return np.array(made)


def assert_same(ours: np.ndarray, theirs: np.ndarray) -> None:
    """The script's 8 bits. A value at the edge between two may fall on the other side."""
    assert ours.shape[1:] == theirs.shape
    steps = np.abs(np.rint(ours[0] * 255).astype(int) - theirs.astype(int))
    assert steps.max() <= 1
    assert (steps > 0).mean() < 1e-3


@pytest.mark.parametrize(
    ("name", "strength"), [("sd15", 0.7), ("sd15_inpaint", 1.0), ("sdxl_base", 1.0), ("sdxl_inpaint", 0.7)]
)
def test_one_decode_gives_the_script_s_picture(models: SmallModels, name: str, strength: float) -> None:
    ours = decoded(name, run(name, strength=strength))
    assert_same(ours, script(models, name, strength=strength))
    kept = np.array(MASK) == 0
    assert (ours[0][kept] == np.array(read_like_host(PICTURE))[0][kept]).all()
    assert np.abs(ours[0] - np.array(read_like_host(PICTURE))[0])[~kept].mean() > 0.03


def test_each_picture_of_a_batch_has_its_own_region(models: SmallModels) -> None:
    """With grey masks, by which the script blends what it puts back."""
    boxes = [(40, 30, 62, 58), (0, 70, 30, 101)]
    masks = [mask_picture(*SIZE, box).resize((30, 30)).resize(SIZE) for box in boxes]
    pictures = [soft_picture(*SIZE, seed) for seed in (1, 2)]
    ours = decoded(
        "sd15",
        run("sd15", torch.cat([read_like_host(one) for one in pictures]), torch.cat([as_mask(one) for one in masks])),
    )
    for index in range(2):
        theirs = script(models, "sd15", pictures[index], masks[index], seed=7 + index)
        assert_same(ours[index : index + 1], theirs)


def test_what_is_not_masked_keeps_values_between_those_of_8_bits() -> None:
    picture = read_like_host(PICTURE) * 0.9987
    ours = decoded("sd15", run("sd15", picture))
    kept = np.array(MASK) == 0
    assert (ours[0][kept] == picture[0].numpy()[kept]).all()


def test_a_narrow_picture_is_filled_with_its_edges(models: SmallModels) -> None:
    """The region can't have the shape of the model's own size."""
    picture, mask = soft_picture(24, 120), mask_picture(24, 120, (4, 10, 20, 110))
    assert_same(decoded("sd15", run("sd15", picture, mask)), script(models, "sd15", picture, mask))


@pytest.mark.parametrize(("name", "net"), [("sd15_inpaint", "sd15_canny"), ("sdxl_base", "sdxl_canny")])
def test_a_controlnet_s_picture_is_cut_out_too(models: SmallModels, name: str, net: str) -> None:
    lines = edges(*SIZE)
    unit = make_unit(controlnet(net), read_like_host(lines), 0.8)
    ours = decoded(name, run(name, control=(unit,)))
    size = {"width": 64, "height": 64}  # with a ControlNet, the script's default is the picture's size
    assert_same(ours, script(models, name, controls=[Control(models.controlnets[net], lines, 0.8)], **size))
    assert np.abs(ours - decoded(name, run(name))).max() > 0.01


@pytest.mark.parametrize("region", [Region(10, 20, 70, 80), Region(0, 4, 96, 24), Region(30, 0, 45, 96)])
def test_a_control_picture_with_holes_is_cut_out_in_floating_point(region: Region) -> None:
    picture = read_like_host(soft_picture(96, 96))
    crop = MaskCrop(picture, (MASK,), (region,), Extent(64, 64))
    plain = crop.control(make_unit(controlnet("sd15_canny"), picture)).image
    with_holes = picture.clone()
    with_holes[:, 40:, 40:] = -1
    cut = crop.control(make_unit(controlnet("sd15_canny"), with_holes)).image
    assert cut.shape == plain.shape == (1, 64, 64, 3)
    hole = cut < 0
    assert hole.any() == (region.right > 40 and region.bottom > 40)
    grown = torch.nn.functional.max_pool2d(hole.float().movedim(-1, 1), 9, 1, 4).movedim(1, -1) > 0
    assert float((cut - plain).abs()[~grown].max()) <= 3 / 255


def test_the_latent_is_that_of_the_whole_picture() -> None:
    """For the nodes that don't know the tag, and for the next model."""
    model, runtime = load("sd15"), counting_runtime()
    latents = run("sd15")
    picture = torch.from_numpy(decoded("sd15", latents))
    assert latents.samples.shape == (1, 4, 12, 15)
    pixels = torch.from_numpy(
        np.array(
            Image.fromarray(np.rint(picture[0].numpy() * 255).astype(np.uint8)).resize(
                (120, 96), Image.Resampling.LANCZOS
            )
        )
    )
    own = autoencoder_of(model)
    encoded = own.encode(pixels.float().movedim(-1, 0)[None] / 127.5 - 1, runtime.policy)
    assert float((latents.samples - encoded).abs().max()) <= 1e-4
    changed = from_host({**latents.to_host(), "samples": latents.samples * 1.01})
    without_tag = Latents(latents.samples)
    for latent in (changed, without_tag):
        vae_decode = own.decode(latent.samples, runtime.policy)
        assert torch.equal(decode(model, latent, False, runtime), vae_decode)


def test_a_picture_too_large_for_the_encoder_is_encoded_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The region is small, but the picture around it may not be."""
    encode_whole, tiled = Autoencoder.encode, []

    def encode(self: Autoencoder, pixels: torch.Tensor, *others: Any) -> torch.Tensor:
        tiled.append((tuple(pixels.shape[-2:]), self.tiling))
        if pixels.shape[-1] == 120 and not self.tiling:
            raise MemoryError
        return encode_whole(self, pixels, *others)

    expected, runtime = run("sd15"), counting_runtime()
    monkeypatch.setattr(Autoencoder, "encode", encode)
    made = run("sd15", runtime=runtime)
    assert tiled == [((64, 64), False), ((96, 120), False), ((96, 120), True)]
    assert torch.equal(made.picture, expected.picture)
    assert "tried again in tiles" in runtime.monitor.said[-1]


def test_another_space_gets_the_picture_itself() -> None:
    latents, runtime = run("sd15"), counting_runtime()
    sdxl = autoencoder_of(load("sdxl_base"))
    made = convert(latents, sdxl, runtime)
    picture = torch.from_numpy(decoded("sd15", latents))
    straight = encode_image(load("sdxl_base"), picture, 0, runtime).samples.shape
    assert made.samples.shape == straight
    assert made.picture is None
    assert runtime.monitor.said == ["Latent converted from sd15: its own picture was encoded."]
    assert convert(latents, autoencoder_of(load("sd15")), runtime).picture is latents.picture


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("sd15", {"latent": Latents(torch.zeros(1, 4, 8, 12))}, "padding_mask_crop: 5 cuts the area out of a picture, and a latent"),
        ("sd15", {"padding_mask_crop": -1}, "padding_mask_crop: -1 is too small"),
        ("sd15", {"mask": torch.zeros(1, 101, 120)}, "mask: it leaves nothing to repaint, because it is 0 everywhere"),
        ("sd15", {"mask": torch.full((1, 101, 120), 0.3)}, "mask: it leaves nothing to repaint. Only values of 0.5"),
        ("sd15", {"mask": torch.ones(3, 101, 120)}, "mask: the batch has 3 masks, but 1 picture is painted"),
        ("sd15", {"picture": torch.zeros(1, 7, 90, 3), "mask": torch.ones(1, 7, 90)}, "image: 90x7 is smaller than one latent pixel"),
        ("sd15", {"picture": torch.zeros(1, 700, 8, 3), "mask": torch.ones(1, 700, 8)}, "padding_mask_crop: the picture is too narrow. .* 8x700"),
        ("kandinsky_decoder", {"picture": torch.zeros(1, 64, 64, 3)}, r"padding_mask_crop: diffusers has it for Stable Diffusion.*, not for kandinsky_decoder"),
        ("kandinsky_inpaint", {"picture": torch.zeros(1, 64, 64, 3)}, "padding_mask_crop: .* Set it to 0"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_anything_runs(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RelayError, match=message):
        run(name, **changes)


def test_a_model_that_does_not_say_its_size_is_refused() -> None:
    class Config(dict[str, Any]):
        pass

    model = load("sd15")
    unet = type("Unet", (), {"config": Config(sample_size=None)})()
    other = model.with_changes(modules={"unet": unet})
    with pytest.raises(RelayError, match="padding_mask_crop: the config of sd15 doesn't name the size"):
        crop_to_mask(other, autoencoder_of(model), read_like_host(PICTURE), as_mask(MASK), 5)
