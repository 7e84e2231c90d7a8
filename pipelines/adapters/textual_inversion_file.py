"""A textual inversion's file: the vectors in it, whichever trainer wrote it, and its word."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError, shown
from ..files.safetensors import HOW_TO_CONVERT_WEIGHTS, check_file

if TYPE_CHECKING:
    import torch

SDXL_KEYS = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
OTHER_SDXL_KEYS = {"text_encoders_0": "clip_l", "text_encoders_1": "clip_g"}
"""Of diffusers' first training script with pivotal tuning."""
OTHER_ENCODERS = re.compile(r"(clip_\w_out|(t5|t5xxl|llama|gemma|qwen)[\w-]*)(\.|$)", re.IGNORECASE)
"""Of text encoders, or of their outputs (OneTrainer), that no family with embeddings has."""
INNER_NAMES = frozenset(
    ("emb_params", "*", "string_to_param", "string_to_param.*", "clip_h", "weight", "embedding", "embeddings", "emb")
    + ("vector", "vectors", "tensor", "data", "params", "learned_embeds", "")
)
"""What trainers and converters call the vectors where the word is the file's name; a file of diffusers has its word there."""
A1111_PREFIX = "string_to_param."
MAX_VECTORS = 75
"""A prompt has 75 places between its marks, and trainers offer as many vectors."""
MAX_WIDTH = 8192
LONGEST_WORD = 80


def read_embedding(path: Path, title: str) -> tuple[dict[str, torch.Tensor], str]:
    """The vectors by text encoder, and the file's own word.

    It may be diffusers' (one tensor, named by its word; or one for each vector, named word, word_1, ...), A1111's
    (``emb_params`` or its pickle's inner names), or one for SDXL's two text encoders. Each tensor is [width],
    [vectors, width] or [1, vectors, width].

    Returns:
        A key of :data:`SDXL_KEYS`, or "" for the only encoder -> [vectors, width], as floats of 16 bits or more; and the
        word, empty where the file has none.

    Raises:
        RelayError: the file is damaged, a pickle, no embedding, one for a family that has none here, or has more than
            :data:`MAX_VECTORS` vectors.
    """
    import torch
    from safetensors import safe_open

    check_file(path, f"embedding: {title}", HOW_TO_CONVERT_WEIGHTS)
    with safe_open(path, framework="pt") as file:
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        # A1111's other half: the numbers of the tokens that it took the place of.
        shapes = {key: _shape(one) for key, one in slices.items() if not key.startswith("string_to_token")}
        keys, word = _read_names(shapes, title)
        _check_shapes({key: shapes[key] for several in keys.values() for key in several}, title)
        with torch.inference_mode(False):  # what is made inside of it could be used nowhere else
            vectors = {
                name: torch.cat([_wide_enough(file.get_tensor(key)).reshape(-1, shapes[key][-1]) for key in several])
                for name, several in keys.items()
            }
    counts = {name: tensor.shape[0] for name, tensor in vectors.items()}
    if len(set(counts.values())) > 1:
        listed = " and ".join(f"{count} for {name}" for name, count in counts.items())
        raise RelayError(
            f"embedding: {title} has another number of vectors for each text encoder ({listed}). It is damaged."
        )
    if any(count > MAX_VECTORS for count in counts.values()):
        raise _too_many(title, max(counts.values()))
    if kinds := {str(tensor.dtype) for tensor in vectors.values() if not tensor.is_floating_point()}:
        raise RelayError(
            f"embedding: {title} holds no vectors ({', '.join(sorted(kinds))}): they are quantised, or it is no textual inversion. Take another file."
        )
    if not all(bool(tensor.float().isfinite().all()) for tensor in vectors.values()):
        raise RelayError(f"embedding: {title} holds values that are no numbers. It is damaged: download it anew.")
    return vectors, word


def _read_names(shapes: Mapping[str, tuple[int, ...]], title: str) -> tuple[dict[str, list[str]], str]:
    """Text encoder -> the keys of its vectors, in their order; and the word."""
    names = {OTHER_SDXL_KEYS.get(key, key): key for key in shapes}
    if names and set(names) <= set(SDXL_KEYS):
        return {name: [key] for name, key in names.items()}, ""
    if others := [key for key in shapes if OTHER_ENCODERS.match(key)]:
        raise RelayError(
            f"embedding: {title} has vectors for {shown(others[0])}, which the text encoders of Stable Diffusion and SDXL have no place for: it "
            "was made for another kind of model, such as SD3 or Flux. Take one that was trained for this kind."
        )
    if len(shapes) == 1:
        (key,) = shapes
        return {"": [key]}, _word(key.removeprefix(A1111_PREFIX).strip())
    if several := _numbered(shapes):
        return {"": several}, _word(several[0])
    if any("lora" in key.lower() or key.endswith(".alpha") for key in shapes):
        raise RelayError(
            f"embedding: {title} is no textual inversion, but a LoRA: put it into models/loras and load it with Load LoRA (Diffusers)."
        )
    raise RelayError(
        f"embedding: {title} is no textual inversion: it holds {len(shapes)} tensors, and one is expected, or clip_l and clip_g, "
        "of shape [vectors, width]. Choose another file; models and LoRAs go into folders of their own."
    )


def _numbered(names: Iterable[str]) -> list[str]:
    """``word``, ``word_1``, ``word_2``, ... in this order, or nothing."""
    names = set(names)
    first = min(names, key=len, default="")
    wanted = [first, *(f"{first}_{index}" for index in range(1, len(names)))]
    return wanted if set(wanted) == names else []


def _check_shapes(shapes: Mapping[str, tuple[int, ...]], title: str) -> None:
    """Before a number is read: a file may be of any size."""
    for shape in shapes.values():
        flat = shape[1:] if len(shape) == 3 and shape[0] == 1 else shape
        if len(flat) not in (1, 2) or 0 in flat or flat[-1] > MAX_WIDTH:
            raise RelayError(
                f"embedding: {title} is no textual inversion: it holds a tensor of shape {list(shape)}, and [vectors, width] is expected. "
                "Choose another file; LoRAs go into models/loras."
            )
        if len(flat) == 2 and flat[0] > MAX_VECTORS:
            raise _too_many(title, flat[0])


def _too_many(title: str, count: int) -> RelayError:
    return RelayError(
        f"embedding: {title} has {count:,} vectors, and a prompt has {MAX_VECTORS} places. Take an embedding with at most {MAX_VECTORS} vectors."
    )


def _shape(one: Any) -> tuple[int, ...]:
    return tuple(one.get_shape())


def _wide_enough(tensor: torch.Tensor) -> torch.Tensor:
    """Floats of 8 bits have no arithmetic."""
    return tensor.float() if tensor.is_floating_point() and tensor.itemsize == 1 else tensor


def _word(name: str) -> str:
    """Empty for a name that is no word, or that nobody can write into a prompt."""
    is_word = name not in INNER_NAMES and name.isprintable() and len(name) <= LONGEST_WORD
    return name if is_word else ""
