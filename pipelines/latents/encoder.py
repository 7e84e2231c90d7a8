"""What an encoder gives for a picture, before a draw. A picture that was encoded before is not encoded again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..base.encoded_once import ENCODED, Wanted, tensor_digest
from ..base.errors import RelayError
from ..device.offload import OffloadPolicy, Stage
from ..device.working_memory import encode_bytes
from .borrowed_module import in_float32, in_tiles, may_be_widened

if TYPE_CHECKING:
    import torch


def encoded(
    module: Any, pictures: list[torch.Tensor], policy: OffloadPolicy, run_in: torch.dtype, *, tiling: bool, title: str
) -> list[torch.Tensor]:
    """:func:`encoded_once`, where a picture that overflows float16 is encoded in float32, and no other.

    Raises:
        RelayError: values that are not numbers, in float32 too.
    """
    import torch

    made = encoded_once(module, pictures, policy, run_in, tiling=tiling, title=title)
    overflown = [index for index, one in enumerate(made) if not one.isfinite().all()]
    if overflown and may_be_widened(run_in, title):
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
    """A distribution's parameters [1, 2C, h, w] for each of ``pictures``, or the latents of MoVQ and TAESD; where the encoder was.

    Args:
        pictures: [1, 3, H, W] each in -1..1, or one batch.
        run_in: the dtype that the encoder runs in, for this call alone.
        title: the model that the encoder came with, for messages.
    """
    import torch

    dtype, tiled = module.dtype, tiling or getattr(module, "use_tiling", False)
    settings = (dtype, run_in, tiled)
    wanted = [Wanted("picture", (module,), (*settings, tensor_digest(picture))) for picture in pictures]
    encoded: dict[Wanted, torch.Tensor] = {}
    for one in dict.fromkeys(wanted):
        found = ENCODED.find(one)
        if found is not None:
            values, device = found
            encoded[one] = values.to(device)
    if len(encoded) == len(set(wanted)):
        return [encoded[one] for one in wanted]
    at_once = max(picture.shape[0] * picture.shape[2] * picture.shape[3] for picture in pictures)
    working_bytes = encode_bytes(module, at_once, run_in)
    with (
        policy.on_device(Stage.VAE, [module], working_bytes) as device,
        in_float32(module, run_in != dtype),
        in_tiles(module, tiling, title),
        torch.no_grad(),
    ):
        for one, picture in zip(wanted, pictures):
            if one in encoded:
                continue
            # Cast down first even where the encoder then runs in float32: the pipelines do.
            pixels = picture.to(device=device, dtype=dtype).to(module.dtype)
            given = module.encode(pixels)
            encoded[one] = values = given.latent_dist.parameters if hasattr(given, "latent_dist") else given.latents
            # A draw is made where the encoder was, as the pipelines make it: the device is kept too.
            ENCODED.keep(one, (values.cpu(), values.device), values.nbytes)
    return [encoded[one] for one in wanted]
