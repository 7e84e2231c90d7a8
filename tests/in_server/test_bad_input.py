"""Bad input gives an error in the node that names the problem and the remedy, early, and the next prompt works."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reference import scripts
from relay_dev.model_folders import SmallModels
from relay_host.server import ExecutionError, HostServer, PromptRejected
from support.graph import Graph, Out, saved
from support.server_log import stages_during

PROMPT = "a red cat"


def soft(graph: Graph, server: HostServer, width: int = 64, height: int = 64) -> Out:
    return graph.picture(server, scripts.soft_picture(width, height), f"soft-{width}x{height}.png")


def finish(graph: Graph, model: Out, latent: Out) -> Out:
    return graph.save(graph.decode(model, latent))


def error_of(server: HostServer, graph: Graph) -> ExecutionError:
    result = server.run(graph.prompt)
    assert result.error is not None, "the run should have failed"
    assert result.error.exception_type in ("diffusers_relay.RelayError", "diffusers_relay.MissingFiles")
    return result.error


Make = Callable[[Graph, HostServer], None]


def sd15_image_to_image(**settings) -> Make:
    def make(graph: Graph, server: HostServer) -> None:
        model = graph.load("sd15")
        image = soft(graph, server)
        finish(graph, model, graph.image_to_image(model, graph.encode(model, PROMPT), image=image, **settings))

    return make


def sd15_text_to_image(**settings) -> Make:
    def make(graph: Graph, server: HostServer) -> None:
        model = graph.load("sd15")
        finish(graph, model, graph.text_to_image(model, graph.encode(model, PROMPT), **settings))

    return make


def neither(graph: Graph, server: HostServer) -> None:
    model = graph.load("sd15")
    finish(graph, model, graph.image_to_image(model, graph.encode(model, PROMPT)))


def both(graph: Graph, server: HostServer) -> None:
    model = graph.load("sd15")
    image = soft(graph, server)
    latent = graph.add("RelayEncode", model=model, image=image, seed=0)
    finish(graph, model, graph.image_to_image(model, graph.encode(model, PROMPT), image=image, latent=latent))


def kandinsky_size(graph: Graph, server: HostServer) -> None:
    prior, decoder = graph.load("kandinsky_prior"), graph.load("kandinsky_decoder")
    finish(graph, decoder, graph.text_to_image(decoder, graph.prior(prior, PROMPT), width=72, height=64))


def kandinsky_picture_size(graph: Graph, server: HostServer) -> None:
    prior, decoder = graph.load("kandinsky_prior"), graph.load("kandinsky_decoder")
    image = soft(graph, server, 100, 64)
    finish(graph, decoder, graph.image_to_image(decoder, graph.prior(prior, PROMPT), image=image))


def text_prompt_for_kandinsky(graph: Graph, server: HostServer) -> None:
    sd15, decoder = graph.load("sd15"), graph.load("kandinsky_decoder")
    finish(graph, decoder, graph.text_to_image(decoder, graph.encode(sd15, PROMPT)))


def image_prompt_for_sd15(graph: Graph, server: HostServer) -> None:
    prior, sd15 = graph.load("kandinsky_prior"), graph.load("sd15")
    finish(graph, sd15, graph.text_to_image(sd15, graph.prior(prior, PROMPT)))


def another_text_encoder(graph: Graph, server: HostServer) -> None:
    sd15, sdxl = graph.load("sd15"), graph.load("sdxl_base")
    finish(graph, sdxl, graph.text_to_image(sdxl, graph.encode(sd15, PROMPT)))


def a_decoder_for_a_prior(graph: Graph, server: HostServer) -> None:
    decoder = graph.load("kandinsky_decoder")
    finish(graph, decoder, graph.text_to_image(decoder, graph.prior(decoder, PROMPT)))


def encode_prompt_for_kandinsky(graph: Graph, server: HostServer) -> None:
    decoder = graph.load("kandinsky_decoder")
    finish(graph, decoder, graph.text_to_image(decoder, graph.encode(decoder, PROMPT)))


def a_prior_that_paints(graph: Graph, server: HostServer) -> None:
    prior = graph.load("kandinsky_prior")
    finish(graph, prior, graph.text_to_image(prior, graph.prior(prior, PROMPT)))


def a_refiner_for_text_to_image(graph: Graph, server: HostServer) -> None:
    refiner = graph.load("sdxl_refiner")
    finish(graph, refiner, graph.text_to_image(refiner, graph.encode(refiner, PROMPT)))


def noise_into_a_conversion(graph: Graph, server: HostServer) -> None:
    base, sd15 = graph.load("sdxl_base"), graph.load("sd15")
    noisy = graph.text_to_image(base, graph.encode(base, PROMPT), denoising_end=0.8, steps=5)
    finish(graph, sd15, graph.add("RelayConvertLatent", model=sd15, latent=noisy))


def noise_into_another_family(graph: Graph, server: HostServer) -> None:
    base, sd15 = graph.load("sdxl_base"), graph.load("sd15")
    noisy = graph.text_to_image(base, graph.encode(base, PROMPT), denoising_end=0.8, steps=5)
    finish(graph, sd15, graph.image_to_image(sd15, graph.encode(sd15, PROMPT), latent=noisy))


def a_range_that_is_empty(graph: Graph, server: HostServer) -> None:
    refiner = graph.load("sdxl_refiner")
    latent = graph.add("RelayEncode", model=refiner, image=soft(graph, server), seed=0)
    prompt = graph.encode(refiner, PROMPT)
    finish(graph, refiner, graph.image_to_image(refiner, prompt, latent=latent, denoising_start=0.8, denoising_end=0.5))


def a_start_after_the_last_step(graph: Graph, server: HostServer) -> None:
    refiner = graph.load("sdxl_refiner")
    latent = graph.add("RelayEncode", model=refiner, image=soft(graph, server), seed=0)
    prompt = graph.encode(refiner, PROMPT)
    finish(graph, refiner, graph.image_to_image(refiner, prompt, latent=latent, denoising_start=0.999, steps=4))


def nothing_before_the_end(graph: Graph, server: HostServer) -> None:
    base = graph.load("sdxl_base")
    finish(graph, base, graph.text_to_image(base, graph.encode(base, PROMPT), denoising_end=0.01, steps=4))


def a_range_for_sd15(graph: Graph, server: HostServer) -> None:
    model = graph.load("sd15")
    finish(graph, model, graph.text_to_image(model, graph.encode(model, PROMPT), denoising_end=0.8))


def an_unknown_model(graph: Graph, server: HostServer) -> None:
    model = graph.load("somebody elses model")
    finish(graph, model, graph.text_to_image(model, graph.encode(model, PROMPT)))


def a_model_outside_the_folders(graph: Graph, server: HostServer) -> None:
    model = graph.load("../../../etc")
    finish(graph, model, graph.text_to_image(model, graph.encode(model, PROMPT)))


def an_unknown_dtype(graph: Graph, server: HostServer) -> None:
    model = graph.load("sd15", "float8")
    finish(graph, model, graph.text_to_image(model, graph.encode(model, PROMPT)))


def an_unknown_syntax(graph: Graph, server: HostServer) -> None:
    model = graph.load("sd15")
    finish(graph, model, graph.text_to_image(model, graph.encode(model, PROMPT, syntax="mystic")))


def an_unknown_scheduler(graph: Graph, server: HostServer) -> None:
    model = graph.load("sd15")
    changed = graph.add(
        "RelaySetScheduler", model=model, scheduler="BestScheduler", sigmas="default", timestep_spacing="default"
    )
    finish(graph, changed, graph.text_to_image(changed, graph.encode(changed, PROMPT)))


def sigmas_that_it_cannot(graph: Graph, server: HostServer) -> None:
    model = graph.load("sd15")
    changed = graph.add(
        "RelaySetScheduler", model=model, scheduler="DDIMScheduler", sigmas="karras", timestep_spacing="default"
    )
    finish(graph, changed, graph.text_to_image(changed, graph.encode(changed, PROMPT)))


def a_scheduler_for_kandinsky(graph: Graph, server: HostServer) -> None:
    model = graph.load("kandinsky_decoder")
    changed = graph.add(
        "RelaySetScheduler",
        model=model,
        scheduler="EulerDiscreteScheduler",
        sigmas="default",
        timestep_spacing="default",
    )
    finish(graph, changed, graph.text_to_image(changed, graph.prior(graph.load("kandinsky_prior"), PROMPT)))


def a_vae_of_another_family(graph: Graph, server: HostServer) -> None:
    changed = graph.add("RelaySetVae", model=graph.load("sd15"), vae_from=graph.load("sdxl_base"))
    finish(graph, changed, graph.text_to_image(changed, graph.encode(changed, PROMPT)))


def pickles(graph: Graph, server: HostServer) -> None:
    model = graph.load("sd15_pickle")
    finish(graph, model, graph.text_to_image(model, graph.encode(model, PROMPT)))


def a_grid_that_does_not_fit(graph: Graph, server: HostServer) -> None:
    image = soft(graph, server)
    pair = graph.add("ImageBatch", image1=image, image2=image)
    graph.save(graph.add("RelayImageGrid", images=pair, rows=2, columns=2))


def two_kinds_of_prompt(graph: Graph, server: HostServer) -> None:
    sd15 = graph.load("sd15")
    mixed = graph.add(
        "RelayMixPrompts",
        prompt_a=graph.encode(sd15, PROMPT),
        prompt_b=graph.prior(graph.load("kandinsky_prior"), PROMPT),
        weight_b=0.5,
    )
    finish(graph, sd15, graph.text_to_image(sd15, mixed))


def two_pictures_for_one_prompt(graph: Graph, server: HostServer) -> None:
    image = soft(graph, server)
    pair = graph.add("ImageBatch", image1=image, image2=image)
    prompt = graph.add("RelayImagePrompt", prior=graph.load("kandinsky_prior"), image=pair)
    decoder = graph.load("kandinsky_decoder")
    finish(graph, decoder, graph.text_to_image(decoder, prompt))


def a_hub_id_that_is_a_path(graph: Graph, server: HostServer) -> None:
    model = graph.add("RelayLoadModelFromHub", repo_id="../../etc/passwd", revision="", variant="auto", dtype="auto")
    finish(graph, model, graph.text_to_image(model, graph.encode(model, PROMPT)))


def a_hub_id_that_is_not_here(graph: Graph, server: HostServer) -> None:
    model = graph.add(
        "RelayLoadModelFromHub", repo_id="nobody/no-such-model", revision="", variant="auto", dtype="auto"
    )
    finish(graph, model, graph.text_to_image(model, graph.encode(model, PROMPT)))


def a_latent_of_another_kind(graph: Graph, server: HostServer) -> None:
    model = graph.load("sd15")
    empty = graph.add("EmptySD3LatentImage", width=64, height=64, batch_size=1)
    finish(graph, model, graph.image_to_image(model, graph.encode(model, PROMPT), latent=empty))


def a_broken_weight(graph: Graph, server: HostServer) -> None:
    model = graph.load("sd15")
    finish(graph, model, graph.text_to_image(model, graph.encode(model, "a (red cat:1.3", syntax="a1111")))


def a_broken_weight_for_the_prior(graph: Graph, server: HostServer) -> None:
    prior, decoder = graph.load("kandinsky_prior"), graph.load("kandinsky_decoder")
    prompt = graph.prior(prior, "a [cat|dog]")
    graph.prompt[prompt.node]["inputs"]["syntax"] = "a1111"
    finish(graph, decoder, graph.text_to_image(decoder, prompt))


def picture_from(url: str) -> Make:
    def make(graph: Graph, server: HostServer) -> None:
        graph.save(graph.add("RelayLoadImageFromUrl", url=url.replace("PORT", str(server.port))))

    return make


CASES: dict[str, tuple[Make, str, str]] = {
    # name: (graph, node type in which it fails, what the message says)
    "no step left": (
        sd15_image_to_image(strength=0.1, steps=5),
        "RelayImageToImage",
        r"strength, steps: 5 steps at strength 0\.1 .*at least 10",
    ),
    "strength 0": (sd15_image_to_image(strength=0.0), "RelayImageToImage", r"strength: at 0 nothing is repainted"),
    "neither": (neither, "RelayImageToImage", r"image, latent: connect exactly one.*neither"),
    "both": (both, "RelayImageToImage", r"image, latent: connect exactly one.*both"),
    "a size that does not divide": (
        sd15_text_to_image(width=100),
        "RelayTextToImage",
        r"100x64.*multiples of 8.*104x64",
    ),
    "a size too large": (sd15_text_to_image(width=20000), "RelayTextToImage", r"20000x64 is too large.*16384"),
    "nothing before the end": (
        nothing_before_the_end,
        "RelayTextToImage",
        r"denoising_end, steps: none of the 4 steps lies before 0\.01",
    ),
    "a size for Kandinsky": (kandinsky_size, "RelayTextToImage", r"72x64.*multiples of 64.*64x64"),
    "a picture for Kandinsky": (
        kandinsky_picture_size,
        "RelayImageToImage",
        r"image: .*100x64.*multiples of 64.*128x64",
    ),
    "text for Kandinsky": (
        text_prompt_for_kandinsky,
        "RelayTextToImage",
        r"prompt: .*image embeddings.*Kandinsky Prior",
    ),
    "image embeddings for SD1.5": (
        image_prompt_for_sd15,
        "RelayTextToImage",
        r"prompt: .*text embeddings.*Encode Prompt",
    ),
    "another text encoder": (
        another_text_encoder,
        "RelayTextToImage",
        r"prompt: .*sd15.*sdxl_base.*Encode the prompt again",
    ),
    "a missing prior": (a_decoder_for_a_prior, "RelayKandinskyPrior", r"kandinsky_decoder.*prior"),
    "Encode Prompt for Kandinsky": (encode_prompt_for_kandinsky, "RelayEncodePrompt", r"Kandinsky Prior"),
    "a prior that paints": (a_prior_that_paints, "RelayTextToImage", r"kandinsky_prior.*text-to-image"),
    "a refiner from text": (
        a_refiner_for_text_to_image,
        "RelayTextToImage",
        r"sdxl_refiner.*text-to-image.*Stable Diffusion XL",
    ),
    "noise into a conversion": (
        noise_into_a_conversion,
        "RelayConvertLatent",
        r"latent: .*sdxl_base.*still holds noise.*0\.8",
    ),
    "noise into another family": (noise_into_another_family, "RelayImageToImage", r"still holds noise"),
    "an empty range": (a_range_that_is_empty, "RelayImageToImage", r"denoising_start, denoising_end"),
    "a start after the end": (a_start_after_the_last_step, "RelayImageToImage", r"steps: none of the .* steps is left"),
    "a range for SD1.5": (a_range_for_sd15, "RelayTextToImage", r"denoising_end: .*only SDXL"),
    "an unknown model": (an_unknown_model, "RelayLoadModel", r"model: 'somebody elses model'.*It has: .*sd15"),
    "a model outside": (a_model_outside_the_folders, "RelayLoadModel", r"model: '../../../etc'"),
    "an unknown dtype": (an_unknown_dtype, "RelayLoadModel", r"dtype: 'float8'.*bfloat16"),
    "an unknown syntax": (an_unknown_syntax, "RelayEncodePrompt", r"syntax: 'mystic'.*compel, a1111, plain"),
    "an unknown scheduler": (
        an_unknown_scheduler,
        "RelaySetScheduler",
        r"scheduler: .*'BestScheduler'.*EulerDiscreteScheduler",
    ),
    "sigmas": (sigmas_that_it_cannot, "RelaySetScheduler", r"sigmas: DDIMScheduler can't use 'karras'"),
    "a scheduler for Kandinsky": (
        a_scheduler_for_kandinsky,
        "RelaySetScheduler",
        r"Kandinsky.*EulerDiscreteScheduler.*DDPMScheduler",
    ),
    "a VAE of another family": (a_vae_of_another_family, "RelaySetVae", r"vae_from: .*sdxl_base.*sd15"),
    "pickles": (pickles, "RelayLoadModel", r"sd15_pickle.*safetensors"),
    "a grid": (a_grid_that_does_not_fit, "RelayImageGrid", r"rows, columns: .*1 x 2, 2 x 1"),
    "two kinds of prompt": (two_kinds_of_prompt, "RelayMixPrompts", r"prompt_a, prompt_b"),
    "two pictures": (two_pictures_for_one_prompt, "RelayImagePrompt", r"image: expected one picture.*Mix Prompts"),
    "a hub id that is a path": (a_hub_id_that_is_a_path, "RelayLoadModelFromHub", r"repo_id.*passwd"),
    "a hub id that is not here": (
        a_hub_id_that_is_not_here,
        "RelayLoadModelFromHub",
        r"HF_HUB_OFFLINE.*nobody/no-such-model.*models/diffusers",
    ),
    "a bracket that is not closed": (
        a_broken_weight,
        "RelayEncodePrompt",
        r"prompt: the '\(' at character 3 .*never closed",
    ),
    "a prompt that changes": (
        a_broken_weight_for_the_prior,
        "RelayKandinskyPrior",
        r"\[\.\.\.\|\.\.\.\] at character 3 ",
    ),
    "this very server": (
        picture_from("http://127.0.0.1/view?filename=example.png"),
        "RelayLoadImageFromUrl",
        r"url: 127\.0\.0\.1 is an address of this machine or of a local network",
    ),
    "this server by number": (picture_from("http://2130706433/x"), "RelayLoadImageFromUrl", r"url: .*this machine"),
    "this server's port": (
        picture_from("http://127.0.0.1:PORT/x"),
        "RelayLoadImageFromUrl",
        r"url: port \d+ .*80 and 443",
    ),
    "a file as a URL": (picture_from("file:///etc/passwd"), "RelayLoadImageFromUrl", r"url: file: is not fetched"),
    "no URL": (picture_from(""), "RelayLoadImageFromUrl", r"url: it is empty"),
    "another kind of latent": (a_latent_of_another_kind, "RelayImageToImage", r"latent: shape \[1, 16"),
}


AT_ONCE = {
    "a size that does not divide",
    "a size too large",
    "an unknown model",
    "a model outside",
    "an unknown syntax",
    "an unknown scheduler",
    "a hub id that is a path",
    "this server's port",
    "a file as a URL",
    "no URL",
}
"""Refused when the prompt is queued: nothing of it runs."""

EARLY = {"no step left", "strength 0", "neither", "a size for Kandinsky", "a prior that paints", "a range for SD1.5"}
"""Known from the inputs alone: no denoiser and no autoencoder is touched."""


@pytest.mark.parametrize("name", sorted(AT_ONCE))
def test_what_is_known_from_the_prompt_is_refused_before_anything_runs(server: HostServer, name: str) -> None:
    make, node_type, message = CASES[name]
    graph = Graph()
    make(graph, server)
    with stages_during(server) as stages, pytest.raises(PromptRejected) as caught:
        server.run(graph.prompt)
    assert stages() == []
    (errors,) = [e for e in caught.value.node_errors.values() if e["class_type"] == node_type]
    assert re.search(message, errors["errors"][0]["details"], re.DOTALL), errors


@pytest.mark.parametrize("name", [name for name in CASES if name not in AT_ONCE])
def test_the_error_says_what_to_do_and_the_next_run_works(server: HostServer, name: str) -> None:
    make, node_type, message = CASES[name]
    graph = Graph()
    make(graph, server)
    with stages_during(server) as stages:
        error = error_of(server, graph)
    assert error.node_type == node_type
    assert re.search(message, error.message, re.DOTALL), error.message
    assert str(server.base) not in error.message
    if name in EARLY:
        assert not [stage for stage in stages() if stage.startswith("vae")]
        assert not [stage for stage in stages() if "UNet" in stage]
    good = Graph()
    model = good.load("sd15")
    node = finish(good, model, good.text_to_image(model, good.encode(model, PROMPT), steps=2))
    assert saved(server.run(good.prompt), node).std() > 10


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "LA", "I;16"])
def test_every_kind_of_picture_works(server: HostServer, mode: str) -> None:
    """And the alpha of a JoinImageWithAlpha too: in a script an RGBA picture is silently taken for latents."""
    colours = scripts.soft_picture()
    if mode == "I;16":
        picture = Image.fromarray(np.array(colours.convert("L")).astype(np.uint16) * 257)
    else:
        picture = colours.convert(mode)
    graph = Graph()
    model = graph.load("sd15")
    image = graph.picture(server, picture, f"mode-{mode.replace(';', '')}.png")
    if mode == "RGBA":
        image = graph.add("JoinImageWithAlpha", image=image, alpha=image[1])
    node = finish(graph, model, graph.image_to_image(model, graph.encode(model, PROMPT), image=image, steps=3))
    pixels = saved(server.run(graph.prompt), node)
    assert pixels.shape == (1, 64, 64, 3)
    assert pixels.std() > 10


def test_batch_size_and_steps_out_of_range_are_refused_by_the_host(server: HostServer) -> None:
    for settings in ({"batch_size": 0}, {"steps": 0}, {"seed": -1}):
        graph = Graph()
        sd15_text_to_image(**settings)(graph, server)
        with pytest.raises(PromptRejected, match="min"):
            server.run(graph.prompt)


BROKEN = {
    "no JSON": ("{", r"model_index\.json"),
    "no class": (json.dumps({"_diffusers_version": "0.42.1"}), r"_class_name"),
    "another class": (json.dumps({"_class_name": "FluxPipeline"}), r"FluxPipeline"),
    "no unet": (None, r"unet"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder(server: HostServer, models: SmallModels, name: str) -> None:
    index, message = BROKEN[name]
    folder = Path(server.models / "diffusers" / "broken")
    shutil.copytree(models.named["sd15"], folder)
    try:
        if index is None:
            shutil.rmtree(folder / "unet")
        else:
            (folder / "model_index.json").unlink()
            (folder / "model_index.json").write_text(index, "utf-8")
        graph = Graph()
        model = graph.load("broken")
        finish(graph, model, graph.text_to_image(model, graph.encode(model, PROMPT)))
        error = error_of(server, graph)
        assert error.node_type == "RelayLoadModel"
        assert re.search(message, error.message), error.message
        assert "broken" in error.message
        (folder / "model_index.json").unlink()
        with pytest.raises(PromptRejected, match="model: 'broken' is not among the models"):
            server.run(graph.prompt)
    finally:
        shutil.rmtree(folder)
