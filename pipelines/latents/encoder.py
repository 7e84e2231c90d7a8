"""An encoder's output for a picture, before sampling. A picture that was encoded before is not encoded again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..base.encoded_once import ENCODED, EncodingKey, tensor_digest
from ..base.errors import RelayError
from ..device.offload import OffloadPolicy, Stage
from ..device.working_memory import encode_bytes
from .borrowed_module import in_float32, in_tiles, retry_in_float32
from .frame_axis import has_frames, with_frame, without_frame

if TYPE_CHECKING:
    import torch


def encoded(
    module: Any, pictures: list[torch.Tensor], policy: OffloadPolicy, run_in: torch.dtype, *, tiling: bool, title: str
) -> list[torch.Tensor]:
    """As :func:`encoded_once`, but a picture that overflows in float16 is encoded again in float32. The others stay in float16.

    Raises:
        RelayError: the result has NaN or infinite values even in float32.
    """
    import torch

    made = encoded_once(module, pictures, policy, run_in, tiling=tiling, title=title)
    overflown = [index for index, one in enumerate(made) if not one.isfinite().all()]
    if overflown and retry_in_float32(run_in, title, policy):
        again = [pictures[index] for index in overflown]
        wide = encoded_once(module, again, policy, torch.float32, tiling=tiling, title=title)
        for index, one in zip(overflown, wide):
            made[index] = one
    if not all(bool(one.isfinite().all()) for one in made):
        raise RelayError(
            f"image: the autoencoder of {title} encoded it to NaN or infinite values, so there is no latent. The "
            "model's file may be damaged."
        )
    return made


def encoded_once(
    module: Any, pictures: list[torch.Tensor], policy: OffloadPolicy, run_in: torch.dtype, *, tiling: bool, title: str
) -> list[torch.Tensor]:
    """A distribution's parameters [1, 2C, h, w] for each of ``pictures``, or the latents of MoVQ and TAESD, on the encoder's device.

    Args:
        pictures: in -1..1, [1, 3, H, W] each, or one batch.
        run_in: the encoder's dtype for this call only.
        title: the model that the encoder belongs to, for messages.
    """
    import torch

    frames = has_frames(module)
    dtype, tiled = module.dtype, tiling or getattr(module, "use_tiling", False)
    settings = (dtype, run_in, tiled)
    keys = [EncodingKey("picture", (module,), (*settings, tensor_digest(picture))) for picture in pictures]
    encoded: dict[EncodingKey, torch.Tensor] = {}
    for key in dict.fromkeys(keys):
        found = ENCODED.find(key)
        if found is not None:
            values, device = found
            encoded[key] = values.to(device)
    if len(encoded) == len(set(keys)):
        return [encoded[key] for key in keys]
    at_once = max(picture.shape[0] * picture.shape[2] * picture.shape[3] for picture in pictures)
    working_bytes = encode_bytes(module, at_once, run_in)
    with (
        policy.on_device(Stage.VAE, [module], working_bytes) as device,
        in_float32(module, run_in != dtype),
        in_tiles(module, tiling, title),
        torch.no_grad(),
    ):
        for key, picture in zip(keys, pictures):
            if key in encoded:
                continue
            # Cast to the module's dtype first even if the encoder then runs in float32, as the pipelines do.
            pixels = picture.to(device=device, dtype=dtype).to(module.dtype)
            output = module.encode(with_frame(pixels) if frames else pixels)
            values = output.latent_dist.parameters if hasattr(output, "latent_dist") else output.latents
            encoded[key] = values = without_frame(values) if frames else values
            # The pipelines sample on the encoder's device, so the device is kept too.
            ENCODED.keep(key, (values.cpu(), values.device), values.nbytes)
    return [encoded[key] for key in keys]
