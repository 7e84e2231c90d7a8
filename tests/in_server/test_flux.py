"""Flux.1 on the real server: the script's pixels, and latents that ComfyUI's own nodes read."""

from __future__ import annotations

import re
from typing import Any

import pytest

from reference import flux_scripts, scripts
from reference.inpaint_scripts import mask_picture
from relay_dev.model_folders import SmallModels
from relay_host.server import HostServer
from support.graph import Graph, saved
from support.pixels import assert_same_pixels

PROMPT = "a red cat on a blue sofa"


@pytest.mark.parametrize("task", ["text", "image", "inpaint"])
def test_flux(server: HostServer, models: SmallModels, task: str) -> None:
    """On the way, the latent goes through ComfyUI's own nodes, which leave it as it is."""
    picture, mask = scripts.soft_picture(96, 64), mask_picture(96, 64)
    graph = Graph()
    model = graph.load("flux_dev")
    prompt = graph.encode(model, PROMPT, "dog")
    settings = {"steps": 4, "guidance_scale": 3.5, "seed": 11, "true_cfg_scale": 2.0}
    theirs: dict[str, Any] = {"seeds": [11], "negative_prompt": ["dog"], "true_cfg_scale": 2.0}
    if task == "text":
        latent = graph.text_to_image(model, prompt, width=96, height=64, **settings)
        theirs |= {"width": 96, "height": 64}
    else:
        image = graph.picture(server, picture, "flux.png")
        settings |= {"image": image, "strength": 0.8}
        theirs |= {"image": picture, "strength": 0.8}
        if task == "image":
            latent = graph.image_to_image(model, prompt, **settings)
        else:
            latent = graph.inpaint(model, prompt, graph.mask(server, mask, "flux_mask.png"), **settings)
            theirs |= {"mask": mask}
    flipped = graph.add("LatentFlip", samples=latent, flip_method="x-axis: vertically")
    same = graph.add("LatentFlip", samples=flipped, flip_method="x-axis: vertically")
    node = graph.save(graph.decode(model, same))
    script = flux_scripts.paint(models.named["flux_dev"], PROMPT, **theirs)
    assert_same_pixels(saved(server.run(graph.prompt), node), script)


def test_a_choice_that_flux_has_not_says_what_to_do(server: HostServer) -> None:
    graph = Graph()
    model = graph.load("flux_dev")
    choice = {"scheduler": "DDIMScheduler", "sigmas": "default", "timestep_spacing": "default", "shift": 3.0}
    other = graph.add("RelaySetScheduler", model=model, **choice)
    graph.save(graph.decode(model, graph.text_to_image(other, graph.encode(model, PROMPT))))
    error = server.run(graph.prompt).error
    assert error is not None
    assert re.search(r"Flux\.1 can't run 'DDIMScheduler'\. It can run: .*UniPCMultistepScheduler", error.message)
