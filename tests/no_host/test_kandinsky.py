"""Kandinsky 2.2: the prior's two pipelines, pictures as prompts, mixing, and the workarounds for diffusers."""

from __future__ import annotations

import pytest
import torch
from diffusers import KandinskyV22Img2ImgPipeline, KandinskyV22PriorEmb2EmbPipeline, KandinskyV22PriorPipeline

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.families.kandinsky22_prior import PriorSettings, embed_image, run_prior
from diffusers_relay.pipelines.model.embeds import ImageEmbeds
from diffusers_relay.pipelines.model.mixing import mix
from diffusers_relay.pipelines.runs.sampling import ImageToImageSettings, image_to_image
from diffusers_relay.weighting.prior_encoder import encode_for_prior
from reference import scripts
from relay_dev.model_folders import SmallModels
from support.kandinsky import kandinsky_prompt
from support.without_host import Stopped, counting_runtime, encode, load

pytestmark = pytest.mark.usefixtures("inference_mode")
PROMPT = "a red cat"


def prior_text(negative_prompt: str = ""):
    runtime = counting_runtime()
    return encode_for_prior(
        load("kandinsky_prior"),
        PROMPT,
        negative_prompt,
        syntax="compel",
        runtime=runtime,
    )


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
def test_the_prior_equals_the_script_exactly(models: SmallModels, guidance_scale: float) -> None:
    settings = PriorSettings(5, guidance_scale, 7)
    ours = run_prior(load("kandinsky_prior"), prior_text(), settings, counting_runtime())
    script = scripts.kandinsky_prior(
        models.named["kandinsky_prior"], PROMPT, steps=5, guidance_scale=guidance_scale, seed=7
    )
    assert torch.equal(ours.positive, script.image_embeds)
    assert torch.equal(ours.negative, script.negative_image_embeds)


def test_a_negative_prompt_changes_both_embeddings_as_in_the_script(models: SmallModels) -> None:
    ours = run_prior(load("kandinsky_prior"), prior_text("dog"), PriorSettings(5, 4.0, 7), counting_runtime())
    script = scripts.kandinsky_prior(models.named["kandinsky_prior"], PROMPT, "dog", steps=5, seed=7)
    assert torch.equal(ours.positive, script.image_embeds)
    assert torch.equal(ours.negative, script.negative_image_embeds)
    without = run_prior(load("kandinsky_prior"), prior_text(), PriorSettings(5, 4.0, 7), counting_runtime())
    assert float((ours.positive - without.positive).abs().max()) > 1e-3
    assert float((ours.negative - without.negative).abs().max()) > 1e-3


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_a_picture_to_start_from_is_emb2emb(models: SmallModels, strength: float) -> None:
    picture = scripts.soft_picture()
    ours = run_prior(
        load("kandinsky_prior"),
        prior_text(),
        PriorSettings(5, 4.0, 7, strength),
        counting_runtime(),
        image=scripts.read_like_host(picture),
    )
    pipeline = scripts.loaded(KandinskyV22PriorEmb2EmbPipeline, models.named["kandinsky_prior"], {})
    script = pipeline(
        PROMPT,
        image=[picture],
        strength=strength,
        num_inference_steps=5,
        guidance_scale=4.0,
        generator=scripts.generator(7),
    )
    assert torch.equal(ours.positive, script.image_embeds)
    assert torch.equal(ours.negative, script.negative_image_embeds)


def test_an_image_prompt_is_interpolate_with_one_picture(models: SmallModels) -> None:
    picture = scripts.soft_picture(96, 64)
    ours = embed_image(load("kandinsky_prior"), scripts.read_like_host(picture), counting_runtime())
    pipeline = scripts.loaded(KandinskyV22PriorPipeline, models.named["kandinsky_prior"], {})
    script = pipeline.interpolate([picture], [1.0], num_inference_steps=2)
    assert torch.equal(ours.positive, script.image_embeds)
    assert torch.equal(ours.negative, script.negative_image_embeds)


@pytest.mark.parametrize("weight_b", [0.0, 0.3, 1.0])
def test_mixing_text_and_picture_is_interpolate(models: SmallModels, weight_b: float) -> None:
    picture = scripts.soft_picture()
    image = embed_image(load("kandinsky_prior"), scripts.read_like_host(picture), counting_runtime())
    text = run_prior(load("kandinsky_prior"), prior_text(), PriorSettings(4, 4.0, 7), counting_runtime())
    mixed = mix(text, image, weight_b)
    pipeline = scripts.loaded(KandinskyV22PriorPipeline, models.named["kandinsky_prior"], {})
    script = pipeline.interpolate(
        [PROMPT, picture],
        [1 - weight_b, weight_b],
        num_inference_steps=4,
        guidance_scale=4.0,
        generator=scripts.generator(7),
    )
    assert torch.equal(mixed.positive, script.image_embeds)
    assert torch.allclose(mixed.negative, script.negative_image_embeds, atol=1e-6)


def test_prompts_of_text_are_mixed_too_and_others_refused() -> None:
    sd15, sdxl, comic = load("sd15"), load("sdxl_base"), load("comic")
    a, b = encode(sd15, "a cat"), encode(sd15, "a dog")
    mixed = mix(a, b, 0.25)
    assert torch.allclose(mixed.positive.hidden, 0.75 * a.positive.hidden + 0.25 * b.positive.hidden)
    pooled = mix(encode(sdxl, "a cat"), encode(sdxl, "a dog"), 0.5).positive.pooled
    assert pooled is not None
    image = kandinsky_prompt()
    narrow = ImageEmbeds(image.positive[:, :8], image.negative[:, :8], "another prior")
    long = encode(sd15, "a cat and " * 60)
    for first, second, text in (
        (a, image, "one has text"),
        (a, encode(sdxl, "a dog"), "different text encoders"),
        (a, encode(comic, "a dog"), "different text encoders, those of sd15 and comic"),
        (image, narrow, "another prior"),
        (a, long, "one has .* tokens and the other"),
    ):
        with pytest.raises(RelayError, match=text):
            mix(first, second, 0.5)
    for weight in (-0.1, 1.1, float("nan")):
        with pytest.raises(RelayError, match="weight_b"):
            mix(a, b, weight)


def test_the_prior_refuses_before_it_uses_a_model() -> None:
    prior, text = load("kandinsky_prior"), prior_text()
    image = scripts.read_like_host(scripts.soft_picture())
    for settings, picture, message in (
        (PriorSettings(0, 4.0, 1), None, "steps"),
        (PriorSettings(4, 4.0, 1, strength=0.2), image, "leave no step"),
        (PriorSettings(1, 4.0, 1), None, "steps: 1 is too few for the prior"),
        (PriorSettings(4, 4.0, 1), image.repeat(2, 1, 1, 1), "one picture"),
    ):
        runtime = counting_runtime()
        with pytest.raises(RelayError, match=message):
            run_prior(prior, text, settings, runtime, image=picture)
        assert not runtime.policy.stages


def test_the_prior_reports_its_steps_and_stops() -> None:
    runtime = counting_runtime()
    run_prior(load("kandinsky_prior"), prior_text(), PriorSettings(5, 4.0, 1), runtime)
    assert runtime.monitor.steps == [(i, 5) for i in range(1, 6)]
    stopping = counting_runtime(stop_after=2)
    with pytest.raises(Stopped):
        run_prior(load("kandinsky_prior"), prior_text(), PriorSettings(5, 4.0, 1), stopping)
    assert len(stopping.monitor.steps) == 2


def test_upstream_still_exchanges_height_and_width(models: SmallModels) -> None:
    """When this test fails, diffusers has fixed KandinskyV22Img2ImgPipeline, and the scripts' workaround can go.

    The pack doesn't depend on it: it passes latents and a square dummy to the pipeline.
    """
    pipeline = scripts.loaded(KandinskyV22Img2ImgPipeline, models.named["kandinsky_decoder"], {})
    assert scripts.kandinsky_swaps_sizes(pipeline)


def test_the_shared_movq_is_itself_again_after_a_run() -> None:
    decoder = load("kandinsky_decoder")
    movq = decoder["movq"]
    before = (movq.encode, type(movq), dict(movq.__dict__).keys())
    image = scripts.read_like_host(scripts.soft_picture(128, 64))
    made = image_to_image(
        decoder, kandinsky_prompt(), ImageToImageSettings(0.5, 4, 4.0, 2), counting_runtime(), image=image
    )
    assert made.samples.shape == (1, 4, 8, 16), "the picture's height and width"
    assert (movq.encode, type(movq), dict(movq.__dict__).keys()) == before
    assert decoder["movq"] is movq
