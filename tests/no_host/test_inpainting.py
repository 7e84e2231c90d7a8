"""Inpainting: the script's numbers inside the mask, and the unchanged input outside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, EulerAncestralDiscreteScheduler, KandinskyV22InpaintPipeline
from PIL import Image

from diffusers_relay.pipelines.base.encoded_once import ENCODED
from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.images import Extent
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.control.kandinsky_hint import make_hint
from diffusers_relay.pipelines.control.units import make_unit
from diffusers_relay.pipelines.denoising.masked_picture import at_latent_size, fit_repaint_mask
from diffusers_relay.pipelines.device.offload import PlainOffload, Stage
from diffusers_relay.pipelines.latents.autoencoder import autoencoder_of
from diffusers_relay.pipelines.latents.encode_decode import encode as encode_image
from diffusers_relay.pipelines.latents.latent_space import Latents
from diffusers_relay.pipelines.loading.controlnet import load_controlnet_folder
from diffusers_relay.pipelines.model.components import PipelineComponents, SchedulerChoice
from diffusers_relay.pipelines.model.family import Task
from diffusers_relay.pipelines.runs.inpainting import InpaintSettings, inpaint
from diffusers_relay.pipelines.runs.sampling import TextToImageSettings, text_to_image
from reference import inpaint_scripts
from reference.control_scripts import Control, edges
from reference.inpaint_scripts import as_mask, mask_picture
from reference.kandinsky_depth import depth_map
from reference.scripts import Prior, read_like_host, soft_picture
from relay_dev.model_folders import SmallModels
from support.kandinsky import kandinsky_prompt
from support.without_host import Stopped, counting_runtime, encode, load

SIZE = (96, 64)
BOX = (24, 16, 64, 48)
MASK = mask_picture(*SIZE, BOX)
LATENT_BOX = (slice(None), slice(None), slice(2, 6), slice(3, 8))
PROMPT, NEGATIVE = "a red cat", "dog"


def as_picture(model: PipelineComponents, latents: Latents) -> np.ndarray:
    return autoencoder_of(model).decode(latents.samples, PlainOffload()).numpy()


def raw(latents: torch.Tensor, model: PipelineComponents) -> torch.Tensor:
    """A script's latents in the scale of a LATENT."""
    return latents.float() / model["vae"].config.scaling_factor


def run(
    name: str,
    *,
    strength: float = 1.0,
    guidance_scale: float = 7.5,
    seed: int = 7,
    steps: int = 5,
    scheduler: str | None = None,
    mask: torch.Tensor | None = None,
    control: Sequence[Any] = (),
    **source: Any,
) -> Latents:
    model = load(name)
    if scheduler is not None:
        model = model.with_changes(scheduler=SchedulerChoice(scheduler))
    settings = InpaintSettings(strength, steps, guidance_scale, seed)
    source = source or {"image": read_like_host(soft_picture(*SIZE))}
    repaint = as_mask(MASK) if mask is None else mask
    prompt = kandinsky_prompt() if "kandinsky" in name else encode(model, PROMPT, NEGATIVE)
    return inpaint(model, prompt, repaint, settings, counting_runtime(), control=control, **source)


def script(models: SmallModels, name: str, image: Any = None, mask: Any = MASK, **settings: Any) -> Any:
    image = soft_picture(*SIZE) if image is None else image
    size = {"width": SIZE[0], "height": SIZE[1], "seed": 7}
    return inpaint_scripts.inpaint(models.named[name], image, mask, PROMPT, NEGATIVE, **{**size, **settings})


def assert_same(ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    assert ours.shape == theirs.shape
    assert float(np.abs(np.asarray(ours) - np.asarray(theirs)).max()) <= tolerance


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("strength", [0.6, 1.0])
@pytest.mark.parametrize("name", ["sd15", "sdxl_base", "sdxl_refiner"])
@pytest.mark.usefixtures("inference_mode")
def test_a_plain_model_gives_the_script_s_picture(models: SmallModels, name: str, strength: float) -> None:
    ours = run(name, strength=strength)
    assert_same(as_picture(load(name), ours), script(models, name, strength=strength))


@pytest.mark.parametrize("guidance_scale", [1.0, 7.5])
@pytest.mark.parametrize("strength", [0.6, 1.0])
@pytest.mark.parametrize("name", ["sd15_inpaint", "sdxl_inpaint"])
def test_a_model_for_inpainting_gives_the_script_s_latents_where_it_repaints(
    models: SmallModels, name: str, strength: float, guidance_scale: float
) -> None:
    ours = run(name, strength=strength, guidance_scale=guidance_scale)
    settings = {"strength": strength, "guidance_scale": guidance_scale, "output_type": "latent"}
    theirs = raw(script(models, name, **settings), load(name))
    assert_same(ours.samples[LATENT_BOX], theirs[LATENT_BOX])


@pytest.mark.parametrize("scheduler", [EulerAncestralDiscreteScheduler, DDPMScheduler])
@pytest.mark.parametrize(
    ("name", "strength"), [("sd15", 0.8), ("sd15_inpaint", 1.0), ("sd15_inpaint", 0.8), ("sdxl_base", 1.0)]
)
def test_a_scheduler_that_draws_at_each_step_finds_the_generator_as_in_the_script(
    models: SmallModels, name: str, strength: float, scheduler: Any
) -> None:
    """The pipelines draw for the masked picture between the noise and the first step, even if they don't use it."""
    ours = run(name, strength=strength, scheduler=scheduler.__name__)
    theirs = raw(script(models, name, strength=strength, scheduler=scheduler, output_type="latent"), load(name))
    assert_same(ours.samples[LATENT_BOX], theirs[LATENT_BOX])


def test_an_odd_size_takes_the_script_s_own_route(models: SmallModels) -> None:
    picture, mask = soft_picture(101, 77), mask_picture(101, 77, (20, 20, 70, 60))
    ours = run("sd15", mask=as_mask(mask), image=read_like_host(picture))
    assert_same(as_picture(load("sd15"), ours), script(models, "sd15", picture, mask, width=96, height=72))


def test_a_mask_of_another_size_is_stretched_as_in_the_script(models: SmallModels) -> None:
    mask = mask_picture(48, 48, (10, 12, 30, 40))
    ours = run("sd15", mask=as_mask(mask))
    assert_same(as_picture(load("sd15"), ours), script(models, "sd15", mask=mask))


def test_a_soft_mask_counts_from_half_on(models: SmallModels) -> None:
    soft = Image.fromarray(np.tile(np.linspace(0, 255, SIZE[0]).astype(np.uint8), (SIZE[1], 1)))
    ours = run("sd15", mask=as_mask(soft))
    assert_same(as_picture(load("sd15"), ours), script(models, "sd15", mask=soft))


@pytest.mark.parametrize("name", ["sd15", "sd15_inpaint", "sdxl_inpaint"])
def test_a_batch_is_each_picture_alone(models: SmallModels, name: str) -> None:
    pictures = [soft_picture(*SIZE, seed) for seed in (1, 2)]
    masks = [MASK, mask_picture(*SIZE, (0, 0, 40, 64))]
    source = {"image": torch.cat([read_like_host(one) for one in pictures])}
    ours = run(name, mask=torch.cat([as_mask(one) for one in masks]), strength=0.6, **source)
    for index in range(2):
        alone = run(
            name, mask=as_mask(masks[index]), strength=0.6, seed=7 + index, image=source["image"][index : index + 1]
        )
        assert relative(ours.samples[index : index + 1], alone.samples) <= 5e-5
    theirs = script(models, name, pictures, masks, seed=[7, 8], strength=0.6, output_type="latent")
    assert relative(ours.samples[:1][LATENT_BOX], raw(theirs, load(name))[:1][LATENT_BOX]) <= 1e-5


@pytest.mark.parametrize("name", ["sd15", "sd15_inpaint", "sdxl_base", "sdxl_inpaint", "kandinsky_decoder"])
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_what_is_not_masked_comes_back_as_it_went_in(name: str, strength: float) -> None:
    model = load(name)
    size = (128, 64) if "kandinsky" in name else SIZE
    mask = as_mask(mask_picture(*size, BOX))
    latent = encode_image(model, read_like_host(soft_picture(*size)), 3, counting_runtime())
    ours = run(name, mask=mask, strength=strength, latent=latent)
    change = (ours.samples - latent.samples).abs() / latent.samples.abs().max()
    inside = at_latent_size(mask[:, None], 8).expand_as(change) > 0
    assert float(change[~inside].max()) <= 1e-7
    assert float(change[inside].mean()) > 0.05


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_every_bit_that_is_not_masked(dtype: torch.dtype) -> None:
    model = load("sd15_inpaint", dtype)
    latent = encode_image(model, read_like_host(soft_picture(*SIZE)), 3, counting_runtime())
    settings = InpaintSettings(1.0, 3, 7.5, 7)
    ours = inpaint(model, encode(model, PROMPT), as_mask(MASK), settings, counting_runtime(), latent=latent)
    inside = at_latent_size(as_mask(MASK)[:, None], 8).expand_as(ours.samples) > 0
    assert torch.equal(ours.samples[~inside], latent.samples[~inside])


@pytest.mark.parametrize("name", ["sd15", "sdxl_base"])
def test_latents_go_in_as_they_are(models: SmallModels, name: str) -> None:
    """Like a script with latents as input: nothing is encoded, and only the noise is drawn."""
    model = load(name)
    latent = encode_image(model, read_like_host(soft_picture(*SIZE)), 3, counting_runtime())
    scaled = latent.samples * model["vae"].config.scaling_factor
    more = (
        {} if "sdxl" in name else {"masked_image_latents": scaled}
    )  # SD1.5's pipeline requires them but doesn't use them
    runtime = counting_runtime()
    ours = inpaint(
        model, encode(model, PROMPT, NEGATIVE), as_mask(MASK), InpaintSettings(0.8, 5, 7.5, 7), runtime, latent=latent
    )
    theirs = script(models, name, scaled, strength=0.8, output_type="latent", **more)
    assert_same(ours.samples, raw(theirs, model))
    assert runtime.policy.stages[Stage.VAE] == 0


def test_a_model_for_inpainting_is_shown_a_latent_s_picture(models: SmallModels) -> None:
    model, runtime = load("sd15_inpaint"), counting_runtime()
    latent = encode_image(model, read_like_host(soft_picture(*SIZE)), 3, counting_runtime())
    ours = inpaint(
        model, encode(model, PROMPT, NEGATIVE), as_mask(MASK), InpaintSettings(1.0, 5, 7.5, 7), runtime, latent=latent
    )
    picture = autoencoder_of(model).decode(latent.samples, PlainOffload())
    assert_same(ours.samples[LATENT_BOX], run("sd15_inpaint", image=picture).samples[LATENT_BOX])
    assert runtime.monitor.said == [
        "The latent was decoded because this inpainting model needs to see the unmasked area."
    ]


def test_what_is_not_masked_is_seen(models: SmallModels) -> None:
    left = soft_picture(*SIZE)
    changed = left.copy()
    changed.paste((255, 0, 0), (0, 0, 16, 64))
    ours, other = (run("sd15_inpaint", image=read_like_host(one)).samples[LATENT_BOX] for one in (left, changed))
    assert float((ours - other).abs().max()) > 1e-3


@pytest.mark.parametrize("model", ["sd15", "sd15_inpaint"])
@pytest.mark.parametrize("units", [1, 2])
def test_controlnets_steer(models: SmallModels, model: str, units: int) -> None:
    names = ["sd15_canny", "sd15_depth"][:units]
    settings = [(1.0, 0.0, 1.0), (0.7, 0.2, 0.8)][:units]
    nets = [
        load_controlnet_folder(models.controlnets[name], dtype=torch.float32, source=name, monitor=SilentMonitor())
        for name in names
    ]
    picture = edges(*SIZE)
    control = tuple(make_unit(net, read_like_host(picture), *one, False) for net, one in zip(nets, settings))
    ours = run(model, strength=0.8, control=control)
    controls = [Control(models.controlnets[name], picture, *one) for name, one in zip(names, settings)]
    theirs = raw(script(models, model, controls=controls, strength=0.8, output_type="latent"), load(model))
    assert_same(ours.samples[LATENT_BOX], theirs[LATENT_BOX])
    assert float((ours.samples - run(model, strength=0.8).samples).abs().max()) > 0.01


def test_an_sdxl_controlnet_steers(models: SmallModels) -> None:
    net = load_controlnet_folder(
        models.controlnets["sdxl_canny"], dtype=torch.float32, source="canny", monitor=SilentMonitor()
    )
    ours = run("sdxl_base", strength=0.8, control=(make_unit(net, read_like_host(edges(*SIZE)), 1.0, 0.0, 1.0, False),))
    controls = [Control(models.controlnets["sdxl_canny"], edges(*SIZE))]
    assert_same(as_picture(load("sdxl_base"), ours), script(models, "sdxl_base", controls=controls, strength=0.8))


# --- Kandinsky


WIDE = (128, 64)
WIDE_BOX = (32, 16, 80, 48)


def kandinsky_inputs(seed: int = 271, box: tuple[int, int, int, int] = WIDE_BOX) -> tuple[Image.Image, Image.Image]:
    return soft_picture(*WIDE, seed), mask_picture(*WIDE, box)


def kandinsky_embeds() -> Prior:
    prompt = kandinsky_prompt()
    return Prior(prompt.positive, prompt.negative)


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
def test_kandinsky_s_inpainting_decoder_gives_the_script_s_picture(models: SmallModels, guidance_scale: float) -> None:
    picture, mask = kandinsky_inputs()
    ours = run(
        "kandinsky_inpaint", steps=4, guidance_scale=guidance_scale, mask=as_mask(mask), image=read_like_host(picture)
    )
    theirs = inpaint_scripts.kandinsky_inpaint(
        models.named["kandinsky_inpaint"],
        picture,
        mask,
        kandinsky_embeds(),
        width=128,
        height=64,
        seed=7,
        guidance_scale=guidance_scale,
    )
    assert_same(as_picture(load("kandinsky_inpaint"), ours), theirs)


def test_kandinsky_keeps_what_is_more_than_a_latent_pixel_from_the_mask() -> None:
    picture, mask = kandinsky_inputs()
    model = load("kandinsky_inpaint")
    latent = encode_image(model, read_like_host(picture), 3, counting_runtime())
    ours = run("kandinsky_inpaint", mask=as_mask(mask), latent=latent)
    change = (ours.samples - latent.samples).abs()
    grown = torch.nn.functional.max_pool2d(at_latent_size(as_mask(mask)[:, None], 8), 3, 1, 1).expand_as(change) > 0
    assert float(change[~grown].max()) == 0
    assert float(change[grown].mean()) > 0.05


def test_a_kandinsky_batch_is_each_picture_alone_under_one_progress_bar() -> None:
    first, second = kandinsky_inputs(), kandinsky_inputs(5, (0, 0, 48, 64))
    source = {"image": torch.cat([read_like_host(one[0]) for one in (first, second)])}
    model, runtime = load("kandinsky_inpaint"), counting_runtime()
    masks = torch.cat([as_mask(one[1]) for one in (first, second)])
    ours = inpaint(model, kandinsky_prompt(), masks, InpaintSettings(1.0, 3, 4.0, 7), runtime, **source)
    for index, (picture, mask) in enumerate((first, second)):
        alone = run(
            "kandinsky_inpaint",
            steps=3,
            guidance_scale=4.0,
            seed=7 + index,
            mask=as_mask(mask),
            image=read_like_host(picture),
        )
        assert relative(ours.samples[index : index + 1], alone.samples) <= 5e-5
    assert runtime.monitor.steps == [(step, 6) for step in range(1, 7)]


def test_kandinsky_s_pipeline_still_keeps_to_the_first_picture_of_a_batch(models: SmallModels) -> None:
    """Why each image is a separate run. When this test fails, diffusers has fixed it, and a batch can be one run."""
    pipeline = KandinskyV22InpaintPipeline.from_pretrained(models.named["kandinsky_inpaint"], torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    embeds = kandinsky_embeds()
    pictures = torch.cat([read_like_host(soft_picture(*WIDE, seed)).movedim(-1, 1) * 2 - 1 for seed in (1, 2)])
    latents = pipeline(
        image=pictures,
        mask_image=torch.cat([as_mask(mask_picture(*WIDE, WIDE_BOX))[:, None]] * 2),
        image_embeds=embeds.image_embeds.repeat(2, 1),
        negative_image_embeds=embeds.negative_image_embeds.repeat(2, 1),
        width=128,
        height=64,
        num_inference_steps=2,
        generator=[torch.Generator().manual_seed(seed) for seed in (1, 2)],
        output_type="latent",
    ).images
    assert torch.equal(latents[0, :, 0, 0], latents[1, :, 0, 0])


def test_the_depth_decoder_repaints_along_its_hint() -> None:
    picture, mask = kandinsky_inputs()
    model = load("kandinsky_depth")
    latent = encode_image(model, read_like_host(picture), 3, counting_runtime())
    hints = [(make_hint(read_like_host(depth_map(*WIDE, seed))),) for seed in (1, 2)]
    ours, other = (run("kandinsky_depth", mask=as_mask(mask), latent=latent, control=hint).samples for hint in hints)
    inside = at_latent_size(as_mask(mask)[:, None], 8).expand_as(ours) > 0
    assert float((ours - latent.samples).abs()[~inside].max()) <= 1e-6
    assert float((ours - other).abs()[inside].max()) > 1e-3


# --- other inputs


def test_another_space_is_converted_once_and_said_so() -> None:
    sdxl, runtime = load("sdxl_base"), counting_runtime()
    latent = encode_image(load("sd15"), read_like_host(soft_picture(*SIZE)), 3, counting_runtime())
    settings = InpaintSettings(0.8, 5, 7.5, 7)
    ours = inpaint(sdxl, encode(sdxl, PROMPT, NEGATIVE), as_mask(MASK), settings, runtime, latent=latent)
    picture = autoencoder_of(load("sd15")).decode(latent.samples, PlainOffload())
    assert_same(ours.samples, run("sdxl_base", strength=0.8, image=picture).samples)
    assert runtime.monitor.said == ["Latent converted from sd15: decoded, then encoded with this seed."]


def test_a_latent_s_own_mask_holds_too() -> None:
    model = load("sd15")
    latent = encode_image(model, read_like_host(soft_picture(*SIZE)), 3, counting_runtime())
    own = torch.zeros(1, 8, 12)
    own[:, :, :5] = 1
    masked = replace(latent, noise_mask=own)
    ours = run("sd15", latent=masked)
    both = mask_picture(*SIZE, (24, 16, 40, 48))
    assert_same(ours.samples, run("sd15", mask=as_mask(both), latent=latent).samples)
    assert ours.noise_mask is own


def test_progress_previews_and_cancel() -> None:
    model, runtime = load("sd15_inpaint"), counting_runtime(previews=True)
    image, settings = read_like_host(soft_picture(*SIZE)), InpaintSettings(1.0, 4, 7.5, 7)
    inpaint(model, encode(model, PROMPT), as_mask(MASK), settings, runtime, image=image)
    assert [done for done, _ in runtime.monitor.steps] == list(range(1, len(runtime.monitor.steps) + 1))
    assert len(runtime.monitor.previewed) == len(runtime.monitor.steps) >= 4
    with pytest.raises(Stopped):
        inpaint(model, encode(model, PROMPT), as_mask(MASK), settings, counting_runtime(2), image=image)
    again = inpaint(model, encode(model, PROMPT), as_mask(MASK), settings, counting_runtime(), image=image)
    assert torch.isfinite(again.samples).all()


def test_a_picture_is_encoded_no_more_often_than_it_is_looked_at() -> None:
    expected = {("sd15", 0.6): 1, ("sd15", 1.0): 1, ("sd15_inpaint", 0.6): 2, ("sd15_inpaint", 1.0): 2}
    for (name, strength), count in expected.items():
        ENCODED.clear()
        runtime = counting_runtime()
        settings, image = InpaintSettings(strength, 3, 7.5, 7), read_like_host(soft_picture(*SIZE))
        inpaint(load(name), encode(load(name), PROMPT), as_mask(MASK), settings, runtime, image=image)
        assert runtime.policy.stages[Stage.VAE] == count, name


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("sd15", {"strength": 0.1, "steps": 5}, "strength, steps: 5 steps at strength 0.1 leave no step to run"),
        ("sd15", {"steps": 0}, "steps: 0 is too few"),
        ("sd15", {"mask": torch.zeros(1, 64, 96)}, "mask: it leaves nothing to repaint"),
        ("sd15", {"mask": torch.full((1, 64, 96), 0.4)}, "mask: it leaves nothing to repaint"),
        ("sd15", {"mask": torch.ones(3, 64, 96)}, "mask: the batch has 3 masks, but 1 picture is painted"),
        ("sd15", {"mask": torch.full((1, 64, 96), float("nan"))}, "mask: expected a mask of shape"),
        ("sd15", {"mask": torch.ones(1, 64, 96, 3)}, "mask: expected a mask of shape"),
        ("sd15", {"mask": torch.ones(1, 0, 96)}, "mask: expected a mask of shape"),
        ("kandinsky_inpaint", {"strength": 0.5, "image": torch.zeros(1, 64, 128, 3)}, "strength: kandinsky_inpaint .* must be 1, not 0.5"),
        ("kandinsky_inpaint", {"image": torch.zeros(1, 64, 96, 3)}, "can't make 96x64, only multiples of 64"),
        ("sd15", {"image": torch.zeros(1, 64, 96, 3), "latent": Latents(torch.zeros(1, 4, 8, 12))}, "connect exactly one"),
        ("sd15", {"latent": Latents(torch.zeros(1, 16, 8, 12))}, "the sd15 autoencoder takes"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_anything_runs(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RelayError, match=message):
        run(name, **changes)


@pytest.mark.parametrize("name", ["kandinsky_prior", "x2_upscaler", "x4_upscaler"])
def test_what_the_model_can_t_do_is_called_inpainting(name: str) -> None:
    """The decoders that run image-to-image under the mask are listed among the models that can."""
    settings, image = InpaintSettings(1.0, 3, 4.0, 7), read_like_host(soft_picture(*SIZE))
    said = rf"^model: {name} .* can't do inpainting\. Families that can: .*Kandinsky 2\.2 depth ControlNet decoder"
    with pytest.raises(RelayError, match=said):
        inpaint(load(name), kandinsky_prompt(), as_mask(MASK), settings, counting_runtime(), image=image)


def test_a_latent_that_holds_noise_is_refused() -> None:
    base, runtime = load("sdxl_base"), counting_runtime()
    prompt = encode(base, PROMPT)
    noisy = text_to_image(base, prompt, TextToImageSettings(96, 64, 1, 5, 5.0, 1, denoising_end=0.6), runtime)
    with pytest.raises(RelayError, match="still holds noise"):
        inpaint(base, prompt, as_mask(MASK), InpaintSettings(1.0, 5, 5.0, 1), runtime, latent=noisy)


def test_no_controlnets_for_the_refiner(models: SmallModels) -> None:
    net = load_controlnet_folder(
        models.controlnets["sdxl_canny"], dtype=torch.float32, source="canny", monitor=SilentMonitor()
    )
    unit = make_unit(net, read_like_host(edges(*SIZE)), 1.0, 0.0, 1.0, False)
    with pytest.raises(RelayError, match=f"takes no ControlNets in {Task.INPAINT.value}"):
        run("sdxl_refiner", control=(unit,))


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (torch.tensor([[0.49, 0.5]]), [0, 1]),
        (torch.tensor([[[0.0, 1.0]]]), [0, 1]),
        (torch.tensor([[[[0.0, 2.0]]]]), [0, 1]),
    ],
)
def test_masks_of_every_shape_that_the_host_has(mask: torch.Tensor, expected: list[int]) -> None:
    fitted = fit_repaint_mask(mask, None, Extent(2, 1), 1, 3)
    assert fitted.shape == (3, 1, 1, 2)
    assert fitted[2, 0, 0].tolist() == expected


def test_a_noise_mask_of_latent_pixels_keeps_its_very_pixels() -> None:
    own = torch.zeros(1, 1, 8, 8)
    own[0, 0, 3, 5] = own[0, 0, 6, 6:] = 1
    fitted = fit_repaint_mask(torch.ones(1, 64, 64), own, Extent(64, 64), 8, 2)
    assert torch.equal(at_latent_size(fitted, 8), own.expand(2, -1, -1, -1))
