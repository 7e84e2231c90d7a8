"""What the tests of the batch package know of nodes without a host: the recorded answers of a ComfyUI and of its page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from relay_batch.node_table import NodeTable

RECORDED = Path(__file__).with_name("recorded_prompts.json")
"""{"nodes": part of /object_info, "prompts": {name in saved_workflows: the page's prompt}}; tests/in_server compares it with the page."""


def recorded() -> dict[str, Any]:
    return dict(json.loads(RECORDED.read_text("utf-8")))


def recorded_nodes() -> NodeTable:
    return NodeTable(recorded()["nodes"])


def api_workflow() -> dict[str, Any]:
    """Two samplers with the same title, a picture file, and a saved picture."""
    latent = {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}}
    common = {"steps": 20, "cfg": 8.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    sampler = {"class_type": "KSampler", "inputs": {"seed": 7, **common, "latent_image": ["4", 0]}}
    nodes = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "example.png"}, "_meta": {"title": "Start"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat"}, "_meta": {"title": "What to paint"}},
        "3": {"class_type": "SaveImage", "inputs": {"filename_prefix": "made", "images": ["1", 0]}},
        "4": latent,
        "5": {**sampler, "_meta": {"title": "Paint"}},
        "6": {**sampler, "_meta": {"title": "Paint"}},
    }
    return dict(json.loads(json.dumps(nodes)))  # nothing is shared between the nodes
