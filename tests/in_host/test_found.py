"""Nodes are found by the words that people type, and rarely used inputs are folded away, where the host knows how. Descriptions name ComfyUI's own counterpart."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass, field
from typing import Any

import pytest
from comfy_api.latest import io

from diffusers_relay import comfy_entrypoint

SEARCHES = {
    "img2img": {"RelayImageToImage"},
    "i2i": {"RelayImageToImage"},
    "txt2img": {"RelayTextToImage"},
    "t2i": {"RelayTextToImage"},
    "inpainting": {"RelayInpaint"},
    "only masked": {"RelayInpaint"},
    "differential diffusion": {"RelayInpaint"},
    "hires": {"RelayImageToImage", "RelayLatentUpscale", "RelaySuperResolution"},
    "refiner": {"RelayImageToImage", "RelayLoadModel", "RelayLoadModelFromHub"},
    "upscale": {"RelayLatentUpscale", "RelaySuperResolution"},
    "upscale x4": {"RelaySuperResolution"},
    "lora": {"RelayLoadLora"},
    "embedding": {"RelayLoadTextualInversion", "RelayImagePrompt"},
    "weights": {
        "RelayLoadModel",
        "RelayLoadModelFromHub",
        "RelayLoadControlNet",
        "RelayLoadControlNetFromHub",
        "RelayLoadIpAdapter",
        "RelayLoadIpAdapterFromHub",
        "RelayEncodePrompt",
    },
    "ipadapter": {"RelayLoadIpAdapter", "RelayLoadIpAdapterFromHub", "RelayIpAdapterImage"},
    "depth": {"RelayLoadControlNet", "RelayLoadControlNetFromHub", "RelayApplyControlNet", "RelayKandinskyHint"},
}
ADVANCED = {
    "RelayLoadModel": {"dtype"},
    "RelayLoadModelFromHub": {"revision", "variant", "dtype", "subfolder"},
    "RelayLoadControlNet": {"dtype"},
    "RelayLoadControlNetFromHub": {"revision", "variant", "dtype", "subfolder"},
    "RelayLoadIpAdapter": {"dtype"},
    "RelayLoadIpAdapterFromHub": {"revision", "dtype"},
    "RelayEncodePrompt": {"clip_skip"},
    "RelaySetScheduler": {"prediction_type", "rescale_betas_zero_snr", "algorithm_type", "euler_at_final", "shift"},
    "RelaySdxlSize": {
        f"negative_{name}"
        for name in (
            *("original_width", "original_height", "crop_left", "crop_top"),
            *("target_width", "target_height"),
        )
    },
    "RelayTextToImage": {"denoising_end", "eta", "true_cfg_scale"},
    "RelayImageToImage": {
        *("denoising_start", "denoising_end", "aesthetic_score", "negative_aesthetic_score"),
        *("eta", "true_cfg_scale"),
    },
    "RelayInpaint": {"eta", "true_cfg_scale"},
}
COUNTERPARTS = {
    "RelayLoadModel": "ComfyUI's Load Checkpoint",
    "RelayLoadControlNet": "ComfyUI's own Load ControlNet Model",
    "RelayLoadLora": "ComfyUI's own Load LoRA",
    "RelayLoadTextualInversion": "embedding:name",
    "RelayLoadIpAdapter": "ComfyUI's own samplers",
    "RelaySetScheduler": "ComfyUI's own samplers",
    "RelaySetGuidance": "ComfyUI's RescaleCFG and PerturbedAttentionGuidance",
    "RelaySetVae": "ComfyUI's Load VAE",
    "RelayOptimize": "ComfyUI's TorchCompileModel",
    "RelayEncodePrompt": "ComfyUI's CLIP Text Encode (Prompt)",
    "RelayImagePrompt": "ComfyUI's CLIP Vision Encode",
    "RelayMixPrompts": "ComfyUI's ConditioningAverage",
    "RelaySdxlSize": "ComfyUI's CLIPTextEncodeSDXL",
    "RelayTextToImage": "ComfyUI's KSampler",
    "RelayImageToImage": "ComfyUI's KSampler",
    "RelayInpaint": "ComfyUI's VAE Encode (for Inpainting)",
    "RelayApplyControlNet": "ComfyUI's own Apply ControlNet",
    "RelayIpAdapterImage": "ComfyUI's own samplers",
    "RelayLatentUpscale": "ComfyUI's Upscale Latent",
    "RelaySuperResolution": "ComfyUI's Upscale Image (using Model)",
    "RelayDecode": "ComfyUI's VAE Decode",
    "RelayEncode": "ComfyUI's VAE Encode",
    "RelayConvertLatent": "ComfyUI's VAE Decode and VAE Encode",
    "RelayImageGrid": "the grid node of newer ComfyUI versions",
    "RelayLoadImageFromUrl": "ComfyUI's Load Image",
}
WIDGETS = ("Int", "Float", "String", "Combo", "Boolean")


def schemas() -> dict[str, Any]:
    """{node id: the schema that the node defines now}."""

    async def listed() -> list[type[io.ComfyNode]]:
        return await (await comfy_entrypoint()).get_node_list()

    return {schema.node_id: schema for schema in (node.define_schema() for node in asyncio.run(listed()))}


def search_words(found: dict[str, Any]) -> dict[str, set[str]]:
    """{word: the nodes that are found by it}, for the words of SEARCHES."""
    return {word: {node_id for node_id, schema in found.items() if word in schema.search_aliases} for word in SEARCHES}


def folded_away(found: dict[str, Any]) -> dict[str, set[str]]:
    """{node id: its advanced inputs}, for the nodes that have any, as the page gets them."""
    inputs = {
        node_id: {one.id for one in schema.inputs if one.as_dict().get("advanced") is True}
        for node_id, schema in found.items()
    }
    return {node_id: names for node_id, names in inputs.items() if names}


@dataclass
class NewerSchema(io.Schema):
    """A schema as newer hosts have it."""

    search_aliases: list[str] = field(default_factory=list)


def with_advanced(input_class: Any) -> Any:
    """An input class as newer hosts have it."""

    class Newer(input_class):
        def __init__(self, *arguments: Any, advanced: bool | None = None, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.advanced = advanced

        def as_dict(self) -> dict[str, Any]:
            return {**super().as_dict(), "advanced": self.advanced}

    return Newer


def test_a_newer_host_gets_search_words_and_advanced_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io, "Schema", NewerSchema)
    for name in WIDGETS:
        kind = getattr(io, name)
        monkeypatch.setattr(kind, "Input", with_advanced(kind.Input))
    found = schemas()
    assert search_words(found) == SEARCHES
    for node_id, schema in found.items():
        words = schema.search_aliases
        assert words and len(set(words)) == len(words), node_id
        assert all(word == word.strip() and word for word in words), node_id
    assert folded_away(found) == ADVANCED


def test_this_host_gets_what_it_knows() -> None:
    found = schemas()
    if "search_aliases" in inspect.signature(io.Schema).parameters:
        assert search_words(found) == SEARCHES
        assert "img2img" in found["RelayImageToImage"].get_v1_info(io.ComfyNode).search_aliases
    else:
        assert not any(hasattr(schema, "search_aliases") for schema in found.values())
    knows_advanced = "advanced" in inspect.signature(io.Float.Input).parameters
    assert folded_away(found) == (ADVANCED if knows_advanced else {})


def test_a_description_says_when_to_use_the_hosts_own_node() -> None:
    described = {node_id: schema.description for node_id, schema in schemas().items()}
    last = {node_id: text.rsplit(". ", 1)[-1] for node_id, text in described.items()}
    with_advice = {node_id for node_id, sentence in last.items() if sentence.startswith("Use this ")}
    assert with_advice == set(COUNTERPARTS)
    assert [node_id for node_id, named in COUNTERPARTS.items() if named not in last[node_id]] == []
