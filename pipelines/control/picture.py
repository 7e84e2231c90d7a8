"""Scales a control picture to the size of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..base.images import to_pil

if TYPE_CHECKING:
    import torch

    from ..base.images import Extent

MIN_KNOWN_SHARE = 0.5
"""The share of a scaled pixel that must come from known pixels. Below it, the nearest pixel is used."""


def fitted_picture(image: torch.Tensor, extent: Extent) -> torch.Tensor:
    """IMAGE [B, H, W, 3] -> [B, height, width, 3] float32, stretched to exactly ``extent``.

    Values in 0..1 are scaled as the pipelines' control processor scales a PIL picture: lanczos in 8 bits. A picture with
    other values, which 8 bits can't represent, is scaled with the same filter in floating point. Values below 0 are holes:
    a pixel whose nearest source pixel is a hole stays a hole, and holes are not mixed into the pixels around them.
    """
    import torch
    from diffusers.image_processor import VaeImageProcessor

    if float(image.min()) < 0 or float(image.max()) > 1:
        return torch.stack([_in_floating_point(one, extent) for one in image])
    processor = VaeImageProcessor(vae_scale_factor=1, do_convert_rgb=True, do_normalize=False)
    pixels = processor.preprocess([to_pil(one) for one in image], height=extent.height, width=extent.width)
    return pixels.movedim(1, -1).to(torch.float32)


def _in_floating_point(image: torch.Tensor, extent: Extent) -> torch.Tensor:
    """[H, W, 3] -> [height, width, 3]."""
    import numpy as np
    import torch
    from PIL import Image as pil

    def scaled(values: torch.Tensor, method: pil.Resampling) -> torch.Tensor:
        size = (extent.width, extent.height)
        channels = [pil.fromarray(one.float().cpu().numpy()).resize(size, method) for one in values.unbind(-1)]
        return torch.stack([torch.from_numpy(np.array(one)) for one in channels], dim=-1)

    known = image >= 0
    nearest = scaled(image, pil.Resampling.NEAREST)
    share = scaled(known, pil.Resampling.LANCZOS)
    mixed = scaled(image * known, pil.Resampling.LANCZOS) / share.clamp(min=MIN_KNOWN_SHARE)
    return torch.where((nearest < 0) | (share < MIN_KNOWN_SHARE), nearest, mixed)
