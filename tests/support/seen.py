"""Paints pictures with the tiny world's models through a graph, and judges them.

Each check of several pictures is one prompt for the server, so shared parts are loaded and encoded only once.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image

from relay_host.server import HostServer
from support.graph import Graph, Out, saved
from tiny_world.drawing import draw
from tiny_world.judge import Seen, look, towards
from tiny_world.scene import Scene

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
COMIC = "ogkalu/Comic-Diffusion"
PIXEL = "kohbanye/pixel-art-style"
RING = "nitrosocke/elden-ring-diffusion"
INPAINTING = "stable-diffusion-v1-5/stable-diffusion-inpainting"
CONTROLNET = "lllyasviel/control_v11f1p_sd15_depth"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
REFINER = "stabilityai/stable-diffusion-xl-refiner-1.0"
PRIOR = "kandinsky-community/kandinsky-2-2-prior"
KANDINSKY = "kandinsky-community/kandinsky-2-2-decoder"
KANDINSKY_INPAINTING = "kandinsky-community/kandinsky-2-2-decoder-inpaint"
KANDINSKY_DEPTH = "kandinsky-community/kandinsky-2-2-controlnet-depth"
X2 = "stabilityai/sd-x2-latent-upscaler"
X4 = "stabilityai/stable-diffusion-x4-upscaler"

DECODERS = (KANDINSKY, KANDINSKY_INPAINTING, KANDINSKY_DEPTH)
UPSCALERS = (X2, X4)
SIDES = {SDXL: 512, REFINER: 512}
"""The picture size for models that don't use SIDE: half their native size."""
SIDE = 256
STEPS = 12
FAST = "DPMSolverMultistepScheduler"

Pictures = np.ndarray
"""[count, height, width, 3], 0 to 1"""


@dataclass
class Canvas:
    """A graph of the tiny world's models, selected by hub id."""

    server: HostServer
    graph: Graph = field(default_factory=Graph)
    models: dict[str, Out] = field(default_factory=dict)

    def model(self, repo: str) -> Out:
        """One loader per repository, with a fast scheduler if the model accepts one."""
        if repo not in self.models:
            more = {"revision": "", "variant": "auto", "dtype": "float32"}
            model = self.graph.add("RelayLoadModelFromHub", repo_id=repo, **more)
            if repo not in (PRIOR, *DECODERS, *UPSCALERS):
                fast = {"scheduler": FAST, "sigmas": "default", "timestep_spacing": "default"}
                model = self.graph.add("RelaySetScheduler", model=model, **fast)
            self.models[repo] = model
        return self.models[repo]

    def says(self, repo: str, text: str, negative: str = "", *, model: Out | None = None) -> Out:
        """A prompt for the repository's model, or for `model`, which was derived from it."""
        if repo in DECODERS:
            return self.graph.prior(self.model(PRIOR), text, negative, steps=STEPS, seed=1)
        return self.graph.encode(model or self.model(repo), text, negative)

    def paints(
        self, repo: str, text: str, count: int = 1, negative: str = "", *, model: Out | None = None, **settings: Any
    ) -> Out:
        """A latent with `count` pictures of the text, or of `prompt`."""
        side = SIDES.get(repo, SIDE)
        prompt = settings.pop("prompt", None) or self.says(repo, text, negative, model=model)
        given = {"width": side, "height": side, "batch_size": count, **_sampling(repo), **settings}
        return self.graph.text_to_image(model or self.model(repo), prompt, **given)

    def repaints(self, repo: str, text: str, *, model: Out | None = None, **settings: Any) -> Out:
        """A latent repainted from `latent` or `image`."""
        prompt = settings.pop("prompt", None) or self.says(repo, text, model=model)
        return self.graph.image_to_image(model or self.model(repo), prompt, **{**_sampling(repo), **settings})

    def inpaints(self, repo: str, text: str, mask: Out, **settings: Any) -> Out:
        given = {**_sampling(repo), **settings}
        return self.graph.inpaint(self.model(repo), self.says(repo, text), mask, **given)

    def drawn(self, scene: Scene, size: int = SIDE, count: int = 1) -> Out:
        """The scene's picture as an IMAGE, `count` times."""
        image = self.given(draw(scene, size), repr((scene, size)))
        return self.graph.add("RepeatImageBatch", image=image, amount=count)

    def given(self, picture: np.ndarray, name: str) -> Out:
        """A picture, [height, width, 3] in 0..1, as an IMAGE."""
        image = Image.fromarray((picture * 255).round().astype(np.uint8))
        return self.graph.picture(self.server, image, f"drawn-{zlib.crc32(name.encode()):08x}.png")

    def decoded(self, repo: str, latent: Out) -> Out:
        """Decodes with the repository's model, whatever the latent's space."""
        return self.graph.decode(self.model(repo), latent)

    def see(self, repo: str, *latents: Out) -> list[Pictures]:
        return self.look_at(*(self.decoded(repo, latent) for latent in latents))

    def look_at(self, *images: Out) -> list[Pictures]:
        nodes = [self.graph.save(image) for image in images]
        result = self.server.run(self.graph.prompt, timeout=280)
        return [saved(result, node) / 255.0 for node in nodes]


def _sampling(repo: str) -> dict[str, Any]:
    return {"steps": STEPS, "seed": 100, "guidance_scale": 4.0 if repo in DECODERS else 5.0}


def seen(pictures: Pictures) -> list[Seen]:
    return [look(picture) for picture in pictures]


def share(found: Iterable[bool]) -> float:
    every = list(found)
    return sum(every) / len(every)


def nearness(pictures: Pictures, color: str) -> float:
    """The mean nearness of the pictures' pixels to the colour."""
    return float(np.mean([towards(picture, color) for picture in pictures]))


def distance(pictures: Pictures, picture: np.ndarray) -> float:
    """The mean absolute difference, 0 to 1."""
    return float(np.abs(pictures - picture).mean())


def rises(values: Sequence[float], least: float = 0.0) -> bool:
    """Whether each value is more than `least` above the previous one."""
    return all(after - before > least for before, after in pairwise(values))
