"""Pictures for an IP-Adapter: embedded once by its CLIP image encoder, as diffusers' pipelines do it.

Source: https://huggingface.co/docs/diffusers/using-diffusers/ip_adapter
"""

from __future__ import annotations

import hashlib
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..base.encoded_once import ENCODED, EncodingKey
from ..base.errors import RelayError
from ..base.images import as_rgb, to_pil
from ..device.offload import Stage
from ..device.out_of_memory import tried_once_more
from ..device.runtime import Runtime
from ..device.working_memory import vision_bytes
from .ip_adapter_values import IpAdapter, IpAdapterUnit, check_settings, checked_mask

if TYPE_CHECKING:
    import torch

MOST_PICTURES = 64
"""For one use of an IP-Adapter. Every picture adds tokens to the prompt."""


@tried_once_more
def make_unit(
    adapter: IpAdapter,
    images: torch.Tensor,
    weight: float,
    start: float,
    end: float,
    mask: torch.Tensor | None,
    runtime: Runtime,
) -> IpAdapterUnit:
    """Embeds the pictures and adds the settings.

    Args:
        images: IMAGE [pictures, H, W, C]. All of them steer every painted picture.
        weight: diffusers' scale of the IP-Adapter.
        start, end: fractions of the steps that run.
        mask: MASK [1 or pictures, H, W], 1 = where the pictures have an effect; None: everywhere.

    Raises:
        RelayError: a setting is out of range, or ``images`` or ``mask`` has the wrong shape.
    """
    check_settings(weight, start, end)
    if images.ndim == 4 and images.shape[0] > MOST_PICTURES:
        raise RelayError(f"images: {images.shape[0]} pictures are too many. Connect at most {MOST_PICTURES}.")
    masks = checked_mask(mask, images.shape[0])
    positive, negative = _embedded(adapter, images, runtime)
    return IpAdapterUnit(adapter, positive, negative, float(weight), float(start), float(end), masks)


def _embedded(adapter: IpAdapter, images: torch.Tensor, runtime: Runtime) -> tuple[torch.Tensor, torch.Tensor]:
    """(embeddings of the pictures, what stands for no picture), on the output device."""
    pictures = [to_pil(image) for image in as_rgb(images)]
    encoder, layers = adapter.encoder, adapter.kind.reads_layers
    digest = hashlib.sha256(b"".join(picture.tobytes() for picture in pictures)).digest()
    key = EncodingKey("ip-adapter pictures", (encoder,), (layers, len(pictures), pictures[0].size, digest))
    found = ENCODED.find(key)
    if found is None:
        with runtime.policy.on_device(
            Stage.TEXT, [encoder], vision_bytes(encoder, pictures=len(pictures), keeps_layers=layers)
        ) as device:
            found = _encoded(encoder, pictures, device, layers)
        found = tuple(values.cpu() for values in found)
        ENCODED.keep(key, found, sum(values.nbytes for values in found))
    output_device = runtime.policy.output_device()
    return found[0].to(output_device), found[1].to(output_device)


def _encoded(encoder: Any, pictures: list[Any], device: torch.device, layers: bool) -> Any:
    """diffusers' ``encode_image``, which only uses these two parts of a pipeline."""
    from diffusers import StableDiffusionPipeline

    parts = SimpleNamespace(image_encoder=encoder, feature_extractor=_processor(encoder.config.image_size))
    return StableDiffusionPipeline.encode_image(parts, pictures, device, 1, layers)


@cache
def _processor(size: int) -> Any:
    """The image processor that diffusers' ``load_ip_adapter`` makes."""
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(size=size, crop_size=size)
