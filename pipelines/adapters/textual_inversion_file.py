"""Reads the vectors and the token of a textual inversion file, whichever trainer wrote it."""

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
"""Keys that diffusers' first training script with pivotal tuning writes."""
OTHER_ENCODERS = re.compile(r"(clip_\w_out|text_encoders_[2-9]|(t5|t5xxl|llama|gemma|qwen)[\w-]*)(\.|$)", re.IGNORECASE)
"""Keys for text encoders, or their outputs (OneTrainer), of families that can't use embeddings here."""
INNER_NAMES = frozenset(
    ("emb_params", "*", "string_to_param", "string_to_param.*", "clip_h", "weight", "embedding", "embeddings", "emb")
    + ("vector", "vectors", "tensor", "data", "params", "learned_embeds", "")
)
"""Names that trainers and converters give to the vectors if the token is the file's name. diffusers puts the token there."""
SPECIAL_WORD = re.compile(r"<[^<>]+>")
"""The form of a token that is not a word. Only tensors with such names are taken for several tokens."""
A1111_PREFIX = "string_to_param."
MAX_VECTORS = 75
"""A prompt has 75 tokens between its start and end tokens, and trainers allow as many vectors."""
MAX_WIDTH = 8192
LONGEST_WORD = 80


def read_embedding(path: Path, title: str) -> tuple[dict[str, torch.Tensor], tuple[tuple[str, int], ...]]:
    """The vectors for each text encoder, and the tokens in the file.

    The file may be diffusers' (one tensor named like the token, or one for each vector, named token, token_1, ...; or
    several tokens, each a tensor with a name like ``<s0>``),
    A1111's (``emb_params`` or the names inside its pickles), or one for SDXL's two text encoders. Each tensor is
    [width], [vectors, width] or [1, vectors, width].

    Returns:
        A key of :data:`SDXL_KEYS`, or "" for a single encoder -> [vectors, width], as floats of 16 bits or more; and each
        token with the number of its vectors, in their order. The token is empty if the file has none.

    Raises:
        RelayError: the file is damaged, a pickle, not an embedding, for a family that can't use embeddings here, or has
            more than :data:`MAX_VECTORS` vectors.
    """
    import torch
    from safetensors import safe_open

    check_file(path, f"embedding: {title}", HOW_TO_CONVERT_WEIGHTS)
    with safe_open(path, framework="pt") as file:
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        # A1111 also saves the number of the token that the vectors replaced; it is not used
        shapes = {key: _shape(one) for key, one in slices.items() if not key.startswith("string_to_token")}
        keys, words = _read_names(shapes, title)
        _check_shapes({key: shapes[key] for several in keys.values() for key in several}, title)
        for several in keys.values():
            _check_widths({shapes[key][-1] for key in several}, title)
        with torch.inference_mode(False):  # tensors that are created in inference mode can't be used outside it
            vectors = {
                name: torch.cat([_wide_enough(file.get_tensor(key)).reshape(-1, shapes[key][-1]) for key in several])
                for name, several in keys.items()
            }
    counts = {name: tensor.shape[0] for name, tensor in vectors.items()}
    if len(set(counts.values())) > 1:
        listed = " and ".join(f"{count} for {name}" for name, count in counts.items())
        raise RelayError(
            f"embedding: {title} has different numbers of vectors for the text encoders ({listed}). It is damaged: download it again."
        )
    if any(count > MAX_VECTORS for count in counts.values()):
        raise _too_many(title, max(counts.values()))
    if kinds := {str(tensor.dtype) for tensor in vectors.values() if not tensor.is_floating_point()}:
        raise RelayError(
            f"embedding: {title} has {', '.join(sorted(kinds))} tensors: it is quantised or not a textual inversion. Use another file."
        )
    if not all(bool(tensor.float().isfinite().all()) for tensor in vectors.values()):
        raise RelayError(f"embedding: {title} has NaN or infinite values. It is damaged: download it again.")
    if len(words) > 1:
        return vectors, tuple((word, _count(shapes[word])) for word in words)
    return vectors, ((words[0], next(iter(counts.values()))),)


def _read_names(shapes: Mapping[str, tuple[int, ...]], title: str) -> tuple[dict[str, list[str]], list[str]]:
    """Text encoder -> the keys of its vectors, in order; and the token, or several, which are then the keys."""
    names = {OTHER_SDXL_KEYS.get(key, key): key for key in shapes}
    if names and set(names) <= set(SDXL_KEYS):
        return {name: [key] for name, key in names.items()}, [""]
    if others := [key for key in shapes if OTHER_ENCODERS.match(key)]:
        raise RelayError(
            f"embedding: {title} has vectors for {shown(others[0])}, which is not a text encoder of Stable Diffusion or SDXL. It was made for "
            "another kind of model, such as SD3 or Flux: use one that was trained for this kind."
        )
    if len(shapes) == 1:
        (key,) = shapes
        return {"": [key]}, [_word(key.removeprefix(A1111_PREFIX).strip())]
    if several := _numbered(shapes):
        return {"": several}, [_word(several[0])]
    if shapes and all(SPECIAL_WORD.fullmatch(key) and _word(key) for key in shapes):
        words = sorted(shapes, key=lambda word: (len(word), word))
        return {"": words}, words
    if any("lora" in key.lower() or key.endswith(".alpha") for key in shapes):
        raise RelayError(
            f"embedding: {title} is a LoRA, not a textual inversion: put it into models/loras and load it with Load LoRA (Diffusers)."
        )
    raise RelayError(
        f"embedding: {title} is not a textual inversion: it has {len(shapes)} tensors, instead of one or clip_l and clip_g with shape "
        "[vectors, width]. Choose another file. Models and LoRAs belong in their own folders."
    )


def _numbered(names: Iterable[str]) -> list[str]:
    """The names sorted as ``word``, ``word_1``, ``word_2``, ...; empty if they are not of this form."""
    names = set(names)
    first = min(names, key=len, default="")
    expected = [first, *(f"{first}_{index}" for index in range(1, len(names)))]
    return expected if set(expected) == names else []


def _check_shapes(shapes: Mapping[str, tuple[int, ...]], title: str) -> None:
    """Checks the shapes before any tensor is read, because a file may be very large."""
    for shape in shapes.values():
        flat = shape[1:] if len(shape) == 3 and shape[0] == 1 else shape
        if len(flat) not in (1, 2) or 0 in flat or flat[-1] > MAX_WIDTH:
            raise RelayError(
                f"embedding: {title} is not a textual inversion: it has a tensor of shape {list(shape)} instead of [vectors, width]. "
                "Choose another file. LoRAs belong in models/loras."
            )
        if len(flat) == 2 and flat[0] > MAX_VECTORS:
            raise _too_many(title, flat[0])


def _check_widths(widths: set[int], title: str) -> None:
    """``widths``: those of the vectors for one text encoder."""
    if len(widths) > 1:
        listed = " and ".join(map(str, sorted(widths)))
        raise RelayError(
            f"embedding: {title} has vectors of different widths: {listed}. Use a file whose vectors are all for one kind of model."
        )


def _too_many(title: str, count: int) -> RelayError:
    return RelayError(
        f"embedding: {title} has {count:,} vectors, but a prompt only has {MAX_VECTORS} tokens. Use an embedding with at most {MAX_VECTORS} vectors."
    )


def _count(shape: tuple[int, ...]) -> int:
    """The number of vectors in a tensor, see :func:`read_embedding`."""
    return shape[-2] if len(shape) > 1 else 1


def _shape(one: Any) -> tuple[int, ...]:
    return tuple(one.get_shape())


def _wide_enough(tensor: torch.Tensor) -> torch.Tensor:
    """8-bit floats as float32, because torch can't calculate with them."""
    return tensor.float() if tensor.is_floating_point() and tensor.itemsize == 1 else tensor


def _word(name: str) -> str:
    """The name as a token; empty for a name that is not a token or can't be typed into a prompt."""
    is_word = name not in INNER_NAMES and name.isprintable() and len(name) <= LONGEST_WORD
    return name if is_word else ""
