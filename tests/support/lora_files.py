"""LoRA files made by hand, and a check that a model with a LoRA has the weights that the file implies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from diffusers_relay.pipelines.adapters.lora import active_loras, with_lora
from diffusers_relay.pipelines.model.components import PipelineComponents

RANK = 4
UNET = "down_blocks.0.attentions.0.transformer_blocks.0"
QUERY, CONTEXT = f"{UNET}.attn1.to_q", f"{UNET}.attn2.to_k"
Pair = tuple[torch.Tensor, torch.Tensor]


def layer(model: PipelineComponents, part: str, name: str) -> Any:
    layers = dict(model[part].named_modules())
    return layers.get(name) or layers[f"text_model.{name}"]


def pair(model: PipelineComponents, part: str, name: str, rank: int = RANK) -> Pair:
    """(down, up) for the layer's shape, the same every time."""
    weight = layer(model, part, name).weight
    numbers = torch.Generator().manual_seed(len(name) + rank)
    return (
        0.1 * torch.randn(rank, *weight.shape[1:], generator=numbers),
        0.1 * torch.randn(weight.shape[0], rank, *(1,) * (weight.ndim - 2), generator=numbers),
    )


def delta(down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return torch.einsum("or,ri...->oi...", up.flatten(1), down)


def assert_merged(view: PipelineComponents, part: str, deltas: Mapping[str, torch.Tensor]) -> None:
    """Checks that the layers with a LoRA have the weight base + delta, and that no other layer has changed."""
    with torch.no_grad(), active_loras(view, [part]):
        assert sum(hasattr(one, "base_layer") for one in view[part].modules()) == len(deltas)
        for name, added in deltas.items():
            adapted = layer(view, part, name)
            base = adapted.base_layer
            shape = (3, base.weight.shape[1], 5, 5) if base.weight.ndim == 4 else (3, base.weight.shape[1])
            given = torch.randn(shape, generator=torch.Generator().manual_seed(1))
            merged = torch.func.functional_call(base, {"weight": base.weight + added}, (given,))
            plain = base(given)
            assert (merged - plain).abs().max() > 1e-4, "a LoRA that changes nothing proves nothing"
            assert torch.allclose(adapted(given), merged, atol=2e-5 * float(merged.abs().max())), name


def put(path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)
    return path


def open_lora(model: PipelineComponents, path: Path) -> PipelineComponents:
    return with_lora(model, path, title="my lora", strength=1.0, text_strength=1.0)


def kohya(name: str) -> str:
    return f"lora_unet_{name.replace('.', '_')}"
