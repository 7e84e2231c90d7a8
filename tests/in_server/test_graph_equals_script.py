"""A graph in the real server gives the same pixels as the plain diffusers script, saved as the host saves pictures."""

from __future__ import annotations

import numpy as np
import pytest
from diffusers import DPMSolverMultistepScheduler

from reference import scripts, task_scripts
from relay_dev.model_folders import SmallModels
from relay_host.server import HostServer
from support.graph import Graph, Out, saved
from support.pixels import assert_same_pixels
from support.server_log import stages_during

PROMPT = "a red cat on a blue sofa"
SQUARE, WIDE = (64, 64), (96, 64)


def run(server: HostServer, graph: Graph, image: Out) -> np.ndarray:
    node = graph.save(image)
    return saved(server.run(graph.prompt), node)


@pytest.mark.parametrize("size", [SQUARE, WIDE], ids=["square", "wide"])
@pytest.mark.parametrize(
    ("strength", "guidance_scale", "negative_prompt"),
    [
        (0.4, 7.5, ""),
        (0.6, 7.5, "dog"),
        (0.8, 7.5, ""),
        (1.0, 7.5, ""),
        (0.8, 1.0, "dog"),
        (0.8, 5.0, "dog"),
        (0.8, 10.0, ""),
    ],
)
def test_sd15_image_to_image(
    server: HostServer,
    models: SmallModels,
    size: tuple[int, int],
    strength: float,
    guidance_scale: float,
    negative_prompt: str,
) -> None:
    picture = scripts.soft_picture(*size)
    graph = Graph()
    model = graph.load("sd15")
    latent = graph.image_to_image(
        model,
        graph.encode(model, PROMPT, negative_prompt),
        image=graph.picture(server, picture, f"soft-{size[0]}x{size[1]}.png"),
        strength=strength,
        guidance_scale=guidance_scale,
        seed=11,
    )
    settings = {"strength": strength, "guidance_scale": guidance_scale, "seed": 11}
    script = scripts.sd15_image_to_image(models.named["sd15"], picture, PROMPT, negative_prompt or None, **settings)
    assert_same_pixels(run(server, graph, graph.decode(model, latent)), script)


def test_sd15_of_an_odd_size_takes_the_script_s_own_route(server: HostServer, models: SmallModels) -> None:
    picture = scripts.soft_picture(101, 77)
    graph = Graph()
    model = graph.load("sd15")
    image = graph.picture(server, picture, "odd.png")
    latent = graph.image_to_image(model, graph.encode(model, PROMPT), image=image, seed=11)
    script = scripts.sd15_image_to_image(models.named["sd15"], picture, PROMPT, seed=11)
    assert script.shape[1:3] == (72, 96)
    assert_same_pixels(run(server, graph, graph.decode(model, latent)), script)


@pytest.mark.parametrize("size", [SQUARE, WIDE], ids=["square", "wide"])
@pytest.mark.parametrize("negative_prompt", ["", "dog"])
def test_sdxl_refiner(server: HostServer, models: SmallModels, size: tuple[int, int], negative_prompt: str) -> None:
    picture = scripts.soft_picture(*size)
    graph = Graph()
    model = graph.load("sdxl_refiner")
    latent = graph.image_to_image(
        model,
        graph.encode(model, PROMPT, negative_prompt),
        image=graph.picture(server, picture, f"soft-{size[0]}x{size[1]}.png"),
        strength=0.5,
        steps=6,
        seed=12,
        aesthetic_score=7.0,
        negative_aesthetic_score=2.0,
    )
    script = scripts.sdxl_image_to_image(
        models.named["sdxl_refiner"],
        picture,
        PROMPT,
        negative_prompt or None,
        strength=0.5,
        steps=6,
        seed=12,
        aesthetic_score=7.0,
        negative_aesthetic_score=2.0,
    )
    assert_same_pixels(run(server, graph, graph.decode(model, latent)), script)


@pytest.mark.parametrize("negative_prompt", ["", "dog"])
def test_kandinsky_prior_and_image_to_image_not_square(
    server: HostServer, models: SmallModels, negative_prompt: str
) -> None:
    """diffusers swaps height and width; `scripts.kandinsky_image_to_image` undoes that, and the graph is correct."""
    picture = scripts.soft_picture(128, 64)
    graph = Graph()
    prior, decoder = graph.load("kandinsky_prior"), graph.load("kandinsky_decoder")
    prompt = graph.prior(prior, PROMPT, negative_prompt, seed=13)
    image = graph.picture(server, picture, "soft-128x64.png")
    latent = graph.image_to_image(decoder, prompt, image=image, strength=0.5, steps=6, guidance_scale=4.0, seed=14)
    embeds = scripts.kandinsky_prior(models.named["kandinsky_prior"], PROMPT, negative_prompt or None, seed=13)
    script = scripts.kandinsky_image_to_image(
        models.named["kandinsky_decoder"], picture, embeds, width=128, height=64, strength=0.5, steps=6, seed=14
    )
    assert script.shape == (1, 64, 128, 3)
    assert_same_pixels(run(server, graph, graph.decode(decoder, latent)), script)


def test_sd15_text_to_image_into_kandinsky(server: HostServer, models: SmallModels) -> None:
    """The guide's text-to-image-to-image through pictures: the script passes the float picture on, as the graph does."""
    graph = Graph()
    sd15, prior, decoder = (graph.load(name) for name in ("sd15", "kandinsky_prior", "kandinsky_decoder"))
    first = graph.text_to_image(sd15, graph.encode(sd15, PROMPT), width=128, height=64, seed=15)
    second = graph.image_to_image(
        decoder,
        graph.prior(prior, PROMPT, seed=16),
        image=graph.decode(sd15, first),
        strength=0.5,
        steps=6,
        guidance_scale=4.0,
        seed=17,
    )
    named = models.named
    picture = scripts.sd15_text_to_image(named["sd15"], PROMPT, width=128, height=64, seed=15, output_type="pt")
    embeds = scripts.kandinsky_prior(named["kandinsky_prior"], PROMPT, seed=16)
    script = scripts.kandinsky_image_to_image(
        named["kandinsky_decoder"], picture, embeds, width=128, height=64, strength=0.5, steps=6, seed=17
    )
    assert_same_pixels(run(server, graph, graph.decode(decoder, second)), script)


def test_latent_chain_of_three(server: HostServer, models: SmallModels) -> None:
    """The guide's image-to-image-to-image: latents from model to model, decoded once."""
    names, prompts = ("sd15", "comic", "pixel"), ("a cat", "a cat, comic", "a cat, pixels")
    picture = scripts.soft_picture(*WIDE)
    settings = {"strength": 0.6, "steps": 5, "guidance_scale": 7.5}
    graph = Graph()
    start: dict[str, Out] = {"image": graph.picture(server, picture, "soft-96x64.png")}
    for seed, (name, prompt) in enumerate(zip(names, prompts)):
        model = graph.load(name)
        start = {"latent": graph.image_to_image(model, graph.encode(model, prompt), seed=seed, **start, **settings)}
    image = graph.decode(model, start["latent"])
    with stages_during(server) as stages:
        pixels = run(server, graph, image)
    # The decode, the encode unless this picture is cached, and a probe of each autoencoder that wasn't probed yet.
    assert 1 <= stages().count("vae: AutoencoderKL") <= 5
    folders = [models.named[name] for name in names]
    assert_same_pixels(pixels, scripts.sd15_latent_chain(folders, picture, prompts, seeds=(0, 1, 2), **settings))


def test_sdxl_base_to_refiner(server: HostServer, models: SmallModels) -> None:
    graph = Graph()
    base, refiner = graph.load("sdxl_base"), graph.load("sdxl_refiner")
    first = graph.text_to_image(
        base, graph.encode(base, PROMPT), steps=10, guidance_scale=5.0, seed=3, denoising_end=0.8
    )
    second = graph.image_to_image(
        refiner, graph.encode(refiner, PROMPT), latent=first, steps=10, guidance_scale=5.0, seed=4
    )
    named = models.named
    script = scripts.sdxl_base_and_refiner(
        named["sdxl_base"], named["sdxl_refiner"], PROMPT, split=0.8, steps=10, seeds=(3, 4)
    )
    assert_same_pixels(run(server, graph, graph.decode(refiner, second)), script)


def test_sdxl_with_other_sizes(server: HostServer, models: SmallModels) -> None:
    graph = Graph()
    base = graph.load("sdxl_base")
    sizes = {"original_width": 48, "original_height": 32, "crop_left": 5, "crop_top": 90}
    sizes |= {"target_width": 0, "target_height": 0, "negative_original_width": 640, "negative_original_height": 512}
    prompt = graph.add("RelaySdxlSize", prompt=graph.encode(base, PROMPT, "dog"), **sizes)
    latent = graph.text_to_image(base, prompt, width=96, steps=5, guidance_scale=5.0, seed=3)
    script = task_scripts.paint(
        models.named["sdxl_base"],
        "text",
        PROMPT,
        "dog",
        original_size=(32, 48),
        crops_coords_top_left=(90, 5),
        negative_original_size=(512, 640),
        negative_target_size=(64, 96),
    )
    assert_same_pixels(run(server, graph, graph.decode(base, latent)), script)


def test_a_scheduler_with_its_options(server: HostServer, models: SmallModels) -> None:
    graph = Graph()
    model = graph.load("sd15")
    options = {"scheduler": "DPMSolverMultistepScheduler", "sigmas": "karras", "timestep_spacing": "trailing"}
    options |= {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    options |= {"algorithm_type": "sde-dpmsolver++", "euler_at_final": True}
    chosen = graph.add("RelaySetScheduler", model=model, **options)
    latent = graph.text_to_image(chosen, graph.encode(model, PROMPT), width=96, steps=5, guidance_scale=5.0, seed=3)
    changes = {name: value for name, value in options.items() if name not in ("scheduler", "sigmas")}
    script = task_scripts.paint(
        models.named["sd15"],
        "text",
        PROMPT,
        scheduler=lambda own: DPMSolverMultistepScheduler.from_config(own.config, use_karras_sigmas=True, **changes),
    )
    assert_same_pixels(run(server, graph, graph.decode(model, latent)), script)
