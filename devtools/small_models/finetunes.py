"""Copies of a model folder with other weights or files: fine-tunes, half-precision variants, pickles."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file

Weights = dict[str, torch.Tensor]

DECODER_PARTS = ("decoder.", "post_quant_conv.")


def make_finetune(
    source: Path,
    folder: Path,
    *,
    seed: int,
    change: Sequence[str] = ("unet", "text_encoder"),
    amount: float = 0.1,
    vae: Literal["same", "decoder", "moved"] = "same",
) -> Path:
    """A copy of `source` with the weights of the components in `change` moved by `amount`, relative to their size.

    vae: "same" keeps its file byte for byte; "decoder" replaces the decoder and keeps the encoder; "moved" moves every weight by 5 %,
    which gives another latent space.
    """
    shutil.copytree(source, folder, dirs_exist_ok=True)
    for part in change:
        rewrite(folder / part, lambda weights: moved(weights, seed, amount))
    if vae == "decoder":
        rewrite(folder / "vae", lambda weights: moved(weights, seed, 0.5, DECODER_PARTS))
    elif vae == "moved":
        rewrite(folder / "vae", lambda weights: moved(weights, seed, 0.05))
    return folder


def make_fp16_copy(source: Path, folder: Path, *, variant: str | None = "fp16") -> Path:
    """A copy of `source` in float16, with files named for `variant`, or with the same names if it is None."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    add_fp16_files(folder, variant)
    if variant is not None:
        for file in weight_files(folder):
            if f".{variant}." not in file.name:
                file.unlink()
    return folder


def add_fp16_files(folder: Path, variant: str | None = "fp16") -> None:
    """Adds a float16 version of each weights file in `folder`, or replaces the file if `variant` is None."""
    for file in weight_files(folder):
        weights = {
            name: value.half() if value.is_floating_point() else value for name, value in load_file(file).items()
        }
        save_weights(weights, file if variant is None else file.with_suffix(f".{variant}{file.suffix}"))


def make_pickle_copy(source: Path, folder: Path) -> Path:
    """A copy of `source` with its weights only as pickles, under the usual names."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    for file in weight_files(folder):
        name = "pytorch_model.bin" if file.name == "model.safetensors" else "diffusion_pytorch_model.bin"
        torch.save(load_file(file), file.with_name(name))
        file.unlink()
    return folder


def weight_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def rewrite(part: Path, change: Callable[[Weights], Weights]) -> None:
    for file in weight_files(part):
        save_weights(change(load_file(file)), file)


def moved(weights: Weights, seed: int, amount: float, prefixes: tuple[str, ...] = ("",)) -> Weights:
    generator = torch.Generator("cpu").manual_seed(seed)
    return {
        name: value + amount * value.std(correction=0) * torch.randn(value.shape, generator=generator)
        if name.startswith(prefixes)
        else value
        for name, value in weights.items()
    }


def save_weights(weights: Weights, file: Path) -> None:
    save_file({name: value.contiguous() for name, value in weights.items()}, file, metadata={"format": "pt"})
