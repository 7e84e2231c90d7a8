"""Kandinsky's depth ControlNet decoder through the real server: the script's pixels, chains, and bad input."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from reference import kandinsky_depth, scripts
from relay_dev.model_folders import SmallModels
from relay_host.server import HostServer
from support.graph import Graph, Out, saved
from support.pixels import assert_same_pixels
from support.server_log import stages_during

PROMPT = "a robot"
HUB_ID = "kandinsky-community/kandinsky-2-2-controlnet-depth"
HUB_PRIOR = "kandinsky-community/kandinsky-2-2-prior"


def soft(graph: Graph, server: HostServer, width: int = 64, height: int = 64) -> Out:
    return graph.picture(server, scripts.soft_picture(width, height), f"soft-{width}x{height}.png")


def hint(graph: Graph, server: HostServer, width: int = 64, height: int = 64) -> Out:
    return graph.hint(graph.picture(server, kandinsky_depth.depth_map(width, height), f"depth-{width}x{height}.png"))


def script_hint(width: int, height: int):
    return kandinsky_depth.make_hint(kandinsky_depth.depth_map(width, height))


def finished(server: HostServer, graph: Graph, model: Out, latent: Out) -> np.ndarray:
    node = graph.save(graph.decode(model, latent))
    return saved(server.run(graph.prompt), node)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (128, 64)])
@pytest.mark.parametrize("negative_prompt", ["", "lowres, ugly"])
def test_text_to_image_of_the_hub_s_model(
    server: HostServer, models: SmallModels, width: int, height: int, negative_prompt: str
) -> None:
    graph = Graph()
    prior, model = (
        graph.add("RelayLoadModelFromHub", repo_id=repo_id, revision="", variant="auto", dtype="float32")
        for repo_id in (HUB_PRIOR, HUB_ID)
    )
    prompt = graph.prior(prior, PROMPT, negative_prompt, seed=43)
    latent = graph.text_to_image(
        model,
        prompt,
        width=width,
        height=height,
        steps=5,
        guidance_scale=4.0,
        seed=44,
        control=hint(graph, server, width, height),
    )
    embeds = scripts.kandinsky_prior(models.published(HUB_PRIOR), PROMPT, negative_prompt or None, seed=43)
    script = kandinsky_depth.text_to_image(
        models.published(HUB_ID),
        embeds,
        script_hint(width, height),
        width=width,
        height=height,
        steps=5,
        seed=44,
    )
    assert_same_pixels(finished(server, graph, model, latent), script)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (128, 64)])
def test_image_to_image_with_the_emb2emb_prior(
    server: HostServer, models: SmallModels, width: int, height: int
) -> None:
    graph = Graph()
    model, image = graph.load("kandinsky_depth"), soft(graph, server, width, height)
    prompt = graph.prior(graph.load("kandinsky_prior"), PROMPT, image=image, strength=0.85, seed=43)
    latent = graph.image_to_image(
        model,
        prompt,
        image=image,
        strength=0.5,
        steps=6,
        guidance_scale=4.0,
        seed=44,
        control=hint(graph, server, width, height),
    )
    picture = scripts.soft_picture(width, height)
    pipeline = scripts.loaded(kandinsky_depth.KandinskyV22PriorEmb2EmbPipeline, models.named["kandinsky_prior"], {})
    embeds = pipeline(PROMPT, image=picture, strength=0.85, num_inference_steps=4, generator=scripts.generator(43))
    script = kandinsky_depth.image_to_image(
        models.named["kandinsky_depth"],
        picture,
        scripts.Prior(embeds.image_embeds, embeds.negative_image_embeds),
        script_hint(width, height),
        width=width,
        height=height,
        seed=44,
    )
    assert_same_pixels(finished(server, graph, model, latent), script)


def test_sd15_then_kandinsky_depth_then_the_other_decoder(server: HostServer) -> None:
    """One decode and one encode where the latent space changes, none between the two decoders, one decode at the end."""

    def run(seed: int) -> np.ndarray:
        graph = Graph()
        sd15, model, decoder = (graph.load(name) for name in ("sd15", "kandinsky_depth", "kandinsky_decoder"))
        prompt = graph.prior(graph.load("kandinsky_prior"), PROMPT)
        first = graph.text_to_image(sd15, graph.encode(sd15, PROMPT), width=128, height=64, seed=seed)
        settings = {"strength": 0.5, "steps": 6, "guidance_scale": 4.0}
        second = graph.image_to_image(model, prompt, latent=first, control=hint(graph, server, 128, 64), **settings)
        third = graph.image_to_image(decoder, prompt, latent=second, **settings)
        return finished(server, graph, decoder, third)

    run(1)  # the first run compares the latent spaces
    with stages_during(server) as stages:
        pixels = run(2)
    assert pixels.shape == (1, 64, 128, 3)
    assert pixels.std() > 10
    vaes = [stage for stage in stages() if stage.startswith("vae")]
    assert vaes == ["vae: AutoencoderKL", "vae: VQModel", "vae: VQModel"]


def test_a_mask_and_a_batch_with_a_hint_each(server: HostServer) -> None:
    graph = Graph()
    model = graph.load("kandinsky_depth")
    prompt = graph.prior(graph.load("kandinsky_prior"), PROMPT)
    image = soft(graph, server)
    pair = graph.add("ImageBatch", image1=image, image2=image)
    start = graph.add("RelayEncode", model=model, image=pair, seed=0)
    mask = graph.add("SolidMask", value=0.0, width=64, height=64)
    masked = graph.add("SetLatentNoiseMask", samples=start, mask=mask)
    other = graph.picture(server, kandinsky_depth.depth_map(seed=4), "depth-other.png")
    both = graph.add("ImageBatch", image1=image, image2=other)
    settings = {"strength": 0.5, "steps": 6, "guidance_scale": 4.0, "control": graph.hint(both)}
    kept = graph.save(graph.decode(model, graph.image_to_image(model, prompt, latent=masked, **settings)))
    painted = graph.save(graph.decode(model, graph.image_to_image(model, prompt, latent=start, **settings)))
    before = graph.save(graph.decode(model, start))
    result = server.run(graph.prompt)
    assert np.abs(saved(result, kept).astype(int) - saved(result, before)).max() <= 1
    pictures = saved(result, painted).astype(int)
    assert np.abs(pictures - saved(result, before)).max() > 20
    assert np.abs(pictures[0] - pictures[1]).max() > 20


def no_hint(graph: Graph, server: HostServer) -> tuple[Out, Out]:
    model = graph.load("kandinsky_depth")
    return model, graph.text_to_image(model, graph.prior(graph.load("kandinsky_prior"), PROMPT))


def no_hint_for_a_picture(graph: Graph, server: HostServer) -> tuple[Out, Out]:
    model = graph.load("kandinsky_depth")
    prompt = graph.prior(graph.load("kandinsky_prior"), PROMPT)
    return model, graph.image_to_image(model, prompt, image=soft(graph, server))


def for_the_other_decoder(graph: Graph, server: HostServer) -> tuple[Out, Out]:
    model = graph.load("kandinsky_decoder")
    prompt = graph.prior(graph.load("kandinsky_prior"), PROMPT)
    return model, graph.text_to_image(model, prompt, control=hint(graph, server))


def for_sd15(graph: Graph, server: HostServer) -> tuple[Out, Out]:
    model = graph.load("sd15")
    prompt = graph.encode(model, PROMPT)
    return model, graph.image_to_image(model, prompt, image=soft(graph, server), control=hint(graph, server))


def three_for_one(graph: Graph, server: HostServer) -> tuple[Out, Out]:
    model, image = graph.load("kandinsky_depth"), soft(graph, server)
    pair = graph.add("ImageBatch", image1=image, image2=image)
    three = graph.add("ImageBatch", image1=pair, image2=image)
    prompt = graph.prior(graph.load("kandinsky_prior"), PROMPT)
    return model, graph.image_to_image(model, prompt, image=pair, control=graph.hint(three))


def text_prompt(graph: Graph, server: HostServer) -> tuple[Out, Out]:
    sd15, model = graph.load("sd15"), graph.load("kandinsky_depth")
    return model, graph.text_to_image(model, graph.encode(sd15, PROMPT), control=hint(graph, server))


def a_size(graph: Graph, server: HostServer) -> tuple[Out, Out]:
    model = graph.load("kandinsky_depth")
    prompt = graph.prior(graph.load("kandinsky_prior"), PROMPT)
    return model, graph.text_to_image(model, prompt, width=72, control=hint(graph, server))


CASES: dict[str, tuple[Callable[[Graph, HostServer], tuple[Out, Out]], str, str]] = {
    "no hint": (no_hint, "RelayTextToImage", r"control: kandinsky_depth .*Connect Kandinsky Hint"),
    "no hint, image to image": (no_hint_for_a_picture, "RelayImageToImage", r"control: .*Connect Kandinsky Hint"),
    "the other decoder": (for_the_other_decoder, "RelayTextToImage", r"control: kandinsky_decoder .*no Kandinsky hint"),
    "another family": (for_sd15, "RelayImageToImage", r"control: sd15 .*no Kandinsky hint"),
    "three for two": (three_for_one, "RelayImageToImage", r"control: the hint has 3 depth maps, and 2 pictures"),
    "a text prompt": (text_prompt, "RelayTextToImage", r"prompt: .*image embeddings.*Kandinsky Prior"),
    "a size": (a_size, "RelayTextToImage", r"72x64.*multiples of 64.*64x64"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_said_before_any_model_paints(server: HostServer, name: str) -> None:
    make, node_type, message = CASES[name]
    graph = Graph()
    model, latent = make(graph, server)
    graph.save(graph.decode(model, latent))
    with stages_during(server) as stages:
        error = server.run(graph.prompt).error
    assert error is not None
    assert (error.node_type, error.exception_type) == (node_type, "diffusers_relay.RelayError")
    assert re.search(message, error.message, re.DOTALL), error.message
    assert not [stage for stage in stages() if stage.startswith("vae") or "UNet" in stage]
