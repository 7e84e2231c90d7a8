"""Workflows in API format, written like calls in a script.

graph = Graph()
model = graph.add("RelayLoadModel", model="sd15", dtype="float32")
prompt = graph.add("RelayEncodePrompt", model=model, prompt="a cat", negative_prompt="", syntax="compel", clip_skip=0)
graph.add("SaveImage", images=..., filename_prefix="x")
server.run(graph.prompt)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from relay_host.server import HostServer, RunResult


@dataclass(frozen=True)
class Out:
    """An output of a node."""

    node: str
    index: int = 0

    def __getitem__(self, index: int) -> Out:
        return Out(self.node, index)


@dataclass
class Graph:
    prompt: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, class_type: str, **inputs: Any) -> Out:
        node = str(len(self.prompt) + 1)
        linked = {key: [value.node, value.index] if isinstance(value, Out) else value for key, value in inputs.items()}
        self.prompt[node] = {"class_type": class_type, "inputs": linked}
        return Out(node)

    def load(self, name: str, dtype: str = "float32") -> Out:
        return self.add("RelayLoadModel", model=name, dtype=dtype)

    def encode(
        self, model: Out, prompt: str, negative_prompt: str = "", syntax: str = "compel", clip_skip: int = 0
    ) -> Out:
        texts = {"prompt": prompt, "negative_prompt": negative_prompt, "syntax": syntax, "clip_skip": clip_skip}
        return self.add("RelayEncodePrompt", model=model, **texts)

    def prior(
        self, prior: Out, prompt: str, negative_prompt: str = "", *, steps: int = 4, seed: int = 0, **others: Any
    ) -> Out:
        texts = {"prompt": prompt, "negative_prompt": negative_prompt, "syntax": "compel"}
        return self.add(
            "RelayKandinskyPrior",
            prior=prior,
            **texts,
            **{"steps": steps, "guidance_scale": 4.0, "seed": seed, **others},
        )

    def text_to_image(self, model: Out, prompt: Out, **settings: Any) -> Out:
        defaults = {"width": 64, "height": 64, "batch_size": 1, "steps": 4, "guidance_scale": 7.5, "seed": 0}
        return self.add("RelayTextToImage", model=model, prompt=prompt, **{**defaults, **settings})

    def image_to_image(self, model: Out, prompt: Out, **settings: Any) -> Out:
        defaults = {"strength": 0.8, "steps": 5, "guidance_scale": 7.5, "seed": 0}
        return self.add("RelayImageToImage", model=model, prompt=prompt, **{**defaults, **settings})

    def inpaint(self, model: Out, prompt: Out, mask: Out, **settings: Any) -> Out:
        defaults = {"strength": 1.0, "steps": 5, "guidance_scale": 7.5, "seed": 0}
        return self.add("RelayInpaint", model=model, prompt=prompt, mask=mask, **{**defaults, **settings})

    def mask(self, server: HostServer, picture: Image.Image, name: str) -> Out:
        """A grey picture as a MASK; white is 1."""
        picture.save(server.folders["input"] / name)
        return self.add("LoadImageMask", image=name, channel="red")

    def latent_upscale(self, model: Out, prompt: Out, latent: Out, **settings: Any) -> Out:
        defaults = {"steps": 4, "guidance_scale": 0.0, "seed": 0}
        return self.add("RelayLatentUpscale", model=model, prompt=prompt, latent=latent, **{**defaults, **settings})

    def super_resolution(self, model: Out, prompt: Out, **settings: Any) -> Out:
        defaults = {"steps": 4, "guidance_scale": 9.0, "noise_level": 20, "seed": 0, "tile_size": 0}
        return self.add("RelaySuperResolution", model=model, prompt=prompt, **{**defaults, **settings})

    def controlnet_from_hub(self, repo_id: str, variant: str = "auto") -> Out:
        settings = {"revision": "", "variant": variant, "dtype": "float32"}
        return self.add("RelayLoadControlNetFromHub", repo_id=repo_id, **settings)

    def control(self, net: Out, image: Out, **settings: Any) -> Out:
        defaults = {"conditioning_scale": 1.0, "start": 0.0, "end": 1.0, "guess_mode": False}
        return self.add("RelayApplyControlNet", controlnet=net, image=image, **{**defaults, **settings})

    def hint(self, image: Out) -> Out:
        return self.add("RelayKandinskyHint", image=image)

    def decode(self, model: Out, latent: Out, tiled: bool = False) -> Out:
        return self.add("RelayDecode", model=model, latent=latent, tiled=tiled)

    def save(self, images: Out, prefix: str = "test") -> Out:
        return self.add("SaveImage", images=images, filename_prefix=prefix)

    def picture(self, server: HostServer, picture: Image.Image, name: str) -> Out:
        """Writes a picture to the server's input folder and loads it with LoadImage."""
        picture.save(server.folders["input"] / name)
        return self.add("LoadImage", image=name)


def saved(result: RunResult, node: Out) -> np.ndarray:
    """The pictures that a SaveImage node wrote, [B, H, W, 3] uint8."""
    return np.stack([read(path) for path in result.raise_for_error().images(node.node)])


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture.convert("RGB"))
