"""Stable Diffusion 3 on the real server: the script's pixels, and latents that go to another model and back."""

from __future__ import annotations

import re

import numpy as np
import pytest

from reference import scripts, sd3_scripts
from reference.inpaint_scripts import mask_picture
from relay_dev.model_folders import SmallModels
from relay_host.server import HostServer, RunResult
from support.graph import Graph, Out, saved
from support.pixels import assert_same_pixels

PROMPT = "a red cat on a blue sofa"


def run(server: HostServer, graph: Graph, image: Out) -> np.ndarray:
    node = graph.save(image)
    return saved(server.run(graph.prompt), node)


@pytest.mark.parametrize("name", ["sd3", "sd3_without_t5"])
def test_stable_diffusion_3(server: HostServer, models: SmallModels, name: str) -> None:
    picture = scripts.soft_picture(96, 64)
    graph = Graph()
    model = graph.load(name)
    prompt = graph.encode(model, PROMPT, "dog")
    image = graph.picture(server, picture, "sd3.png")
    settings = {"strength": 0.6, "steps": 5, "guidance_scale": 4.0, "seed": 11}
    latent = graph.image_to_image(model, prompt, image=image, **settings)
    script = sd3_scripts.image_to_image(models.named[name], picture, PROMPT, "dog", **settings)
    assert_same_pixels(run(server, graph, graph.decode(model, latent)), script)


def test_stable_diffusion_3_inpaints(server: HostServer, models: SmallModels) -> None:
    picture, mask = scripts.soft_picture(96, 64), mask_picture(96, 64)
    graph = Graph()
    model = graph.load("sd3")
    prompt = graph.encode(model, PROMPT, "dog")
    image, area = graph.picture(server, picture, "sd3.png"), graph.mask(server, mask, "sd3_mask.png")
    latent = graph.inpaint(model, prompt, area, image=image, strength=0.8, guidance_scale=4.0, seed=11)
    script = sd3_scripts.inpaint(models.named["sd3"], picture, mask, PROMPT, "dog", strength=0.8, seeds=[11])
    assert_same_pixels(run(server, graph, graph.decode(model, latent)), script)


def test_stable_diffusion_3_goes_on_in_sd15(server: HostServer, models: SmallModels) -> None:
    """Text to image by one, its latent to the other and back: each conversion is a decode and an encode, and the host's own VAE nodes
    take what comes out."""
    graph = Graph()
    sd3, sd15 = graph.load("sd3"), graph.load("sd15")
    painted = graph.text_to_image(
        sd3, graph.encode(sd3, PROMPT), width=64, height=64, batch_size=1, steps=4, guidance_scale=4.0, seed=5
    )
    repainted = graph.image_to_image(sd15, graph.encode(sd15, PROMPT), latent=painted, strength=0.5, seed=6)
    back = graph.image_to_image(sd3, graph.encode(sd3, PROMPT), latent=repainted, strength=0.5, seed=7)
    ours = run(server, graph, graph.decode(sd3, back))
    assert ours.shape == (1, 64, 64, 3)
    assert 10 < ours.std() < 120


def test_a_wrong_wire_and_a_wrong_size_say_what_to_do_and_the_next_run_works(server: HostServer) -> None:
    settings = {"width": 64, "batch_size": 1, "steps": 2, "guidance_scale": 4.0, "seed": 5}

    def result(prompt_of: str, height: int) -> RunResult:
        graph = Graph()
        sd3, other = graph.load("sd3"), graph.load(prompt_of)
        latent = graph.text_to_image(sd3, graph.encode(other, PROMPT), height=height, **settings)
        graph.save(graph.decode(sd3, latent))
        return server.run(graph.prompt)

    wire, size = result("sdxl_base", 64).error, result("sd3", 72).error
    assert wire is not None
    assert re.search(r"^prompt: .*sdxl_base.*Encode the prompt again with this model", wire.message)
    assert size is not None
    assert re.search(r"64x72.*multiples of 16.*The nearest is 64x80", size.message), size.message
    assert result("sd3", 64).error is None
