"""Z-Image and Qwen-Image on the real server: the script's pixels, in one graph each."""

from __future__ import annotations

from typing import Any

import pytest

from reference import inpaint_scripts, qwen_image_scripts, scripts, z_image_scripts
from relay_dev.model_folders import SmallModels
from relay_host.server import HostServer
from support.graph import Graph, saved
from support.pixels import assert_same_pixels

PROMPT = "a red cat on a blue sofa"


def test_z_image(server: HostServer, models: SmallModels) -> None:
    picture, mask = scripts.soft_picture(96, 64), inpaint_scripts.mask_picture(96, 64)
    graph = Graph()
    model = graph.load("z_image")
    prompt = graph.encode(model, PROMPT, "dog")
    image, area = graph.picture(server, picture, "z-image.png"), graph.mask(server, mask, "z-image-mask.png")
    settings = {"guidance_scale": 4.0, "seed": 11}
    painted = graph.text_to_image(model, prompt, **settings)
    inpainted = graph.inpaint(model, prompt, area, image=image, strength=0.8, **settings)
    nodes = [graph.save(graph.decode(model, latent)) for latent in (painted, inpainted)]
    result = server.run(graph.prompt)
    folder = models.named["z_image"]
    assert_same_pixels(saved(result, nodes[0]), z_image_scripts.text_to_image(folder, PROMPT, "dog", **settings))
    changes: dict[str, Any] = {"strength": 0.8, "guidance_scale": 4.0, "seeds": [11]}
    assert_same_pixels(
        saved(result, nodes[1]), z_image_scripts.inpaint(folder, picture, mask, PROMPT, "dog", **changes)
    )


def test_qwen_image(server: HostServer, models: SmallModels) -> None:
    """Its latent goes through the host's own nodes, which know its frame axis, and on to Z-Image, which converts it."""
    picture = scripts.soft_picture(96, 64)
    graph = Graph()
    model = graph.load("qwen_image")
    prompt = graph.encode(model, PROMPT, "dog")
    image = graph.picture(server, picture, "qwen-image.png")
    settings = {"strength": 0.6, "seed": 11, "true_cfg_scale": 4.0}
    latent = graph.image_to_image(model, prompt, image=image, guidance_scale=1.0, **settings)
    twice = graph.add("RepeatLatentBatch", samples=latent, amount=2)
    other = graph.load("z_image")
    refined = graph.image_to_image(other, graph.encode(other, PROMPT), latent=twice, strength=0.5, guidance_scale=0.0)
    nodes = [graph.save(graph.decode(one, given)) for one, given in ((model, latent), (other, refined))]
    result = server.run(graph.prompt)
    script = qwen_image_scripts.image_to_image(models.named["qwen_image"], picture, PROMPT, "dog", **settings)
    assert_same_pixels(saved(result, nodes[0]), script)
    assert saved(result, nodes[1]).shape == (2, 64, 96, 3)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("z_image", {"width": 72}, r"72x64.*multiples of 16"),
        ("z_image", {"true_cfg_scale": 2.0}, r"true_cfg_scale: the pipelines of z_image \(Z-Image\) don't use it"),
        ("qwen_image", {"height": 72}, r"64x72.*multiples of 16"),
    ],
)
def test_bad_input_is_refused(server: HostServer, name: str, changes: dict[str, Any], said: str) -> None:
    import re

    graph = Graph()
    model = graph.load(name)
    graph.save(graph.decode(model, graph.text_to_image(model, graph.encode(model, PROMPT), **changes)))
    error = server.run(graph.prompt).error
    assert error is not None
    assert re.search(said, error.message), error.message
