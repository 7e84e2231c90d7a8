"""Loads an IP-Adapter file and combines it with the image encoder that it needs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..adapters.ip_adapter_kinds import ATTENTION, PROJECTION, AdapterKind, check_keys, kind_of
from ..adapters.ip_adapter_values import IpAdapter, make_weights
from ..base.errors import RelayError
from ..files.read_ahead import read_ahead, whole
from ..files.registry import REGISTRY, file_identity
from ..files.safetensors import FLOATS, Header, read_tensors
from .file_part import check_file
from .file_signs import FULL_WEIGHTS, what_it_is
from .image_encoder import KINDS, load_image_encoder_file, load_image_encoder_folder

if TYPE_CHECKING:
    import torch


def load_ip_adapter(path: Path, encoder: Path, dtype: torch.dtype, *, source: str, encoder_source: str) -> IpAdapter:
    """An IP-Adapter from a file, with an image encoder from a file or folder. What is already in memory is shared.

    Args:
        path: a safetensors file with the keys ``image_proj.*`` and ``ip_adapter.*``.
        encoder: a CLIP image encoder, see :mod:`.image_encoder`.
        dtype: of the weights in memory; must be the model's.
        source, encoder_source: their names for messages.

    Raises:
        RelayError: one of them is damaged, a pickle or something else, or the IP-Adapter was made for another image encoder.
    """
    header, kind = read_kind(path, source)
    read = load_image_encoder_folder if encoder.is_dir() else load_image_encoder_file
    module = read(encoder, dtype, f"image_encoder: {encoder_source}")
    return combined(path, header, kind, module, dtype, source, encoder_source)


def read_kind(path: Path, where: str) -> tuple[Header, AdapterKind]:
    """A file's header, completely checked, and its kind.

    Raises:
        RelayError: it is not an IP-Adapter that the pack runs; the message says what it is.
    """
    header = check_file(path, where)
    if not header.has(PROJECTION, ATTENTION):
        found = what_it_is(header.shapes)
        what = (
            f"It is {found.what}. {found.advice}" if found else "It has neither image_proj.* nor ip_adapter.* tensors."
        )
        raise RelayError(f"{where} is not an IP-Adapter for Stable Diffusion or SDXL. {what}".rstrip())
    kind = kind_of(header.shapes, where)
    check_keys(header.shapes, kind, where)
    quantised = next((key for key, dtype in header.dtypes.items() if dtype not in FLOATS), None)
    if quantised is not None:
        raise RelayError(
            f"{where}: {quantised[:80]} has dtype {header.dtypes[quantised]}, so its weights are quantised, which Diffusers Relay does "
            f"not load. {FULL_WEIGHTS}"
        )
    return header, kind


def encoder_width(kind: AdapterKind, config: Any) -> int:
    """The width of what an encoder with this config gives to an IP-Adapter of this kind."""
    return int(config.hidden_size if kind.reads_layers else config.projection_dim)


def needed_encoder(kind: AdapterKind) -> str:
    """The image encoder that an IP-Adapter of this kind needs, for a message."""
    if kind.reads_layers:
        known = KINDS[kind.width].title if kind.width in KINDS else None
        return f"one whose layers are {kind.width} wide{f' ({known})' if known else ''}"
    known = {1024: "ViT-H", 1280: "ViT-bigG", 768: "ViT-L"}.get(kind.width)
    return f"one with embeddings of {kind.width}{f' ({known})' if known else ''}"


def combined(
    path: Path, header: Header, kind: AdapterKind, encoder: Any, dtype: torch.dtype, where: str, encoder_source: str
) -> IpAdapter:
    """The IP-Adapter with its weights and its image encoder.

    Raises:
        RelayError: the IP-Adapter was made for another image encoder.
    """
    has = encoder_width(kind, encoder.config)
    if has != kind.width:
        raise RelayError(
            f"image_encoder: {encoder_source} is not the one for {where}. The IP-Adapter needs {needed_encoder(kind)}; "
            f"this one has {has}. Choose the other image encoder."
        )
    key = ("ip-adapter", file_identity(path), dtype)
    if key not in REGISTRY:
        read_ahead([whole(path)])
    weights = REGISTRY.get(key, partial(_read, path, dtype))
    return IpAdapter(where, kind, weights, dict(header.shapes), encoder, dtype)


def _read(path: Path, dtype: torch.dtype) -> Any:
    import torch

    with torch.inference_mode(False):
        return make_weights(read_tensors(path, lambda key: key, dtype)).eval()
