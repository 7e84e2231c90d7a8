"""Kandinsky 2.2's depth ControlNet decoder: the same numbers as the guide's scripts, and the features that its pipelines lack."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from diffusers import KandinskyV22ControlnetImg2ImgPipeline, KandinskyV22ControlnetPipeline

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.images import Extent
from diffusers_relay.pipelines.control.kandinsky_hint import KandinskyHint, make_hint, take_hint
from diffusers_relay.pipelines.device.offload import Stage
from diffusers_relay.pipelines.families.kandinsky22_prior import PriorSettings, run_prior
from diffusers_relay.pipelines.latents.autoencoder import autoencoder_of
from diffusers_relay.pipelines.latents.encode_decode import decode, encode
from diffusers_relay.pipelines.latents.latent_space import Latents, from_host
from diffusers_relay.pipelines.model.embeds import ImageEmbeds
from diffusers_relay.pipelines.model.mixing import mix
from diffusers_relay.pipelines.runs.sampling import (
    ImageToImageSettings,
    TextToImageSettings,
    image_to_image,
    text_to_image,
)
from diffusers_relay.weighting.prior_encoder import encode_for_prior
from reference import kandinsky_depth, scripts
from relay_dev.model_folders import SmallModels
from support.kandinsky import kandinsky_prompt
from support.without_host import Stopped, counting_runtime, load
from support.without_host import encode as encode_text

pytestmark = pytest.mark.usefixtures("inference_mode")
SIZES = pytest.mark.parametrize(("width", "height"), [(64, 64), (128, 64), (64, 128)])
NAME = "kandinsky_depth"


def wire(width: int = 64, height: int = 64, seed: int = 977) -> tuple[KandinskyHint, ...]:
    """The output of RelayKandinskyHint for a depth map from LoadImage."""
    return (make_hint(scripts.read_like_host(kandinsky_depth.depth_map(width, height, seed))),)


def script_hint(width: int = 64, height: int = 64, seed: int = 977) -> torch.Tensor:
    """Channels last, like the host's pictures: torch treats a batch of one made by `unsqueeze` as contiguous, which differs by 2e-6."""
    hint = kandinsky_depth.make_hint(kandinsky_depth.depth_map(width, height, seed))
    return hint.clone(memory_format=torch.channels_last)


def script_prompt() -> scripts.Prior:
    prompt = kandinsky_prompt()
    return scripts.Prior(prompt.positive, prompt.negative)


def from_text(runtime: Any = None, control: Any = None, **changes: Any) -> Latents:
    values = {"width": 64, "height": 64, "batch_size": 1, "steps": 4, "guidance_scale": 4.0, "seed": 3, **changes}
    control = wire(values["width"], values["height"]) if control is None else control
    settings = TextToImageSettings(**values)
    return text_to_image(load(NAME), kandinsky_prompt(), settings, runtime or counting_runtime(), control=control)


def picture(width: int = 64, height: int = 64) -> torch.Tensor:
    return scripts.read_like_host(scripts.soft_picture(width, height))


def pixels(latent: Latents) -> torch.Tensor:
    return decode(load(NAME), latent, tiled=False, runtime=counting_runtime())


def assert_is_script(latent: Latents, script: Any, exactly: bool = True) -> None:
    ours, theirs = pixels(latent), torch.from_numpy(script)
    assert ours.shape == theirs.shape
    assert float(theirs.std()) > 0.1, "a flat picture proves nothing"
    assert torch.equal(ours, theirs) if exactly else float((ours - theirs).abs().max()) <= 1e-5


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


# --- the same numbers


@SIZES
@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
def test_text_to_image_is_the_script(models: SmallModels, width: int, height: int, guidance_scale: float) -> None:
    ours = from_text(width=width, height=height, guidance_scale=guidance_scale)
    script = kandinsky_depth.text_to_image(
        models.named[NAME],
        script_prompt(),
        script_hint(width, height),
        width=width,
        height=height,
        guidance_scale=guidance_scale,
        seed=3,
    )
    assert ours.samples.shape == (1, 4, height // 8, width // 8)
    assert_is_script(ours, script)


@SIZES
@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
def test_image_to_image_is_the_script_the_right_way_up(
    models: SmallModels, width: int, height: int, guidance_scale: float
) -> None:
    ours = image_to_image(
        load(NAME),
        kandinsky_prompt(),
        ImageToImageSettings(0.5, 6, guidance_scale, 9),
        counting_runtime(),
        image=picture(width, height),
        control=wire(width, height),
    )
    script = kandinsky_depth.image_to_image(
        models.named[NAME],
        scripts.soft_picture(width, height),
        script_prompt(),
        script_hint(width, height),
        width=width,
        height=height,
        guidance_scale=guidance_scale,
        seed=9,
    )
    assert_is_script(ours, script)


def test_the_guide_s_image_to_image_with_the_emb2emb_prior(models: SmallModels) -> None:
    """The guide uses the positive embedding of a second prior run as the negative embedding."""
    names = ("kandinsky_prior", NAME)
    prior = load(names[0])
    source, runtime = picture(128, 64), counting_runtime()

    def embedded(text: str, strength: float, seed: int) -> ImageEmbeds:
        read = encode_for_prior(prior, text, "", syntax="plain", runtime=runtime)
        return run_prior(prior, read, PriorSettings(4, 4.0, seed, strength), runtime, source)

    positive, negative = embedded("a robot", 0.85, 21), embedded("lowres, ugly", 1.0, 22)
    prompt = ImageEmbeds(positive.positive, negative.positive, positive.title)
    settings = ImageToImageSettings(0.5, 6, 4.0, 23)
    ours = image_to_image(load(NAME), prompt, settings, runtime, image=source, control=wire(128, 64))
    embeds = kandinsky_depth.emb2emb(
        models.named[names[0]], "a robot", "lowres, ugly", scripts.soft_picture(128, 64), seeds=(21, 22)
    )
    assert torch.equal(prompt.positive, embeds.image_embeds)
    assert torch.equal(prompt.negative, embeds.negative_image_embeds)
    script = kandinsky_depth.image_to_image(
        models.named[names[1]],
        scripts.soft_picture(128, 64),
        embeds,
        script_hint(128, 64),
        width=128,
        height=64,
        seed=23,
    )
    assert_is_script(ours, script)


def test_a_batch_is_the_script_s_with_a_hint_each(models: SmallModels) -> None:
    hints = (wire(seed=1)[0].depth, wire(seed=2)[0].depth)
    ours = from_text(control=(KandinskyHint(torch.cat(hints)),), batch_size=2)
    twice = kandinsky_prompt()
    script = kandinsky_depth.text_to_image(
        models.named[NAME],
        scripts.Prior(twice.positive.repeat(2, 1), twice.negative.repeat(2, 1)),
        torch.cat([script_hint(seed=1), script_hint(seed=2)]),
        seed=[3, 4],
    )
    assert_is_script(ours, script, exactly=False)


def test_a_picture_of_a_batch_can_be_made_again_alone() -> None:
    batch = from_text(batch_size=3)
    alone = from_text(seed=5)
    assert batch.samples.shape[0] == 3
    assert apart(batch.samples[2:], alone.samples) <= 1e-5
    assert float((batch.samples[0] - batch.samples[2]).abs().max()) > 0.1


def test_a_batch_of_latents_with_an_index_takes_its_seeds_from_it() -> None:
    settings = ImageToImageSettings(0.5, 6, 4.0, 5)
    start = encode(load(NAME), torch.cat([picture(), picture().flip(2)]), 0, counting_runtime())
    start = from_host({**start.to_host(), "batch_index": [4, 7]})
    both = repaint(start, settings)
    one = from_host({"samples": start.samples[1:], "batch_index": [7]})
    assert apart(both.samples[1:], repaint(one, settings).samples) <= 1e-5
    assert both.batch_index == (4, 7)


def repaint(latent: Latents, settings: ImageToImageSettings, runtime: Any = None) -> Latents:
    return image_to_image(
        load(NAME), kandinsky_prompt(), settings, runtime or counting_runtime(), latent=latent, control=wire()
    )


def test_the_hint_matters() -> None:
    assert float((pixels(from_text()) - pixels(from_text(control=wire(seed=5)))).abs().max()) > 0.05


def test_half_precision_runs_with_and_without_guidance() -> None:
    model = load(NAME, torch.bfloat16)
    for guidance_scale in (1.0, 4.0):
        settings = TextToImageSettings(64, 64, 1, 2, guidance_scale, 3)
        made = text_to_image(model, kandinsky_prompt(), settings, counting_runtime(), control=wire())
        assert made.samples.dtype == torch.float32
        assert made.samples.isfinite().all()


# --- latents in and out


def test_the_run_touches_no_autoencoder_and_leaves_it_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(NAME)
    movq = model["movq"]
    before = set(vars(movq))

    def never(*values: Any, **options: Any) -> None:
        raise AssertionError("the autoencoder was used")

    monkeypatch.setattr(type(movq), "encode", never)
    monkeypatch.setattr(type(movq), "decode", never)
    runtime = counting_runtime()
    made = from_text(runtime, width=128)
    again = image_to_image(
        model, kandinsky_prompt(), ImageToImageSettings(0.5, 4, 4.0, 1), runtime, latent=made, control=wire(128)
    )
    assert again.samples.shape == (1, 4, 8, 16)
    assert runtime.policy.stages == {Stage.DENOISE: 2}
    assert model["movq"] is movq
    assert set(vars(movq)) == before
    assert made.space is not None
    assert made.space.module is movq


def test_latents_leave_unscaled_and_unclamped() -> None:
    """The image-to-image pipeline would rescale latents that it takes for pictures to 0..1."""
    made = repaint(from_text(), ImageToImageSettings(0.5, 6, 4.0, 9))
    assert float(made.samples.min()) < -0.5
    assert float(made.samples.max()) > 1.0


def test_a_latent_of_the_other_decoder_passes_untouched_both_ways() -> None:
    runtime = counting_runtime()
    made = from_text(runtime)
    back = image_to_image(
        load("kandinsky_decoder"), kandinsky_prompt(), ImageToImageSettings(0.5, 6, 4.0, 9), runtime, latent=made
    )
    repaint(back, ImageToImageSettings(0.5, 6, 4.0, 9), runtime)
    assert runtime.monitor.said == []
    assert load("kandinsky_decoder")["movq"] is not load(NAME)["movq"], (
        "latent spaces are compared by what the autoencoders do, not by object identity"
    )


def test_sd15_into_the_depth_decoder_is_one_decode_and_one_encode() -> None:
    sd15 = load("sd15")
    made = text_to_image(
        sd15, encode_text(sd15, "a cat"), TextToImageSettings(128, 64, 1, 3, 7.5, 3), counting_runtime()
    )
    settings = ImageToImageSettings(0.5, 6, 4.0, 9)
    runtime = counting_runtime()
    chained = image_to_image(
        load(NAME), kandinsky_prompt(), settings, runtime, latent=from_host(made.to_host()), control=wire(128)
    )
    assert runtime.policy.stages[Stage.VAE] == 2
    assert len(runtime.monitor.said) == 1
    shown = decode(sd15, made, tiled=False, runtime=counting_runtime())
    by_hand = image_to_image(
        load(NAME), kandinsky_prompt(), settings, counting_runtime(), image=shown, control=wire(128)
    )
    assert torch.equal(chained.samples, by_hand.samples)
    assert chained.space is not None
    assert chained.space.module is autoencoder_of(load(NAME)).module


def test_what_is_not_masked_is_kept_and_the_rest_is_painted() -> None:
    start = encode(load(NAME), picture(), 0, counting_runtime())
    mask = torch.zeros(1, 8, 8)
    mask[..., 4:] = 1
    settings = ImageToImageSettings(0.8, 6, 4.0, 9)
    masked = repaint(from_host({**start.to_host(), "noise_mask": mask}), settings).samples
    free = repaint(start, settings).samples
    assert float((masked[..., :4] - start.samples[..., :4]).abs().max()) <= 1e-6
    assert float((masked[..., 4:] - start.samples[..., 4:]).abs().max()) > 0.1
    assert float((masked[..., 4:] - free[..., 4:]).abs().max()) > 1e-3, "the run must see the kept part"


# --- progress and cancel


def test_every_step_is_reported_with_its_latents_and_a_cancel_stops_the_next() -> None:
    runtime = counting_runtime(previews=True)
    made = from_text(runtime, steps=5)
    assert runtime.monitor.steps == [(n, 5) for n in range(1, 6)]
    assert torch.allclose(runtime.monitor.previewed[-1], made.samples, atol=1e-5)
    runtime = counting_runtime()
    repaint(made, ImageToImageSettings(0.5, 8, 4.0, 1), runtime)
    assert runtime.monitor.steps == [(n, 4) for n in range(1, 5)]
    for run in (
        lambda runtime: from_text(runtime, steps=5),
        lambda runtime: repaint(made, ImageToImageSettings(1.0, 5, 4.0, 1), runtime),
    ):
        runtime = counting_runtime(stop_after=2)
        with pytest.raises(Stopped):
            run(runtime)
        assert len(runtime.monitor.steps) == 2
    assert torch.equal(from_text(steps=5).samples, made.samples), "the cancelled runs leave nothing behind"


def test_the_same_with_ddim() -> None:
    from diffusers_relay.pipelines.denoising.schedulers import with_scheduler
    from diffusers_relay.pipelines.model.components import SchedulerChoice

    model = with_scheduler(load(NAME), SchedulerChoice("DDIMScheduler"))
    runtime = counting_runtime()
    settings = TextToImageSettings(64, 64, 1, 3, 4.0, 3)
    text_to_image(model, kandinsky_prompt(), settings, runtime, control=wire())
    assert runtime.monitor.steps == [(1, 3), (2, 3), (3, 3)]


# --- the hint


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_hint_of_any_kind_is_three_channels_between_0_and_1(channels: int, batch: int) -> None:
    image = torch.rand(batch, 64, 128, channels) * 1.5 - 0.25
    hint = make_hint(image)
    assert hint.depth.shape == (batch, 3, 64, 128)
    assert float(hint.depth.min()) == 0.0
    assert float(hint.depth.max()) == 1.0
    (fitted,), others = take_hint((hint,), load(NAME), Extent(128, 64), 2)
    taken = fitted.depth
    assert others == ()
    assert taken.shape == (2, 3, 64, 128)
    expected = image[..., :3].clamp(0, 1).movedim(-1, 1).expand(2, 3, -1, -1)
    assert torch.equal(taken, expected)


def test_a_hint_of_another_size_is_stretched_to_the_painted_one() -> None:
    depth = kandinsky_depth.depth_map(100, 90)
    (fitted,), _ = take_hint((make_hint(scripts.read_like_host(depth)),), load(NAME), Extent(128, 64), 1)
    by_hand = kandinsky_depth.make_hint(depth.resize((128, 64), scripts.Image.Resampling.LANCZOS))
    assert torch.allclose(fitted.depth, by_hand, atol=1e-6)
    assert from_text(control=(make_hint(torch.rand(1, 33, 50, 1)),), width=128).samples.shape == (1, 4, 8, 16)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(64, 64, 3), r"image: expected"),
        (torch.rand(0, 64, 64, 3), r"image: the batch is empty"),
        (torch.full((1, 8, 8, 3), float("nan")), r"image: .*NaN"),
    ],
)
def test_a_hint_that_is_no_picture_is_refused(image: torch.Tensor, message: str) -> None:
    with pytest.raises(RelayError, match=message):
        make_hint(image)


class Unit:
    """Anything that isn't a hint: on this wire, a ControlNet unit."""


@pytest.mark.parametrize(
    ("name", "control", "message"),
    [
        (NAME, (), r"control: kandinsky_depth.*needs a depth map.*Connect Kandinsky Hint"),
        (NAME, (Unit(),), r"control: kandinsky_depth.*takes no ControlNets.*Connect Kandinsky Hint"),
        (
            "kandinsky_decoder",
            (Unit(),),
            r"control: kandinsky_decoder.*takes no ControlNets.*Leave control unconnected",
        ),
        ("kandinsky_decoder", wire(), r"control: kandinsky_decoder.*takes no Kandinsky hint"),
        ("sd15", wire(), r"control: sd15.*takes no Kandinsky hint.*kandinsky-2-2-controlnet-depth"),
    ],
)
def test_what_the_model_cannot_take_is_refused_before_it_is_used(name: str, control: Any, message: str) -> None:
    model = load(name)
    prompt = encode_text(model, "a cat") if name == "sd15" else kandinsky_prompt()
    runtime = counting_runtime()
    with pytest.raises(RelayError, match=message):
        text_to_image(model, prompt, TextToImageSettings(64, 64, 1, 3, 4.0, 3), runtime, control=control)
    settings = ImageToImageSettings(0.5, 6, 4.0, 9)
    with pytest.raises(RelayError, match=message):
        image_to_image(model, prompt, settings, runtime, image=picture(), control=control)
    assert not runtime.policy.stages


def test_three_depth_maps_for_two_pictures_are_refused() -> None:
    with pytest.raises(RelayError, match=r"control: the hint has 3 depth maps, and 2 pictures are painted"):
        from_text(control=(make_hint(torch.rand(3, 64, 64, 1)),), batch_size=2)
    with pytest.raises(RelayError, match=r"control: the hint has 3 depth maps, and 1 picture is painted"):
        from_text(control=(make_hint(torch.rand(3, 64, 64, 1)),))


def test_units_of_other_families_are_handed_on() -> None:
    unit = Unit()
    assert take_hint((unit,), load("sd15"), Extent(64, 64), 1) == ((), (unit,))
    assert take_hint((), load("kandinsky_decoder"), Extent(64, 64), 1) == ((), ())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 96}, r"96x64.*multiples of 64"),
        ({"steps": 0}, r"steps: 0"),
        (
            {"denoising_end": 0.5},
            r"denoising_end: .*Families that can: Stable Diffusion XL, Stable Diffusion XL refiner\.",
        ),
    ],
)
def test_numbers_that_it_cannot_do_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RelayError, match=message):
        from_text(**changes)


def test_no_step_left_and_a_text_prompt_are_refused() -> None:
    with pytest.raises(RelayError, match="leave no step to run"):
        repaint(from_text(), ImageToImageSettings(0.1, 5, 4.0, 9))
    prompt = encode_text(load("sd15"), "a cat")
    with pytest.raises(RelayError, match=r"prompt: .*image embeddings"):
        text_to_image(load(NAME), prompt, TextToImageSettings(64, 64, 1, 3, 4.0, 3), counting_runtime(), control=wire())
    assert mix(kandinsky_prompt(), kandinsky_prompt("a dog"), 0.5), "any prompt from the prior works"


# --- workarounds


@pytest.mark.parametrize("cls", [KandinskyV22ControlnetPipeline, KandinskyV22ControlnetImg2ImgPipeline])
def test_upstream_still_has_no_latent_output_and_no_callback_that_is_listened_to(
    models: SmallModels, cls: type
) -> None:
    """When this test fails, diffusers has fixed its pipelines, and the workarounds in kandinsky22_depth.py can go."""
    assert "callback_on_step_end" not in inspect.signature(cls.__call__).parameters
    pipeline = scripts.loaded(cls, models.named[NAME], {})
    prompt = script_prompt()
    own = {"image": scripts.soft_picture(), "strength": 1.0} if "Img2Img" in cls.__name__ else {}
    with pytest.raises(ValueError, match="Only the output types"):
        pipeline(
            image_embeds=prompt.image_embeds,
            negative_image_embeds=prompt.negative_image_embeds,
            hint=script_hint(),
            width=64,
            height=64,
            num_inference_steps=1,
            output_type="latent",
            **own,
        )


def test_upstream_still_exchanges_height_and_width(models: SmallModels) -> None:
    """When this test fails, diffusers has fixed it, and the reference script's workaround can go. The pack doesn't depend on it."""
    pipeline = scripts.loaded(KandinskyV22ControlnetImg2ImgPipeline, models.named[NAME], {})
    assert kandinsky_depth.swaps_sizes(pipeline)
