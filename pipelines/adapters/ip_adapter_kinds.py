"""The kinds of IP-Adapter that diffusers' pipelines run with a CLIP image encoder, told apart by a file's keys and shapes.

Source: https://github.com/tencent-ailab/IP-Adapter
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..base.errors import RelayError

Shapes = Mapping[str, tuple[int, ...]]

PROJECTION, ATTENTION = "image_proj.", "ip_adapter."
"""The two parts of a file, as prefixes of its keys."""
ATTENTION_KEY = re.compile(r"ip_adapter\.(\d+)\.to_[kv]_ip\.weight")
FACE_ID_KEYS = ("image_proj.perceiver_resampler.", "image_proj.proj.0.")
FACE_EMBEDDING = 512
"""The width of insightface's embeddings. No CLIP image encoder has it."""
NO_FACE_EMBEDDINGS = (
    "It reads a face embedding of insightface instead of a picture, which Diffusers Relay does not make. Use an IP-Adapter for "
    "pictures, such as ip-adapter-plus-face."
)


@dataclass(frozen=True)
class AdapterKind:
    """What an IP-Adapter reads from the image encoder, and in which size."""

    title: str
    reads_layers: bool
    """Whether it reads all tokens of the encoder's last but one layer, instead of the picture's embedding."""
    width: int
    """The width of what it reads."""
    tokens: int
    """How many tokens it adds to the prompt for each picture."""
    text_width: int
    """The width of these tokens, which is that of the model's prompt embeddings."""


def kind_of(shapes: Shapes, where: str) -> AdapterKind:
    """The kind of the IP-Adapter with tensors of these shapes.

    Raises:
        RelayError: it is for face embeddings, or not an IP-Adapter of a kind that diffusers loads for Stable Diffusion and SDXL.
    """
    _refuse_face_id(shapes, where)
    proj, full, latents = (shapes.get(PROJECTION + key) for key in ("proj.weight", "proj.3.weight", "latents"))
    try:
        if proj is not None:
            return AdapterKind("IP-Adapter", False, proj[1], 4, proj[0] // 4)
        if full is not None:
            return AdapterKind("full IP-Adapter", True, shapes[PROJECTION + "proj.0.weight"][1], 257, full[0])
        if latents is not None:
            width = shapes[PROJECTION + "proj_in.weight"][1]
            return AdapterKind("IP-Adapter Plus", True, width, latents[1], shapes[PROJECTION + "proj_out.weight"][0])
    except (KeyError, IndexError):
        raise RelayError(f"{where} lacks tensors that an IP-Adapter has. Download it again.") from None
    raise RelayError(
        f"{where} is an IP-Adapter of a kind that diffusers does not load for Stable Diffusion and SDXL. Use one of h94/IP-Adapter."
    )


def _refuse_face_id(shapes: Shapes, where: str) -> None:
    has_lora = any(key.startswith(ATTENTION) and "_lora." in key for key in shapes)
    reads_face = any(key.startswith(FACE_ID_KEYS) for key in shapes) and PROJECTION + "proj.3.weight" not in shapes
    if has_lora or reads_face:
        raise RelayError(f"{where} is an IP-Adapter FaceID. {NO_FACE_EMBEDDINGS}")
    if shapes.get(PROJECTION + "proj_in.weight", (0, 0))[1:] == (FACE_EMBEDDING,):
        raise RelayError(f"{where} is the IP-Adapter of InstantID. {NO_FACE_EMBEDDINGS}")


def check_keys(shapes: Shapes, kind: AdapterKind, where: str) -> None:
    """Checks all keys, and the shapes as far as they don't depend on a model.

    Raises:
        RelayError: there is a tensor that no IP-Adapter has, or a tensor is missing or has another shape.
    """
    import warnings

    import torch
    from diffusers import UNet2DConditionModel

    attention = [key for key in shapes if not key.startswith(PROJECTION)]
    for key in attention:
        if not ATTENTION_KEY.fullmatch(key):
            raise RelayError(f"{where} has a tensor {key[:80]}, which no IP-Adapter for Stable Diffusion or SDXL has.")
        if shapes[key][1:] != (kind.text_width,):
            raise RelayError(
                f"{where}: {key} has shape {list(shapes[key])}, but its second number must be {kind.text_width}, the width of the "
                "projected pictures. The file is damaged: download it again."
            )
    if not attention:
        raise RelayError(f"{where} has no attention layers (ip_adapter.*). It is incomplete: download it again.")
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*meta parameter")
            projection = {key.removeprefix(PROJECTION): torch.empty(shape) for key, shape in shapes.items()}
            projection = {key: value for key, value in projection.items() if not key.startswith(ATTENTION)}
            # It uses nothing of the UNet, and raises for each key that is missing, unknown or of another shape.
            UNet2DConditionModel._convert_ip_adapter_image_proj_to_diffusers(None, projection, low_cpu_mem_usage=False)
    except (KeyError, RuntimeError, ValueError, IndexError) as error:
        raise RelayError(
            f"{where}: the tensors of its image_proj are not those of an {kind.title}. It is incomplete or another variant: use one of "
            "h94/IP-Adapter."
        ) from error
