"""The upscalers through the real server: the script's pixels, the guide's chain, the host's nodes, and bad input."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from reference import scripts, upscale_scripts
from relay_dev.model_folders import SmallModels
from relay_host.server import HostServer, PromptRejected
from small_models.native_checkpoint import NATIVE_NAME
from support.graph import Graph, Out, saved
from support.pixels import assert_same_pixels

PROMPT, NEGATIVE = "a red cat on a blue sofa", "dog"
SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
X2, X4 = "stabilityai/sd-x2-latent-upscaler", "stabilityai/stable-diffusion-x4-upscaler"


def soft(graph: Graph, server: HostServer, width: int = 32, height: int = 32) -> Out:
    return graph.picture(server, scripts.soft_picture(width, height), f"soft-{width}x{height}.png")


def from_hub(graph: Graph, repo_id: str) -> Out:
    return graph.add("RelayLoadModelFromHub", repo_id=repo_id, revision="", variant="auto", dtype="float32")


def finished(server: HostServer, graph: Graph, image: Out) -> np.ndarray:
    node = graph.save(image)
    return saved(server.run(graph.prompt), node)


@pytest.mark.parametrize("guidance_scale", [0.0, 7.0])
def test_x2_of_the_hub_after_text_to_image(server: HostServer, models: SmallModels, guidance_scale: float) -> None:
    graph = Graph()
    sd15, x2 = from_hub(graph, SD15), from_hub(graph, X2)
    first = graph.text_to_image(sd15, graph.encode(sd15, PROMPT), width=96, height=64, seed=1)
    settings = {"guidance_scale": guidance_scale, "seed": 2}
    latent = graph.latent_upscale(x2, graph.encode(x2, PROMPT, NEGATIVE), first, **settings)
    folder = models.published(SD15)
    latents = scripts.sd15_text_to_image(folder, PROMPT, width=96, height=64, seed=1, output_type="latent")
    script = upscale_scripts.latent_upscale(models.published(X2), latents, PROMPT, NEGATIVE, **settings)
    assert script.shape == (1, 128, 192, 3)
    assert_same_pixels(finished(server, graph, graph.decode(x2, latent)), script)


@pytest.mark.parametrize(("width", "height"), [(32, 32), (35, 26)])
def test_x4_of_the_hub(server: HostServer, models: SmallModels, width: int, height: int) -> None:
    graph = Graph()
    x4 = from_hub(graph, X4)
    settings = {"guidance_scale": 6.0, "noise_level": 40, "seed": 2}
    prompt = graph.encode(x4, PROMPT, NEGATIVE)
    image = graph.super_resolution(x4, prompt, image=soft(graph, server, width, height), **settings)
    picture = scripts.soft_picture(width, height)
    script = upscale_scripts.super_resolution(models.published(X4), picture, PROMPT, NEGATIVE, **settings)
    assert_same_pixels(finished(server, graph, image), script)


def test_the_guide_s_chain_in_one_graph(server: HostServer, models: SmallModels) -> None:
    graph = Graph()
    sd15, x2, x4 = graph.load("sd15"), graph.load("x2_upscaler"), graph.load("x4_upscaler")
    picture = soft(graph, server, 64, 64)
    latent = graph.image_to_image(sd15, graph.encode(sd15, PROMPT), image=picture, steps=2, seed=1)
    latent = graph.latent_upscale(x2, graph.encode(x2, PROMPT), latent, steps=2, seed=2)
    image = graph.super_resolution(x4, graph.encode(x4, PROMPT), latent=latent, steps=2, seed=3)
    named = models.named
    script = upscale_scripts.image_to_x2_to_x4(
        named["sd15"],
        named["x2_upscaler"],
        named["x4_upscaler"],
        scripts.soft_picture(64, 64),
        PROMPT,
        steps=2,
        seeds=(1, 2, 3),
    )
    assert script.shape == (1, 512, 512, 3)
    assert_same_pixels(finished(server, graph, image), script)


def test_x2_between_nodes_of_the_host(server: HostServer) -> None:
    """An untagged latent, with a size that needs padding, and the result in the host's own nodes."""
    graph = Graph()
    x2 = graph.load("x2_upscaler")
    encoded = graph.add("RelayEncode", model=x2, image=soft(graph, server, 104, 72), seed=0)
    cropped = graph.add("LatentCrop", samples=encoded, width=72, height=64, x=8, y=8)
    flipped = graph.add("LatentFlip", samples=cropped, flip_method="x-axis: vertically")
    latent = graph.latent_upscale(x2, graph.encode(x2, PROMPT), flipped)
    back = graph.add("LatentFlip", samples=latent, flip_method="x-axis: vertically")
    pixels = finished(server, graph, graph.decode(x2, back))
    assert pixels.shape == (1, 128, 144, 3)
    assert pixels.std() > 10


def test_tiles_of_a_batch(server: HostServer) -> None:
    graph = Graph()
    x4 = graph.load("x4_upscaler")
    batch = graph.add("RepeatImageBatch", image=soft(graph, server, 72, 64), amount=2)
    image = graph.super_resolution(x4, graph.encode(x4, PROMPT), image=batch, tile_size=64, steps=2)
    pixels = finished(server, graph, image)
    assert pixels.shape == (2, 256, 288, 3)
    assert (pixels[0] != pixels[1]).any()


@pytest.mark.parametrize("name", ["x2_upscaler", "x4_upscaler"])
def test_conditioning_for_the_host_s_samplers_is_refused_where_it_is_used(server: HostServer, name: str) -> None:
    graph = Graph()
    upscaler, sd15 = graph.load(name), graph.load("sd15")
    prompt = graph.encode(upscaler, PROMPT)
    combined = graph.add("ConditioningCombine", conditioning_1=prompt[1], conditioning_2=prompt[2])
    checkpoint = graph.add("CheckpointLoaderSimple", ckpt_name=f"{NATIVE_NAME}.safetensors")
    latent = graph.add("EmptyLatentImage", width=64, height=64, batch_size=1)
    settings = {"seed": 0, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    latent = graph.add(
        "KSampler", model=checkpoint, positive=combined, negative=combined, latent_image=latent, **settings
    )
    graph.save(graph.decode(sd15, latent))
    error = server.run(graph.prompt).error
    assert error is not None
    assert error.node_type == "ConditioningCombine"
    assert f"{name} is a Stable Diffusion" in error.message
    assert "leave positive and negative unconnected" in error.message


def x2_after(make: Callable[[Graph, HostServer], Out], **settings) -> Callable[[Graph, HostServer], None]:
    def build(graph: Graph, server: HostServer) -> None:
        x2 = graph.load("x2_upscaler")
        latent = graph.latent_upscale(x2, graph.encode(x2, PROMPT), make(graph, server), **settings)
        graph.save(graph.decode(x2, latent))

    return build


def noisy(graph: Graph, server: HostServer) -> Out:
    base = graph.load("sdxl_base")
    return graph.text_to_image(base, graph.encode(base, PROMPT), steps=5, denoising_end=0.8)


def sixteen_channels(graph: Graph, server: HostServer) -> Out:
    return graph.add("EmptySD3LatentImage", width=64, height=64, batch_size=1)


def x4_with(name: str = "x4_upscaler", **inputs) -> Callable[[Graph, HostServer], None]:
    def build(graph: Graph, server: HostServer) -> None:
        model = graph.load(name)
        given = {key: make(graph, server) if callable(make) else make for key, make in inputs.items()}
        graph.save(graph.super_resolution(model, given.pop("prompt", None) or graph.encode(model, PROMPT), **given))

    return build


def sd15_prompt(graph: Graph, server: HostServer) -> Out:
    return graph.encode(graph.load("sd15"), PROMPT)


def kandinsky_prompt(graph: Graph, server: HostServer) -> Out:
    return graph.prior(graph.load("kandinsky_prior"), PROMPT)


def untagged(graph: Graph, server: HostServer) -> Out:
    return graph.add("EmptyLatentImage", width=64, height=64, batch_size=1)


def tagged(graph: Graph, server: HostServer) -> Out:
    return graph.add("RelayEncode", model=graph.load("sd15"), image=soft(graph, server), seed=0)


def x2_with_another_prompt(graph: Graph, server: HostServer) -> None:
    x2 = graph.load("x2_upscaler")
    graph.save(graph.decode(x2, graph.latent_upscale(x2, sd15_prompt(graph, server), tagged(graph, server))))


def x2_of_another_model(graph: Graph, server: HostServer) -> None:
    sd15 = graph.load("sd15")
    graph.save(graph.decode(sd15, graph.latent_upscale(sd15, graph.encode(sd15, PROMPT), tagged(graph, server))))


def x2_paints(graph: Graph, server: HostServer) -> None:
    x2 = graph.load("x2_upscaler")
    graph.save(graph.decode(x2, graph.text_to_image(x2, graph.encode(x2, PROMPT))))


def x4_repaints(graph: Graph, server: HostServer) -> None:
    x4 = graph.load("x4_upscaler")
    graph.save(graph.decode(x4, graph.image_to_image(x4, graph.encode(x4, PROMPT), image=soft(graph, server))))


def x4_encodes(graph: Graph, server: HostServer) -> None:
    x4 = graph.load("x4_upscaler")
    graph.save(graph.decode(x4, graph.add("RelayEncode", model=x4, image=soft(graph, server), seed=0)))


def x4_decodes(graph: Graph, server: HostServer) -> None:
    graph.save(graph.decode(graph.load("x4_upscaler"), tagged(graph, server)))


def into_x4_s_space(graph: Graph, server: HostServer) -> None:
    converted = graph.add("RelayConvertLatent", model=graph.load("x4_upscaler"), latent=tagged(graph, server))
    graph.save(graph.decode(graph.load("sd15"), converted))


def x4_s_autoencoder_for_sd15(graph: Graph, server: HostServer) -> None:
    model = graph.add("RelaySetVae", model=graph.load("sd15"), vae_from=graph.load("x4_upscaler"))
    graph.save(graph.decode(model, tagged(graph, server)))


def a_scheduler_for_x2(graph: Graph, server: HostServer) -> None:
    choice = {"scheduler": "DDIMScheduler", "sigmas": "default", "timestep_spacing": "default"}
    x2 = graph.add("RelaySetScheduler", model=graph.load("x2_upscaler"), **choice)
    graph.save(graph.decode(x2, graph.latent_upscale(x2, graph.encode(x2, PROMPT), tagged(graph, server))))


def clip_skip_for_x2(graph: Graph, server: HostServer) -> None:
    x2 = graph.load("x2_upscaler")
    prompt = graph.encode(x2, PROMPT, clip_skip=1)
    graph.save(graph.decode(x2, graph.latent_upscale(x2, prompt, tagged(graph, server))))


BAD = {
    "x2: a latent that holds noise": (x2_after(noisy), "RelayLatentUpscale", "still holds noise.*run to the end"),
    "x2: sixteen channels": (x2_after(sixteen_channels), "RelayLatentUpscale", "decode it with that model"),
    "x2: SD1.5's prompt": (x2_with_another_prompt, "RelayLatentUpscale", "Encode the prompt again with this model"),
    "x2: another model": (x2_of_another_model, "RelayLatentUpscale", "can't do latent upscaling. Families that can"),
    "x2: text to image": (x2_paints, "RelayTextToImage", "can't do text-to-image. Families that can"),
    "x2: a scheduler": (a_scheduler_for_x2, "RelaySetScheduler", "It can run: EulerDiscreteScheduler"),
    "x2: clip_skip": (clip_skip_for_x2, "RelayEncodePrompt", "Set clip_skip to 0"),
    "x4: neither": (x4_with(), "RelaySuperResolution", "exactly one of them; neither is"),
    "x4: both": (x4_with(image=soft, latent=tagged), "RelaySuperResolution", "exactly one of them; both are"),
    "x4: an untagged latent": (x4_with(latent=untagged), "RelaySuperResolution", "Decode it with Decode Latent"),
    "x4: a latent that holds noise": (x4_with(latent=noisy), "RelaySuperResolution", "run to the end"),
    "x4: SD1.5's prompt": (x4_with(image=soft, prompt=sd15_prompt), "RelaySuperResolution", "Encode the prompt again"),
    "x4: Kandinsky's": (x4_with(image=soft, prompt=kandinsky_prompt), "RelaySuperResolution", "with Encode Prompt"),
    "x4: x2": (
        x4_with("x2_upscaler", image=soft),
        "RelaySuperResolution",
        "can't do super-resolution. Families that can",
    ),
    "x4: tiny": (x4_with(image=lambda g, s: soft(g, s, 3, 40)), "RelaySuperResolution", "Use a larger picture"),
    "x4: image to image": (x4_repaints, "RelayImageToImage", "can't do image-to-image. Families that can"),
    "x4: encode": (x4_encodes, "RelayEncode", "use Super Resolution"),
    "x4: decode": (x4_decodes, "RelayDecode", "use Super Resolution"),
    "x4: convert": (into_x4_s_space, "RelayConvertLatent", "use Super Resolution"),
    "x4: its autoencoder": (x4_s_autoencoder_for_sd15, "RelaySetVae", "Choose one of the same family"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_says_what_to_do(server: HostServer, kind: str) -> None:
    make, node_type, message = BAD[kind]
    graph = Graph()
    make(graph, server)
    error = server.run(graph.prompt).error
    assert error is not None, "the run should have failed"
    assert error.exception_type == "diffusers_relay.RelayError"
    assert error.node_type == node_type
    assert re.search(message, error.message), error.message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"tile_size": 100}, "multiple of 8 that is at least 64. The nearest is 96"),
        ({"tile_size": 32}, "The nearest is 64"),
        ({"tile_size": -64}, "tile_size"),
        ({"noise_level": 351}, "noise_level"),
        ({"noise_level": -1}, "noise_level"),
        ({"steps": 0}, "steps"),
    ],
)
def test_numbers_are_refused_before_anything_runs(server: HostServer, value: dict[str, int], message: str) -> None:
    graph = Graph()
    x4_with(image=soft, **value)(graph, server)
    with pytest.raises(PromptRejected, match=re.escape(message)):
        server.run(graph.prompt)
