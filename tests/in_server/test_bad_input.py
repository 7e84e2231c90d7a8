"""Bad input gives an early error in the node, with the problem and the fix, and the next prompt works."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from reference import scripts
from relay_dev.model_folders import SmallModels
from relay_host.server import ExecutionError, HostServer, PromptRejected
from support.graph import Graph, Out, saved
from support.server_log import stages_during

PROMPT = "a red cat"
SD15, SDXL, REFINER = "sd15", "sdxl_base", "sdxl_refiner"
PRIOR, DECODER = "kandinsky_prior", "kandinsky_decoder"


class Workflow(Graph):
    """A graph in which each model is loaded once."""

    def __init__(self, server: HostServer) -> None:
        super().__init__()
        self.server = server
        self.models: dict[str, Out] = {}

    def model(self, name: str | Out, dtype: str = "float32") -> Out:
        if isinstance(name, Out):
            return name
        if name not in self.models:
            self.models[name] = self.load(name, dtype)
        return self.models[name]

    def text(self, name: str | Out, prompt: str = PROMPT, **settings: Any) -> Out:
        return self.encode(self.model(name), prompt, **settings)

    def guided(self, name: str, **values: Any) -> Out:
        plain = {"guidance_rescale": 0.0, "pag_scale": 0.0, "pag_layers": "mid"}
        return self.add("RelaySetGuidance", model=self.model(name), **{**plain, **values})

    def ip_adapter(self, file: str, encoder: str = "small_vit_h", **settings: Any) -> Out:
        loaded = self.add("RelayLoadIpAdapter", ip_adapter=file, image_encoder=encoder, dtype="float32")
        plain = {"weight": 1.0, "start": 0.0, "end": 1.0}
        return self.add("RelayIpAdapterImage", ip_adapter=loaded, images=self.soft(), **{**plain, **settings})

    def sized(self, name: str, **sizes: int) -> Out:
        zeros = dict.fromkeys(("original_width", "original_height", "crop_left", "crop_top"), 0)
        zeros |= {"target_width": 0, "target_height": 0}
        return self.add("RelaySdxlSize", prompt=self.text(name), **{**zeros, **sizes})

    def embeddings(self, name: str = PRIOR) -> Out:
        return self.prior(self.model(name), PROMPT)

    def soft(self, width: int = 64, height: int = 64) -> Out:
        return self.picture(self.server, scripts.soft_picture(width, height), f"soft-{width}x{height}.png")

    def pair(self) -> Out:
        return self.add("ImageBatch", image1=self.soft(), image2=self.soft())

    def encoded(self, name: str) -> Out:
        return self.add("RelayEncode", model=self.model(name), image=self.soft(), seed=0)

    def scheduled(self, name: str, scheduler: str, sigmas: str = "default", **options: Any) -> Out:
        settings = {"scheduler": scheduler, "sigmas": sigmas, "timestep_spacing": "default", **options}
        return self.add("RelaySetScheduler", model=self.model(name), **settings)

    def from_hub(self, repo_id: str) -> Out:
        return self.add("RelayLoadModelFromHub", repo_id=repo_id, revision="", variant="auto", dtype="auto")

    def noise(self) -> Out:
        """An SDXL latent that still contains noise."""
        return self.text_to_image(self.model(SDXL), self.text(SDXL), denoising_end=0.8, steps=5)

    def finish(self, name: str | Out, latent: Out) -> Out:
        return self.save(self.decode(self.model(name), latent))

    def paint(self, name: str | Out, prompt: Out | None = None, **settings: Any) -> Out:
        """A complete text-to-image graph."""
        prompt = prompt or self.text(name)
        return self.finish(name, self.text_to_image(self.model(name), prompt, **settings))

    def repaint(self, name: str, prompt: Out | None = None, **settings: Any) -> Out:
        """A complete image-to-image graph."""
        prompt = prompt or self.text(name)
        return self.finish(name, self.image_to_image(self.model(name), prompt, **settings))

    def prior_in_a1111(self, text: str) -> Out:
        prompt = self.prior(self.model(PRIOR), text)
        self.prompt[prompt.node]["inputs"]["syntax"] = "a1111"
        return prompt

    def from_url(self, url: str) -> Out:
        return self.save(self.add("RelayLoadImageFromUrl", url=url))


def error_of(server: HostServer, graph: Graph) -> ExecutionError:
    result = server.run(graph.prompt)
    assert result.error is not None, "the run should have failed"
    assert result.error.exception_type in ("diffusers_relay.RelayError", "diffusers_relay.MissingFiles")
    return result.error


QUEUED = "when it is queued"
"""No node of the prompt runs."""
INPUTS = "from the inputs alone"
"""No denoiser and no autoencoder runs."""
RUNNING = "in the run"


class Case(NamedTuple):
    name: str
    build: Callable[[Workflow], Any]
    fails_in: str
    says: str
    known: str = RUNNING


CASES = (
    Case(
        "no step left",
        lambda w: w.repaint(SD15, image=w.soft(), strength=0.1, steps=5),
        "RelayImageToImage",
        r"strength, steps: 5 steps at strength 0\.1 .*at least 10",
        INPUTS,
    ),
    Case(
        "strength 0",
        lambda w: w.repaint(SD15, image=w.soft(), strength=0.0),
        "RelayImageToImage",
        r"strength: 0 changes nothing",
        INPUTS,
    ),
    Case(
        "neither",
        lambda w: w.repaint(SD15),
        "RelayImageToImage",
        r"image, latent: connect exactly one.*neither",
        INPUTS,
    ),
    Case(
        "both",
        lambda w: w.repaint(SD15, image=w.soft(), latent=w.encoded(SD15)),
        "RelayImageToImage",
        r"image, latent: connect exactly one.*both",
    ),
    Case(
        "a size that does not divide",
        lambda w: w.paint(SD15, width=100),
        "RelayTextToImage",
        r"100x64.*multiples of 8.*104x64",
        QUEUED,
    ),
    Case(
        "a size too large",
        lambda w: w.paint(SD15, width=20000),
        "RelayTextToImage",
        r"20000x64 is too large.*16384",
        QUEUED,
    ),
    Case(
        "nothing before the end",
        lambda w: w.paint(SDXL, denoising_end=0.01, steps=4),
        "RelayTextToImage",
        r"denoising_end, steps: none of the 4 steps lies before 0\.01",
    ),
    Case(
        "a size for Kandinsky",
        lambda w: w.paint(DECODER, w.embeddings(), width=72, height=64),
        "RelayTextToImage",
        r"72x64.*multiples of 64.*64x64",
        INPUTS,
    ),
    Case(
        "a picture for Kandinsky",
        lambda w: w.repaint(DECODER, w.embeddings(), image=w.soft(100, 64)),
        "RelayImageToImage",
        r"image: .*100x64.*multiples of 64.*128x64",
    ),
    Case(
        "text for Kandinsky",
        lambda w: w.paint(DECODER, w.text(SD15)),
        "RelayTextToImage",
        r"prompt: .*image embeddings.*Kandinsky Prior",
    ),
    Case(
        "image embeddings for SD1.5",
        lambda w: w.paint(SD15, w.embeddings()),
        "RelayTextToImage",
        r"prompt: .*text embeddings.*Encode Prompt",
    ),
    Case(
        "another text encoder",
        lambda w: w.paint(SDXL, w.text(SD15)),
        "RelayTextToImage",
        r"prompt: .*sd15.*sdxl_base.*Encode the prompt again",
    ),
    Case(
        "a missing prior",
        lambda w: w.paint(DECODER, w.embeddings(DECODER)),
        "RelayKandinskyPrior",
        r"kandinsky_decoder.*prior",
    ),
    Case(
        "Encode Prompt for Kandinsky",
        lambda w: w.paint(DECODER, w.text(DECODER)),
        "RelayEncodePrompt",
        r"Kandinsky Prior",
    ),
    Case(
        "a prior that paints",
        lambda w: w.paint(PRIOR, w.embeddings()),
        "RelayTextToImage",
        r"kandinsky_prior.*text-to-image",
        INPUTS,
    ),
    Case(
        "a refiner from text",
        lambda w: w.paint(REFINER),
        "RelayTextToImage",
        r"sdxl_refiner.*text-to-image.*Stable Diffusion XL",
    ),
    Case(
        "noise into a conversion",
        lambda w: w.finish(SD15, w.add("RelayConvertLatent", model=w.model(SD15), latent=w.noise())),
        "RelayConvertLatent",
        r"latent: .*sdxl_base.*still holds noise.*0\.8",
    ),
    Case(
        "noise into another family",
        lambda w: w.repaint(SD15, latent=w.noise()),
        "RelayImageToImage",
        r"still holds noise",
    ),
    Case(
        "an empty range",
        lambda w: w.repaint(REFINER, latent=w.encoded(REFINER), denoising_start=0.8, denoising_end=0.5),
        "RelayImageToImage",
        r"denoising_start, denoising_end",
    ),
    Case(
        "a start after the end",
        lambda w: w.repaint(REFINER, latent=w.encoded(REFINER), denoising_start=0.999, steps=4),
        "RelayImageToImage",
        r"steps: none of the .* steps is left",
    ),
    Case(
        "a range for SD1.5",
        lambda w: w.paint(SD15, denoising_end=0.8),
        "RelayTextToImage",
        r"denoising_end: .*can't stop at .*Families that can: Stable Diffusion XL",
        INPUTS,
    ),
    Case(
        "an unknown model",
        lambda w: w.paint("somebody elses model"),
        "RelayLoadModel",
        r"model: 'somebody elses model'.*It has: .*sd15",
        QUEUED,
    ),
    Case("a model outside", lambda w: w.paint("../../../etc"), "RelayLoadModel", r"model: '../../../etc'", QUEUED),
    Case(
        "an unknown dtype", lambda w: w.paint(w.load("sd15", "float8")), "RelayLoadModel", r"dtype: 'float8'.*bfloat16"
    ),
    Case(
        "an unknown syntax",
        lambda w: w.paint(SD15, w.text(SD15, syntax="mystic")),
        "RelayEncodePrompt",
        r"syntax: 'mystic'.*compel, a1111, plain",
        QUEUED,
    ),
    Case(
        "an unknown scheduler",
        lambda w: w.paint(w.scheduled(SD15, "BestScheduler")),
        "RelaySetScheduler",
        r"scheduler: .*'BestScheduler'.*EulerDiscreteScheduler",
        QUEUED,
    ),
    Case(
        "sigmas",
        lambda w: w.paint(w.scheduled(SD15, "DDIMScheduler", "karras")),
        "RelaySetScheduler",
        r"sigmas: DDIMScheduler can't use 'karras'",
    ),
    Case(
        "a scheduler for Kandinsky",
        lambda w: w.paint(w.scheduled(DECODER, "EulerDiscreteScheduler"), w.embeddings()),
        "RelaySetScheduler",
        r"Kandinsky.*EulerDiscreteScheduler.*DDPMScheduler",
    ),
    Case(
        "a VAE of another family",
        lambda w: w.paint(w.add("RelaySetVae", model=w.model(SD15), vae_from=w.model(SDXL))),
        "RelaySetVae",
        r"vae_from: .*sd15.*sdxl_base",
    ),
    Case("pickles", lambda w: w.paint("sd15_pickle"), "RelayLoadModel", r"sd15_pickle.*safetensors"),
    Case(
        "a grid",
        lambda w: w.save(w.add("RelayImageGrid", images=w.pair(), rows=2, columns=2)),
        "RelayImageGrid",
        r"rows, columns: .*1 x 2, 2 x 1",
    ),
    Case(
        "two kinds of prompt",
        lambda w: w.paint(SD15, w.add("RelayMixPrompts", prompt_a=w.text(SD15), prompt_b=w.embeddings(), weight_b=0.5)),
        "RelayMixPrompts",
        r"prompt_a, prompt_b",
    ),
    Case(
        "an option of a scheduler that does not have it",
        lambda w: w.paint(w.scheduled(SD15, "PNDMScheduler", rescale_betas_zero_snr=True), w.text(SD15)),
        "RelaySetScheduler",
        r"rescale_betas_zero_snr: PNDMScheduler does not have it\. Switch it off, or choose one of: DDIM",
    ),
    Case(
        "a layer that is not there",
        lambda w: w.paint(w.guided(SD15, pag_scale=3.0, pag_layers="blocks.9"), w.text(SD15)),
        "RelaySetGuidance",
        r"pag_layers: 'blocks\.9' matches no layer with self-attention\. sd15 has: mid, down_blocks",
    ),
    Case(
        "guidance that the run would ignore",
        lambda w: w.finish(
            SD15,
            w.image_to_image(w.guided(SD15, guidance_rescale=0.7), w.text(SD15), image=w.soft()),
        ),
        "RelayImageToImage",
        r"guidance_rescale: diffusers' image-to-image with sd15 .* doesn't use it",
        INPUTS,
    ),
    Case(
        "eta with a scheduler that does not use it",
        lambda w: w.paint(SD15, eta=0.5),
        "RelayTextToImage",
        r"eta: PNDMScheduler doesn't use it\. Set eta to 0",
        INPUTS,
    ),
    Case(
        "an IP-Adapter for another model",
        lambda w: w.paint(SDXL, ip_adapter=w.ip_adapter("models/ip-adapter_sd15.safetensors")),
        "RelayTextToImage",
        r"ip_adapter: models/ip-adapter_sd15\.safetensors was made for another kind of model than sdxl_base",
        INPUTS,
    ),
    Case(
        "an IP-Adapter's other image encoder",
        lambda w: w.paint(SD15, ip_adapter=w.ip_adapter("models/ip-adapter_sd15.safetensors", "small_vit_g")),
        "RelayLoadIpAdapter",
        r"^image_encoder: small_vit_g is not the one for models/ip-adapter_sd15",
        INPUTS,
    ),
    Case(
        "an IP-Adapter as a pickle",
        lambda w: w.paint(SD15, ip_adapter=w.ip_adapter("pickled.bin")),
        "RelayLoadIpAdapter",
        r"ip_adapter: pickled\.bin is not a \.safetensors file",
        QUEUED,
    ),
    Case(
        "a range of an IP-Adapter that is none",
        lambda w: w.paint(SD15, ip_adapter=w.ip_adapter("models/ip-adapter_sd15.safetensors", start=0.6, end=0.5)),
        "RelayIpAdapterImage",
        r"start, end: an IP-Adapter can't be applied from 0\.6 to 0\.5",
        QUEUED,
    ),
    Case(
        "half of a size",
        lambda w: w.paint(SDXL, w.sized(SDXL, original_width=512)),
        "RelaySdxlSize",
        r"original_width, original_height: 512x0 is no size",
    ),
    Case(
        "sizes for a model that reads none",
        lambda w: w.paint(SD15, w.sized(SD15, crop_top=5)),
        "RelayTextToImage",
        r"prompt: it has sizes from SDXL Size, but sd15 .* reads none",
        INPUTS,
    ),
    Case(
        "two pictures",
        lambda w: w.paint(DECODER, w.add("RelayImagePrompt", prior=w.model(PRIOR), image=w.pair())),
        "RelayImagePrompt",
        r"image: expected one picture.*Mix Prompts",
    ),
    Case(
        "a hub id that is a path",
        lambda w: w.paint(w.from_hub("../../etc/passwd")),
        "RelayLoadModelFromHub",
        r"repo_id.*passwd",
        QUEUED,
    ),
    Case(
        "a hub id that is not here",
        lambda w: w.paint(w.from_hub("nobody/no-such-model")),
        "RelayLoadModelFromHub",
        r"HF_HUB_OFFLINE.*nobody/no-such-model.*models/diffusers",
    ),
    Case(
        "a bracket that is not closed",
        lambda w: w.paint(SD15, w.text(SD15, "a (red cat:1.3", syntax="a1111")),
        "RelayEncodePrompt",
        r"prompt: the '\(' at character 3 .*never closed",
    ),
    Case(
        "a prompt that changes",
        lambda w: w.paint(DECODER, w.prior_in_a1111("a [cat|dog]")),
        "RelayKandinskyPrior",
        r"\[\.\.\.\|\.\.\.\] at character 3 ",
    ),
    Case(
        "this very server",
        lambda w: w.from_url("http://127.0.0.1/view?filename=example.png"),
        "RelayLoadImageFromUrl",
        r"url: 127\.0\.0\.1 has an address on this machine or a local network",
    ),
    Case(
        "this server by number",
        lambda w: w.from_url("http://2130706433/x"),
        "RelayLoadImageFromUrl",
        r"url: .*this machine",
    ),
    Case(
        "this server's port",
        lambda w: w.from_url(f"http://127.0.0.1:{w.server.port}/x"),
        "RelayLoadImageFromUrl",
        r"url: port \d+ .*80 and 443",
        QUEUED,
    ),
    Case(
        "a file as a URL",
        lambda w: w.from_url("file:///etc/passwd"),
        "RelayLoadImageFromUrl",
        r"url: .*not file:",
        QUEUED,
    ),
    Case("no URL", lambda w: w.from_url(""), "RelayLoadImageFromUrl", r"url: it is empty", QUEUED),
    Case(
        "another kind of latent",
        lambda w: w.repaint(SD15, latent=w.add("EmptySD3LatentImage", width=64, height=64, batch_size=1)),
        "RelayImageToImage",
        r"latent: shape \[1, 16",
    ),
)


def cases(*known: str) -> pytest.MarkDecorator:
    chosen = [case for case in CASES if case.known in known]
    return pytest.mark.parametrize("case", chosen, ids=lambda case: case.name)


@cases(QUEUED)
def test_what_is_known_from_the_prompt_is_refused_before_anything_runs(server: HostServer, case: Case) -> None:
    graph = Workflow(server)
    case.build(graph)
    with stages_during(server) as stages, pytest.raises(PromptRejected) as caught:
        server.run(graph.prompt)
    assert stages() == []
    (errors,) = [e for e in caught.value.node_errors.values() if e["class_type"] == case.fails_in]
    assert re.search(case.says, errors["errors"][0]["details"], re.DOTALL), errors


@cases(INPUTS, RUNNING)
def test_the_error_says_what_to_do_and_the_next_run_works(server: HostServer, case: Case) -> None:
    graph = Workflow(server)
    case.build(graph)
    with stages_during(server) as stages:
        error = error_of(server, graph)
    assert error.node_type == case.fails_in
    assert re.search(case.says, error.message, re.DOTALL), error.message
    assert str(server.base) not in error.message
    if case.known == INPUTS:
        assert not [stage for stage in stages() if stage.startswith("vae")]
        assert not [stage for stage in stages() if "UNet" in stage]
    good = Workflow(server)
    node = good.paint(SD15, steps=2)
    assert saved(server.run(good.prompt), node).std() > 10


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "LA", "I;16"])
def test_every_kind_of_picture_works(server: HostServer, mode: str) -> None:
    """Also with an alpha channel from JoinImageWithAlpha: a script silently takes an RGBA picture for latents."""
    colours = scripts.soft_picture()
    if mode == "I;16":
        picture = Image.fromarray(np.array(colours.convert("L")).astype(np.uint16) * 257)
    else:
        picture = colours.convert(mode)
    graph = Workflow(server)
    image = graph.picture(server, picture, f"mode-{mode.replace(';', '')}.png")
    if mode == "RGBA":
        image = graph.add("JoinImageWithAlpha", image=image, alpha=image[1])
    node = graph.repaint(SD15, image=image, steps=3)
    pixels = saved(server.run(graph.prompt), node)
    assert pixels.shape == (1, 64, 64, 3)
    assert pixels.std() > 10


def test_batch_size_and_steps_out_of_range_are_refused_by_the_host(server: HostServer) -> None:
    for settings in ({"batch_size": 0}, {"steps": 0}, {"seed": -1}):
        graph = Workflow(server)
        graph.paint(SD15, **settings)
        with pytest.raises(PromptRejected, match="min"):
            server.run(graph.prompt)


BROKEN = {
    "not a JSON": ("{", r"model_index\.json"),
    "no class": (json.dumps({"_diffusers_version": "0.42.1"}), r"_class_name"),
    "another class": (json.dumps({"_class_name": "PixArtAlphaPipeline"}), r"PixArtAlphaPipeline"),
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
        graph = Workflow(server)
        graph.paint("broken")
        error = error_of(server, graph)
        assert error.node_type == "RelayLoadModel"
        assert re.search(message, error.message), error.message
        assert "broken" in error.message
        (folder / "model_index.json").unlink()
        with pytest.raises(PromptRejected, match="model: 'broken' is not among the models"):
            server.run(graph.prompt)
    finally:
        shutil.rmtree(folder)
