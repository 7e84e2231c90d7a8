"""Inpainting only the region around the mask: it is cut out, painted at the model's own size, and put back into the picture.

This is what ``padding_mask_crop`` does in diffusers' pipelines, with the same processors. They work on pictures of 8 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..adapters.ip_adapter_values import IpAdapterUnit
from ..base.errors import RelayError
from ..base.images import Extent, as_rgb, check_latent_pixel, extent_of, to_pil
from ..control.picture import fitted_picture
from ..control.units import ControlNetUnit
from ..denoising.masked_picture import checked_masks
from ..latents.autoencoder import Autoencoder
from ..model.components import PipelineComponents
from ..model.family_lookup import titles_of

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


@dataclass(frozen=True)
class Region:
    """A rectangle in a picture, in pixels: left and top are inside, right and bottom are not."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """As diffusers and PIL take it."""
        return self.left, self.top, self.right, self.bottom

    @property
    def extent(self) -> Extent:
        return Extent(self.right - self.left, self.bottom - self.top)


@dataclass(frozen=True, eq=False)
class MaskCrop:
    """The pictures and masks of one run, and the region of each that is painted."""

    pictures: torch.Tensor
    """IMAGE [B, H, W, 3] in 0..1."""
    masks: tuple[Image, ...]
    """One grey picture of the pictures' size for each, white = repaint."""
    regions: tuple[Region, ...]
    """One for each picture."""
    extent: Extent
    """The size at which the regions are painted."""

    def pixels(self) -> torch.Tensor:
        """The regions of the pictures, [B, 3, height, width] in -1..1."""
        return self._cut([to_pil(one) for one in self.pictures])

    def mask(self) -> torch.Tensor:
        """The regions of the masks with their grey values, [B, 1, height, width] in 0..1."""
        return self._cut(list(self.masks), do_normalize=False, do_convert_grayscale=True)

    def control(self, unit: ControlNetUnit) -> ControlNetUnit:
        """The unit with the regions of its pictures, which must have the size of :attr:`pictures`: [B, height, width, 3]."""
        images = unit.image.expand(len(self.regions), -1, -1, -1)
        if float(images.min()) < 0 or float(images.max()) > 1:
            import torch

            cut = torch.cat([self._cut_values(one, region) for one, region in zip(images, self.regions)])
        else:
            cut = self._cut([to_pil(one) for one in images], do_normalize=False, do_convert_rgb=True).movedim(1, -1)
        return replace(unit, image=cut)

    def of_adapters(self, units: Sequence[IpAdapterUnit]) -> tuple[IpAdapterUnit, ...]:
        """The IP-Adapters with the region of their masks, which are those of whole pictures: [pictures, height, width].

        Raises:
            RelayError: there are such masks, and the pictures' regions differ: a run has one mask for all of its pictures.
        """
        masked = [unit for unit in units if unit.mask is not None]
        if masked and len(set(self.regions)) > 1:
            raise RelayError(
                "padding_mask_crop: the pictures of the batch have different regions, and an IP-Adapter's mask is for all of them. "
                "Paint the pictures one by one, or use one mask for all."
            )
        return tuple(unit if unit.mask is None else replace(unit, mask=self._adapter_mask(unit.mask)) for unit in units)

    def _adapter_mask(self, mask: torch.Tensor) -> torch.Tensor:
        grey = [_grey(one[None].cpu(), extent_of(self.pictures)) for one in mask]
        same = replace(self, regions=self.regions[:1] * len(grey))
        return same._cut(grey, do_normalize=False, do_convert_grayscale=True)[:, 0]

    def put_back(self, painted: torch.Tensor) -> torch.Tensor:
        """The pictures with what was painted in their regions. It is blended by the mask's grey values; where the mask is 0, the picture keeps its
        exact values.

        Args:
            painted: IMAGE [B, height, width, 3], the painted regions.
        """
        import numpy as np
        import torch
        from diffusers.image_processor import VaeImageProcessor

        whole = []
        for picture, mask, region, one in zip(self.pictures, self.masks, self.regions, painted):
            laid = VaeImageProcessor().apply_overlay(mask, to_pil(picture), to_pil(one), region.box)
            values = torch.from_numpy(np.array(laid).astype(np.float32) / 255.0).to(picture)
            kept = torch.from_numpy(np.array(mask) == 0).to(picture.device)
            whole.append(torch.where(kept[..., None], picture, values))
        return torch.stack(whole)

    def _cut(self, pictures: list[Image], **settings: Any) -> torch.Tensor:
        import torch
        from diffusers.image_processor import VaeImageProcessor

        processor = VaeImageProcessor(vae_scale_factor=1, **settings)
        size = {"height": self.extent.height, "width": self.extent.width}
        cut = [
            processor.preprocess(one, crops_coords=region.box, resize_mode="fill", **size)
            for one, region in zip(pictures, self.regions)
        ]
        return torch.cat(cut)

    def _cut_values(self, image: torch.Tensor, region: Region) -> torch.Tensor:
        """[H, W, 3] with values that 8 bits can't represent -> [1, height, width, 3]."""
        import torch

        part = image[None, region.top : region.bottom, region.left : region.right]
        size, inner = self.extent, _inner(region.extent, self.extent)
        left, top = size.width // 2 - inner.width // 2, size.height // 2 - inner.height // 2
        around = (left, size.width - inner.width - left, top, size.height - inner.height - top)
        scaled = fitted_picture(part, inner).movedim(-1, 1)
        return torch.nn.functional.pad(scaled, around, mode="replicate").movedim(1, -1)


def crop_to_mask(
    components: PipelineComponents,
    autoencoder: Autoencoder,
    image: torch.Tensor | None,
    mask: torch.Tensor,
    padding: int,
) -> MaskCrop:
    """The regions that a run with ``padding_mask_crop`` paints: everything in the mask above 0, with ``padding`` pixels around it,
    grown to the shape of the model's own size.

    Args:
        image: IMAGE [B, H, W, C].
        mask: [1 or B, H, W], 1 = repaint. One of another size is stretched to the picture's, as in a run without a crop.

    Raises:
        RelayError: the family or the model can't do it, there is no picture or a tiny one, the mask is empty, or a region is too narrow.
    """
    family, source = components.family, components.source
    if not family.inpaints_plain_models:
        raise RelayError(
            f"padding_mask_crop: diffusers has it for {titles_of(lambda one: one.inpaints_plain_models)}, not for {source} ({family.title}). "
            "Set it to 0."
        )
    if padding < 0:
        raise RelayError(f"padding_mask_crop: {padding} is too small. Use 0 to paint the whole picture, or more.")
    if image is None:
        raise RelayError(
            f"padding_mask_crop: {padding} cuts the area out of a picture, and a latent is connected. Decode it and connect the picture to image, "
            "or set padding_mask_crop to 0."
        )
    pictures = as_rgb(image).cpu()
    extent, painted = extent_of(pictures), own_size(components, autoencoder)
    check_latent_pixel(extent, autoencoder.factor)
    masks = tuple(_grey(one, extent) for one in checked_masks(mask, len(pictures)).expand(len(pictures), -1, -1, -1))
    regions = tuple(_region(one, painted, padding) for one in masks)
    return MaskCrop(pictures, masks, regions, painted)


def own_size(components: PipelineComponents, autoencoder: Autoencoder) -> Extent:
    """The size that the pipelines paint at if a script names none.

    Raises:
        RelayError: the model doesn't say it.
    """
    size = components[components.family.denoiser].config.get("sample_size")
    if not isinstance(size, int):
        raise RelayError(
            f"padding_mask_crop: the config of {components.source} doesn't name the size that it paints at (sample_size is {size}). Set "
            "padding_mask_crop to 0."
        )
    return Extent(size * autoencoder.factor, size * autoencoder.factor)


def _grey(mask: torch.Tensor, extent: Extent) -> Image:
    """[1, H, W] -> 8 bits, as a script that reads the mask from a file has it."""
    import numpy as np
    from diffusers.image_processor import VaeImageProcessor
    from PIL import Image as pil

    grey = pil.fromarray(np.rint(mask[0].numpy() * 255.0).astype(np.uint8))
    if grey.size == (extent.width, extent.height):
        return grey
    resized: Image = VaeImageProcessor().resize(grey, extent.height, extent.width)
    return resized


def _region(mask: Image, painted: Extent, padding: int) -> Region:
    from diffusers.image_processor import VaeImageProcessor

    if mask.getbbox() is None:
        raise RelayError(
            "mask: it leaves nothing to repaint, because it is 0 everywhere. Paint a mask (1 = repaint), or invert it if it marks what to keep."
        )
    region = Region(*VaeImageProcessor.get_crop_region(mask, painted.width, painted.height, pad=padding))
    inner = _inner(region.extent, painted)
    if min(inner.width, inner.height) < 1:
        raise RelayError(
            f"padding_mask_crop: the picture is too narrow. The region around the mask is {region.extent}, and nothing of it is left if it is scaled to "
            f"fit in {painted}. Use a picture with a longer short side."
        )
    return region


def _inner(region: Extent, painted: Extent) -> Extent:
    """The size of a region that is scaled to fit in the painted size; the rest is filled with its edges. As VaeImageProcessor computes it."""
    wider = painted.width / painted.height < region.width / region.height
    return Extent(
        painted.width if wider else region.width * painted.height // region.height,
        region.height * painted.width // region.width if wider else painted.height,
    )
