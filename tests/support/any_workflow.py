"""Random workflows from the nodes' own declarations: valid ones, and ones with the mistakes that users and strangers make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

Prompt = dict[str, dict[str, Any]]

MODELS = (
    "sd15",
    "comic",
    "sd15_half",
    "sd15_inpaint",
    "sdxl_base",
    "sdxl_refiner",
    "sdxl_inpaint",
    "kandinsky_decoder",
    "kandinsky_inpaint",
    "kandinsky_depth",
    "x2_upscaler",
    "x4_upscaler",
)
PRIOR = "kandinsky_prior"
OTHER_MODELS = (PRIOR, "sd15_pickle", "sd15_vae_moved", "v1-5-pruned-emaonly-fp16.safetensors")
TEXTS = (
    "",
    "a cat",
    "a red++ cat, (blue)0.3",
    "((((",
    "a (cat",
    '("a", "b").blend(1)',
    '("a", "b").and(1, 2, 3)',
    "(red)1e9 cat",
    "(red)-2",
    "a" * 5000,
    "word " * 400,
    "漢字 é \u0000 \U0001f408",
    "embedding:nothing",
    "BREAK BREAK",
    "[a|b]",
    "\\",
    "%%",
    "a.swap(b)",
)
TEXTS_OF = {
    "repo_id": (
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "nobody/nothing",
        "../secrets",
        "/etc",
        "",
        "a/b/c",
        "C:\\x",
        "a" * 300,
    ),
    "revision": ("", "", "main", "refs/../x", "\u0000"),
    "subfolder": ("", "", "", "unet", "../x", "/etc", "a\\b", "\u0000"),
    "url": (
        "",
        "http://127.0.0.1:1/a.png",
        "file:///etc/passwd",
        "http://[::ffff:127.0.0.1]/",
        "http://0x7f000001/",
        "ftp://x/y",
        "not a url",
    ),
    "pag_layers": ("mid", "mid, up_blocks", "down", "", "nothing", "(a|a)*b"),
    "token": ("", "<x>", "a b", "cat"),
}
NUMBERS = {
    "width": (8, 64, 72, 65, 96),
    "height": (8, 64, 96, 40),
    "batch_size": (1, 1, 2, 3),
    "steps": (1, 2, 3),
    "rows": (0, 1, 2),
    "columns": (0, 1, 3),
    "tile_size": (0, 0, 16, 64, 100),
    "clip_skip": (0, 0, 1, 2, 24),
    "padding_mask_crop": (0, 4, 100),
}
"""Small values, so that runs are short; where size costs nothing, any value in the declared range is used too."""
COSTLY = {"compile": "off"}
"""Widgets tried with only one value: compiling takes minutes."""
WRONG: tuple[Any, ...] = (None, "abc", -1, 10**9, 10**20, 1e30, [], {}, "../../x", True)
SOURCES = {
    "IMAGE": (
        "OddImage",
        "LoadImage",
        "RelayDecode",
        "RelaySuperResolution",
        "RelayImageGrid",
        "RelayLoadImageFromUrl",
    ),
    "MASK": ("OddMask", "LoadImageMask"),
    "LATENT": (
        "OddLatent",
        "EmptyLatentImage",
        "RelayTextToImage",
        "RelayImageToImage",
        "RelayInpaint",
        "RelayEncode",
        "RelayConvertLatent",
        "RelayLatentUpscale",
        "LatentUpscale",
    ),
    "DIFFUSERS_MODEL": (
        "RelayLoadModel",
        "RelayLoadModel",
        "RelayLoadModel",
        "RelaySetScheduler",
        "RelaySetGuidance",
        "RelaySetVae",
        "RelayOptimize",
        "RelayLoadLora",
        "RelayLoadTextualInversion",
        "RelayLoadModelFromHub",
    ),
    "DIFFUSERS_PROMPT": (
        "RelayEncodePrompt",
        "RelayEncodePrompt",
        "RelayKandinskyPrior",
        "RelayImagePrompt",
        "RelayMixPrompts",
        "RelaySdxlSize",
    ),
    "DIFFUSERS_CONTROLNET": ("RelayLoadControlNet", "RelayLoadControlNetFromHub"),
    "DIFFUSERS_CONTROL": ("RelayApplyControlNet", "RelayKandinskyHint"),
    "DIFFUSERS_IP_ADAPTER": ("RelayLoadIpAdapter", "RelayLoadIpAdapterFromHub"),
    "DIFFUSERS_IP_ADAPTER_IMAGE": ("RelayIpAdapterImage",),
}
"""Nodes that output each type. The first needs few or no inputs itself."""
STRANGERS = (
    "RelayLoadModelFromHub",
    "RelayLoadControlNetFromHub",
    "RelayLoadIpAdapterFromHub",
    "RelayLoadImageFromUrl",
)
"""Inputs that name something on the network, which the tests can't reach."""
NO_PICTURES = ("odd-text.png", "odd-cut.png", "odd-nothing.png", "../../etc/passwd", "nowhere.png")
USUAL: dict[str, Any] = {
    "kind": "plain",
    "dtype": "float32",
    "prompt": "a red++ cat",
    "negative_prompt": "",
    "clip_skip": 0,
    "strength": 1.0,
    "text_strength": 1.0,
    "denoising_start": 0.0,
    "denoising_end": 1.0,
    "guidance_scale": 4.0,
    "width": 64,
    "height": 64,
    "steps": 2,
    "weight": 0.7,
    "start": 0.0,
    "end": 1.0,
    "rows": 0,
    "columns": 0,
    "scheduler": "default",
    "attention": "auto",
    "pag_layers": "mid",
    "guidance_rescale": 0.0,
    "eta": 0.0,
    "padding_mask_crop": 0,
    "true_cfg_scale": 1.0,
    "shift": 0.0,
    "token": "<x>",
    "tiled": False,
    "batch_size": 1,
}
"""Most values in valid workflows, so that the runs produce something."""
DEPTH = 5


@dataclass
class Builder:
    random: Random
    info: Mapping[str, Any]
    files: tuple[str, ...]
    family: str
    spoilt: bool
    """Whether some values are wrong, some links missing or of the wrong type, and some files missing."""
    prompt: Prompt = field(default_factory=dict)
    given: dict[tuple[str, str], list[Any]] = field(default_factory=dict)

    def chance(self, percent: int) -> bool:
        return self.random.randrange(100) < percent

    def wrong(self, percent: int) -> bool:
        return self.spoilt and self.chance(percent)

    def pick(self, values: Any) -> Any:
        return self.random.choice(list(values))

    def link(self, kind: str, depth: int, for_input: str = "") -> Any:
        """A link to an output of the type; sometimes to another type, or to a node that doesn't exist."""
        if self.wrong(2):
            kind = self.pick(SOURCES)
        if self.wrong(1):
            return self.pick((["99", 0], ["1", 7], "1", None))
        known = self.given.setdefault((kind, for_input if for_input == "prior" else ""), [])
        if known and self.chance(50):
            return self.pick(known)
        sources = [name for name in SOURCES[kind] if self.spoilt or name not in STRANGERS]
        if not self.spoilt and self.chance(60):
            sources = sources[:1]
        if kind == "DIFFUSERS_PROMPT" and depth > 0 and self.chance(85):
            kandinsky = self.family.startswith("kandinsky")
            sources = ["RelayKandinskyPrior", "RelayImagePrompt"] if kandinsky else ["RelayEncodePrompt"]
        name = sources[0] if depth <= 0 else self.pick(sources)
        made = [self.node(name, depth - 1, for_input), self.info[name]["output"].index(kind)]
        known.append(made)
        return made

    def node(self, name: str, depth: int, for_input: str = "") -> str:
        inputs: dict[str, Any] = {}
        number = str(len(self.prompt) + 1)
        self.prompt[number] = {"class_type": name, "inputs": inputs}
        declared = self.info[name]["input"]
        for key, spec in declared.get("required", {}).items():
            if not self.wrong(1):
                inputs[key] = self.value(name, key, spec, depth, for_input)
        optional = list(declared.get("optional", {}).items())
        one_of = self.pick(("image", "latent"))
        for key, spec in optional:
            wanted = (
                90
                if key == one_of
                else 5
                if key in ("image", "latent", "control", "ip_adapter", "other_images")
                else 30
            )
            if self.chance(wanted):
                inputs[key] = self.value(name, key, spec, depth, for_input)
        return number

    def value(self, node: str, key: str, spec: list[Any], depth: int, for_input: str) -> Any:
        kind, options = spec[0], (spec[1] if len(spec) > 1 else {})
        if isinstance(kind, str) and kind in SOURCES:
            return self.link(kind, depth, key)
        if self.wrong(1):
            return self.pick(WRONG)
        if not self.spoilt and key in USUAL and self.chance(75):
            return USUAL[key]
        if isinstance(kind, list) or kind == "COMBO":
            return self.choice(node, key, kind if isinstance(kind, list) else options["options"], for_input)
        if kind == "BOOLEAN":
            return self.random.random() < 0.5
        if kind == "STRING":
            return self.pick(TEXTS_OF.get(key, TEXTS))
        if key in NUMBERS:
            return self.pick(NUMBERS[key])
        if kind == "INT":
            return self.random.randint(options.get("min", 0), options.get("max", 100))
        least, most = options.get("min", 0.0), options.get("max", 1.0)
        return self.pick((least, most, self.random.uniform(least, most), self.random.uniform(least, most)))

    def choice(self, node: str, key: str, options: list[Any], for_input: str) -> Any:
        if key in COSTLY:
            return COSTLY[key]
        if node == "RelayLoadModel" and key == "model":
            if for_input == "prior" and not self.chance(8):
                return PRIOR
            return self.family if self.chance(90) else self.pick((*MODELS, *OTHER_MODELS))
        if node in ("LoadImage", "LoadImageMask") and key == "image":
            return self.pick(self.files if self.spoilt else [name for name in self.files if name not in NO_PICTURES])
        return self.pick(options) if options else "nothing"


@st.composite
def workflows(draw: Callable[[Any], Any], info: Mapping[str, Any], files: tuple[str, ...]) -> Prompt:
    """A prompt in API format that ends in PreviewImage."""
    # Draw a seed instead of hypothesis' own choices: it prefers the ends of ranges, and here one wrong value hides everything after it.
    random = draw(st.randoms(use_true_random=True))
    builder = Builder(random, info, files, random.choice(MODELS), random.random() < 0.5)
    links = {"images": builder.link("IMAGE", DEPTH) if not builder.chance(75) else ["", 0]}
    if links["images"] == ["", 0]:  # most workflows end in a picture
        links["images"] = [builder.node("RelayDecode", DEPTH), 0]
    builder.prompt["out"] = {"class_type": "PreviewImage", "inputs": links}
    return builder.prompt


def write_odd_files(folder: Path) -> tuple[str, ...]:
    """Writes picture files of every kind that LoadImage may get. Returns their names."""
    random = np.random.default_rng(3)
    color = Image.fromarray(random.integers(0, 255, (48, 64, 3), np.uint8))
    made: dict[str, Image.Image] = {
        "odd-plain.png": color,
        "odd-pixel.png": color.resize((1, 1)),
        "odd-grey.png": color.convert("L"),
        "odd-grey-alpha.png": color.convert("LA"),
        "odd-alpha.png": color.convert("RGBA"),
        "odd-palette.png": color.convert("P"),
        "odd-bits.png": color.convert("1"),
        "odd-deep.png": Image.fromarray(random.integers(0, 65535, (48, 64), np.uint16)),
        "odd-print.jpg": color.convert("CMYK"),
        "odd-moving.gif": color.convert("P"),
    }
    for name, picture in made.items():
        picture.save(folder / name)
    (folder / "odd-text.png").write_bytes(b"not a picture")
    (folder / "odd-cut.png").write_bytes((folder / "odd-plain.png").read_bytes()[:200])
    (folder / "odd-nothing.png").write_bytes(b"")
    return (*made, *NO_PICTURES)
