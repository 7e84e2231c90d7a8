"""Runs an autoencoder's decoder, and repeats a decode that ran out of memory or overflowed in float16."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..base.errors import RelayError
from ..base.images import to_host_images
from ..base.monitor import Monitor
from ..device.offload import OffloadPolicy, Stage
from ..device.out_of_memory import once_more
from ..device.working_memory import decode_bytes
from .autoencoder_facts import AutoencoderFacts
from .borrowed_module import in_float32, in_slices, in_tiles, retry_in_float32
from .frame_axis import with_frame, without_frame

if TYPE_CHECKING:
    import torch

    Whole = Callable[[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]], torch.Tensor]


def decoded(
    autoencoder: AutoencoderFacts,
    raw: torch.Tensor,
    policy: OffloadPolicy,
    monitor: Monitor,
    *,
    tiled: bool,
    whole_by: Whole | None,
    at_once: int | None,
) -> torch.Tensor:
    """Raw latents -> IMAGE. See :meth:`.autoencoder.Autoencoder.decode` for the arguments.

    Raises:
        RelayError: the autoencoder can't decode in tiles, or the picture has NaN or infinite values even in float32.
    """
    import torch

    def image_of(raw: torch.Tensor, run_in: torch.dtype) -> torch.Tensor:
        def attempt(tiled: bool) -> torch.Tensor:
            return decoded_in(autoencoder, raw, policy, run_in, tiled=tiled, whole_by=whole_by, at_once=at_once)

        may_tile = autoencoder.can_tile and whole_by is None and not (tiled or autoencoder.tiling)
        instead = (lambda: attempt(True)) if may_tile else None
        return once_more(lambda: attempt(tiled), policy, monitor, instead)

    image = image_of(raw, autoencoder.decoding_dtype)
    overflown = [index for index, one in enumerate(image) if not one.isfinite().all()]
    if overflown and retry_in_float32(autoencoder.decoding_dtype, autoencoder.title, policy):
        image[overflown] = image_of(raw[overflown], torch.float32)
    if not image.isfinite().all():
        raise RelayError(
            f"latent: the autoencoder of {autoencoder.title} decoded it to NaN or infinite values, so there is no picture. The "
            "latent may be far out of range (after a node that does arithmetic on latents), or the model's file may be damaged."
        )
    return image


def decoded_in(
    autoencoder: AutoencoderFacts,
    raw: torch.Tensor,
    policy: OffloadPolicy,
    run_in: torch.dtype,
    *,
    tiled: bool = False,
    whole_by: Whole | None = None,
    at_once: int | None = None,
) -> torch.Tensor:
    """Raw latents -> IMAGE, with the decoder in ``run_in``. The values are not checked."""
    import torch

    module = autoencoder.module
    tiled = tiled or autoencoder.tiling
    pixels = at_once or raw.shape[0] * raw.shape[2] * raw.shape[3] * autoencoder.factor**2
    working_bytes = decode_bytes(module, pixels, run_in, tiled)
    options = {"force_not_quantize": True} if autoencoder.is_quantized else {}

    def decode(latents: torch.Tensor) -> torch.Tensor:
        """Latents on the module's device, in its dtype and scale -> IMAGE."""
        if autoencoder.has_frames:
            return to_host_images(without_frame(module.decode(with_frame(latents), return_dict=False)[0]))
        return to_host_images(module.decode(latents, return_dict=False, **options)[0])

    with (
        policy.on_device(Stage.VAE, [module], working_bytes) as device,
        in_float32(module, run_in != module.dtype),
        in_tiles(module, tiled, autoencoder.title),
        in_slices(module, autoencoder.slicing),
        torch.no_grad(),
    ):
        # Scale in the dtype of ``raw``, then cast. The other order loses bits in half precision.
        scale = autoencoder.scale
        latents = scale.to_model(raw).to(run_in) if autoencoder.is_tiny else scale.to_decoder(raw, run_in)
        latents = latents.to(device)
        image = decode(latents) if whole_by is None else whole_by(latents, decode)
        return image.to(policy.output_device())
