"""Guidance in a graph of the real server: the script's pixels, other branches unaffected, and nothing encoded again."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
from diffusers import DDIMScheduler

from reference import task_scripts
from reference.scripts import soft_picture
from relay_dev.model_folders import SmallModels
from relay_host.server import HostServer
from support.graph import Graph, Out, saved
from support.lcm import make_lcm
from support.pixels import assert_same_pixels
from support.server_log import stages_during

PROMPT, NEGATIVE = "a red cat", "dog"
SIZE = {"width": task_scripts.SIZE[0], "height": task_scripts.SIZE[1]}
SETTINGS = {**SIZE, "steps": task_scripts.STEPS, "guidance_scale": 5.0}


def guided(graph: Graph, model: Out, **values: Any) -> Out:
    plain = {"guidance_rescale": 0.0, "pag_scale": 0.0, "pag_layers": "mid"}
    return graph.add("RelaySetGuidance", model=model, **{**plain, **values})


def test_guidance_is_the_script_s_and_stays_in_its_branch(server: HostServer, models: SmallModels) -> None:
    def build(seed: int) -> tuple[Graph, list[Out]]:
        graph = Graph()
        model = graph.load("sd15")
        prompt = graph.encode(model, PROMPT, NEGATIVE)
        branches = [
            model,
            guided(graph, model, guidance_rescale=0.6, pag_scale=3.0, pag_layers="mid, up_blocks"),
            model,
        ]
        nodes = []
        for number, branch in enumerate(branches):
            latent = graph.text_to_image(branch, prompt, seed=seed + (number == 2), **SETTINGS)
            nodes.append(graph.save(graph.decode(branch, latent)))
        return graph, nodes

    graph, nodes = build(3)
    result = server.run(graph.prompt)
    before, with_guidance, after = (saved(result, node) for node in nodes)
    load = {"enable_pag": True, "pag_applied_layers": ["mid", "up_blocks"]}
    call = {"guidance_rescale": 0.6, "pag_scale": 3.0}
    folder = models.named["sd15"]
    assert_same_pixels(with_guidance, task_scripts.paint(folder, "text", PROMPT, NEGATIVE, load=load, **call))
    assert_same_pixels(before, task_scripts.paint(folder, "text", PROMPT, NEGATIVE))
    assert_same_pixels(after, task_scripts.paint(folder, "text", PROMPT, NEGATIVE, seed=4))
    assert np.abs(before.astype(int) - with_guidance).max() > 5

    graph, _ = build(8)
    with stages_during(server) as stages:
        server.run(graph.prompt).raise_for_error()
    assert not [stage for stage in stages() if stage.startswith("text")], "another seed encodes nothing"


def test_eta_is_the_script_s(server: HostServer, models: SmallModels) -> None:
    graph = Graph()
    model = graph.load("sd15")
    choice = {"scheduler": "DDIMScheduler", "sigmas": "default", "timestep_spacing": "default"}
    with_ddim = graph.add("RelaySetScheduler", model=model, **choice)
    latent = graph.text_to_image(with_ddim, graph.encode(model, PROMPT, NEGATIVE), seed=3, eta=0.6, **SETTINGS)
    node = graph.save(graph.decode(model, latent))
    script = task_scripts.paint(
        models.named["sd15"],
        "text",
        PROMPT,
        NEGATIVE,
        scheduler=lambda own: DDIMScheduler.from_config(own.config, clip_sample=False),
        eta=0.6,
    )
    assert_same_pixels(saved(server.run(graph.prompt), node), script)


def test_a_latent_consistency_model_is_the_script_s(server: HostServer) -> None:
    folder = make_lcm(server.models / "diffusers" / "lcm")
    try:
        graph = Graph()
        model = graph.load("lcm")
        prompt = graph.encode(model, PROMPT)
        settings = {"steps": 4, "guidance_scale": 8.5, "seed": 3}
        image = graph.picture(server, soft_picture(*task_scripts.SIZE), "soft-96x64.png")
        first = graph.text_to_image(model, prompt, **SIZE, **settings)
        second = graph.image_to_image(model, prompt, image=image, strength=0.7, **settings)
        nodes = [graph.save(graph.decode(model, latent)) for latent in (first, second)]
        result = server.run(graph.prompt)
        for node, task in zip(nodes, ("text", "image"), strict=True):
            call = {"takes_negative": False, "num_inference_steps": 4, "guidance_scale": 8.5}
            assert_same_pixels(saved(result, node), task_scripts.paint(folder, task, PROMPT, **call))
    finally:
        shutil.rmtree(folder)
