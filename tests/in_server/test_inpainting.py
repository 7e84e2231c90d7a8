"""Inpainting through the real server: the script's pixels, the kept part, and bad input."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from reference import inpaint_scripts, scripts
from reference.control_scripts import Control, edges
from reference.inpaint_scripts import mask_picture
from relay_dev.model_folders import SmallModels
from relay_host.server import HostServer
from support.graph import Graph, Out, saved
from support.pixels import assert_same_pixels
from support.server_log import stages_during

PROMPT, NEGATIVE = "a red cat", "dog"
SIZE = (96, 64)
MASK = mask_picture(*SIZE)
INPAINTING = "stable-diffusion-v1-5/stable-diffusion-inpainting"
KANDINSKY = "kandinsky-community/kandinsky-2-2-decoder-inpaint"
KANDINSKY_PRIOR = "kandinsky-community/kandinsky-2-2-prior"


def picture(graph: Graph, server: HostServer, width: int = SIZE[0], height: int = SIZE[1]) -> Out:
    return graph.picture(server, scripts.soft_picture(width, height), f"soft-{width}x{height}.png")


def mask(graph: Graph, server: HostServer, white: Image.Image = MASK) -> Out:
    return graph.mask(server, white, f"mask-{white.width}x{white.height}.png")


def pixels(server: HostServer, graph: Graph, image: Out) -> np.ndarray:
    node = graph.save(image)
    return saved(server.run(graph.prompt), node)


@pytest.mark.parametrize(("name", "strength"), [("sd15", 0.7), ("sdxl_base", 1.0), ("sdxl_refiner", 0.6)])
def test_a_plain_model(server: HostServer, models: SmallModels, name: str, strength: float) -> None:
    graph = Graph()
    model = graph.load(name)
    prompt = graph.encode(model, PROMPT, NEGATIVE)
    source = {"image": picture(graph, server), "strength": strength, "seed": 9}
    latent = graph.inpaint(model, prompt, mask(graph, server), **source)
    script = inpaint_scripts.inpaint(
        models.named[name],
        scripts.soft_picture(*SIZE),
        MASK,
        PROMPT,
        NEGATIVE,
        width=96,
        height=64,
        strength=strength,
        seed=9,
    )
    assert_same_pixels(pixels(server, graph, graph.decode(model, latent)), script)


def test_a_model_for_inpainting(server: HostServer, models: SmallModels) -> None:
    """From a folder. The unmasked part is put back, which a script leaves to the user."""
    folder = models.named["sd15_inpaint"]
    graph = Graph()
    model = graph.load("sd15_inpaint")
    latent = graph.inpaint(
        model, graph.encode(model, PROMPT), mask(graph, server), image=picture(graph, server), seed=9
    )
    image = scripts.soft_picture(*SIZE)
    latents = inpaint_scripts.inpaint(folder, image, MASK, PROMPT, width=96, height=64, seed=9, output_type="latent")
    script = scripts.decode_latents(folder, inpaint_scripts.put_back(folder, image, MASK, latents, 9))
    assert_same_pixels(pixels(server, graph, graph.decode(model, latent)), script)


def test_a_controlnet_steers(server: HostServer, models: SmallModels) -> None:
    graph = Graph()
    model = graph.load("sd15")
    net = graph.add("RelayLoadControlNet", controlnet="sd15_canny", dtype="float32")
    settings = {"conditioning_scale": 0.8, "start": 0.0, "end": 0.6, "guess_mode": False}
    lines = graph.picture(server, edges(*SIZE), "edges-96x64.png")
    control = graph.add("RelayApplyControlNet", controlnet=net, image=lines, **settings)
    source = {"image": picture(graph, server), "control": control, "strength": 0.8, "seed": 9}
    latent = graph.inpaint(model, graph.encode(model, PROMPT), mask(graph, server), **source)
    script = inpaint_scripts.inpaint(
        models.named["sd15"],
        scripts.soft_picture(*SIZE),
        MASK,
        PROMPT,
        controls=[Control(models.controlnets["sd15_canny"], edges(*SIZE), 0.8, 0.0, 0.6)],
        width=96,
        height=64,
        strength=0.8,
        seed=9,
    )
    assert_same_pixels(pixels(server, graph, graph.decode(model, latent)), script)


def test_kandinsky_s_inpainting_decoder_of_the_hub(server: HostServer, models: SmallModels) -> None:
    graph = Graph()
    prior, model = (
        graph.add("RelayLoadModelFromHub", repo_id=repo_id, revision="", variant="auto", dtype="float32")
        for repo_id in (KANDINSKY_PRIOR, KANDINSKY)
    )
    prompt = graph.prior(prior, PROMPT, seed=3)
    white = mask_picture(128, 64, (40, 8, 104, 56))
    source = {"image": picture(graph, server, 128, 64), "steps": 4, "guidance_scale": 4.0, "seed": 9}
    latent = graph.inpaint(model, prompt, mask(graph, server, white), **source)
    script = inpaint_scripts.kandinsky_inpaint(
        models.published(KANDINSKY),
        scripts.soft_picture(128, 64),
        white,
        scripts.kandinsky_prior(models.published(KANDINSKY_PRIOR), PROMPT, seed=3),
        width=128,
        height=64,
        seed=9,
    )
    assert_same_pixels(pixels(server, graph, graph.decode(model, latent)), script)


def test_only_the_masked_area(server: HostServer, models: SmallModels) -> None:
    """The script's picture from Decode Latent, and the whole picture for ComfyUI's own nodes."""
    graph = Graph()
    model = graph.load("sd15_inpaint")
    source = {"image": picture(graph, server), "seed": 9, "padding_mask_crop": 6}
    latent = graph.inpaint(model, graph.encode(model, PROMPT), mask(graph, server), **source)
    node = graph.save(graph.decode(model, latent))
    upscaled = graph.add("LatentUpscaleBy", samples=latent, upscale_method="nearest-exact", scale_by=2.0)
    other = graph.save(graph.decode(model, upscaled), "upscaled")
    result = server.run(graph.prompt)
    script = inpaint_scripts.inpaint(
        models.named["sd15_inpaint"],
        scripts.soft_picture(*SIZE),
        MASK,
        PROMPT,
        width=None,  # the model's own size
        height=None,
        seed=9,
        padding_mask_crop=6,
        output_type="pil",
    )
    made, expected = saved(result, node)[0].astype(int), np.array(script[0]).astype(int)
    assert np.abs(made - expected).max() <= 1
    assert (made != expected).mean() < 1e-3
    assert saved(result, other)[0].shape == (128, 192, 3)


def test_a_soft_mask_of_the_host_s_nodes(server: HostServer, models: SmallModels) -> None:
    """Feather Mask makes the greys: from 1/33 at the left edge to 1 in column 33."""
    graph = Graph()
    model = graph.load("sd15_inpaint")
    white = graph.add("SolidMask", value=1.0, width=64, height=64)
    soft = graph.add("FeatherMask", mask=white, left=33, top=0, right=0, bottom=0)
    source = {"image": picture(graph, server, 64, 64), "seed": 9, "soft_mask": True}
    latent = graph.inpaint(model, graph.encode(model, PROMPT, NEGATIVE), soft, **source)
    columns = torch.tensor([(8 * column + 4.5) / 33 for column in range(8)]).clamp(max=1)
    folder = models.named["sd15_inpaint"]
    latents = inpaint_scripts.differential(
        folder, scripts.soft_picture(64, 64), columns, PROMPT, NEGATIVE, strength=1.0, seed=9, guidance_scale=7.5
    )
    script = scripts.decode_latents(folder, latents)
    assert_same_pixels(pixels(server, graph, graph.decode(model, latent)), script)


def test_pasted_over_the_picture_nothing_else_changes(server: HostServer) -> None:
    """Uses the host's own composite node, and the mask that Load Image makes from a picture's transparency."""
    source = scripts.soft_picture(*SIZE)
    opaque = Image.eval(MASK, lambda value: 255 - value)
    with_alpha = source.copy()
    with_alpha.putalpha(opaque)
    graph = Graph()
    model = graph.add("RelayLoadModelFromHub", repo_id=INPAINTING, revision="", variant="auto", dtype="float32")
    image = graph.picture(server, with_alpha, "alpha-96x64.png")
    latent = graph.inpaint(model, graph.encode(model, PROMPT), image[1], image=image, steps=3)
    composite = {"x": 0, "y": 0, "resize_source": False, "mask": image[1]}
    pasted = graph.add("ImageCompositeMasked", destination=image, source=graph.decode(model, latent), **composite)
    result = pixels(server, graph, pasted)[0]
    white = np.array(MASK) > 127
    assert (result[~white] == np.array(source)[~white]).all()
    assert np.abs(result[white].astype(int) - np.array(source)[white].astype(int)).mean() > 5


def test_what_another_model_painted_is_inpainted_with_no_pass(server: HostServer) -> None:
    """A fine-tune's latent, with the native node's mask in addition to our own."""
    graph = Graph()
    base, comic = graph.load("sd15"), graph.load("comic")
    painted = graph.text_to_image(base, graph.encode(base, PROMPT), width=96)
    latent = graph.inpaint(comic, graph.encode(comic, "a dog"), mask(graph, server), latent=painted, strength=0.8)
    decoded = [graph.save(graph.decode(base, one), f"inpaint-{index}") for index, one in enumerate((painted, latent))]
    with stages_during(server) as stages:
        result = server.run(graph.prompt)
    before, after = (saved(result, node)[0].astype(int) for node in decoded)
    changed, kept = (np.abs(before - after)[:, columns].mean() for columns in (slice(24, 56), slice(80, 96)))
    assert changed > 3 * kept, "the kept part differs only through the decoder's norms"
    # Two pictures are decoded, and each of the two autoencoders is probed once, unless it was probed before.
    assert 2 <= stages().count("vae: AutoencoderKL") <= 4


# --- bad input

Make = Callable[[Graph, HostServer], None]


def sd15(**changes) -> Make:
    def make(graph: Graph, server: HostServer) -> None:
        model = graph.load("sd15")
        source = {"image": picture(graph, server), **changes}
        latent = graph.inpaint(model, graph.encode(model, PROMPT), mask(graph, server), **source)
        graph.save(graph.decode(model, latent))

    return make


def an_opaque_picture_s_mask(graph: Graph, server: HostServer) -> None:
    model, image = graph.load("sd15"), picture(graph, server)
    graph.save(graph.decode(model, graph.inpaint(model, graph.encode(model, PROMPT), image[1], image=image)))


def neither(graph: Graph, server: HostServer) -> None:
    model = graph.load("sd15")
    graph.save(graph.decode(model, graph.inpaint(model, graph.encode(model, PROMPT), mask(graph, server))))


def strength_for_kandinsky(graph: Graph, server: HostServer) -> None:
    model, prior = graph.load("kandinsky_inpaint"), graph.load("kandinsky_prior")
    image = picture(graph, server, 128, 64)
    latent = graph.inpaint(model, graph.prior(prior, PROMPT), mask(graph, server), image=image, strength=0.5)
    graph.save(graph.decode(model, latent))


def a_crop_of_a_latent(graph: Graph, server: HostServer) -> None:
    model = graph.load("sd15")
    latent = graph.add("RelayEncode", model=model, image=picture(graph, server), seed=0)
    source = {"latent": latent, "padding_mask_crop": 6}
    graph.save(graph.decode(model, graph.inpaint(model, graph.encode(model, PROMPT), mask(graph, server), **source)))


def a_model_for_inpainting_elsewhere(graph: Graph, server: HostServer) -> None:
    model = graph.load("sd15_inpaint")
    latent = graph.image_to_image(model, graph.encode(model, PROMPT), image=picture(graph, server))
    graph.save(graph.decode(model, latent))


def three_masks(graph: Graph, server: HostServer) -> None:
    model, image = graph.load("sd15"), picture(graph, server)
    masks = graph.add("RepeatImageBatch", image=graph.add("MaskToImage", mask=mask(graph, server)), amount=3)
    three = graph.add("ImageToMask", image=masks, channel="red")
    graph.save(graph.decode(model, graph.inpaint(model, graph.encode(model, PROMPT), three, image=image)))


CASES: dict[str, tuple[Make, str, str]] = {
    "no step left": (sd15(strength=0.1), "RelayInpaint", r"strength, steps: 5 steps at strength 0\.1 .*at least 10"),
    "neither": (neither, "RelayInpaint", r"image, latent: connect exactly one.*neither"),
    "an empty mask": (an_opaque_picture_s_mask, "RelayInpaint", r"mask: it leaves nothing to repaint.*invert"),
    "three masks": (three_masks, "RelayInpaint", r"mask: the batch has 3 masks, but 1 picture is painted"),
    "strength for Kandinsky": (strength_for_kandinsky, "RelayInpaint", r"strength: .*must be 1.*0\.5"),
    "a crop of a latent": (a_crop_of_a_latent, "RelayInpaint", r"padding_mask_crop: 6 cuts the area out of a picture"),
    "elsewhere": (a_model_for_inpainting_elsewhere, "RelayImageToImage", r"model: .*made for inpainting.*Inpaint"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_names_what_to_do_and_the_next_run_works(server: HostServer, name: str) -> None:
    make, node_type, message = CASES[name]
    graph = Graph()
    make(graph, server)
    error = server.run(graph.prompt).error
    assert error is not None
    assert (error.exception_type, error.node_type) == ("diffusers_relay.RelayError", node_type)
    assert re.search(message, error.message), error.message
    graph = Graph()
    model = graph.load("sd15")
    latent = graph.inpaint(model, graph.encode(model, PROMPT), mask(graph, server), image=picture(graph, server))
    assert pixels(server, graph, graph.decode(model, latent)).std() > 10
