"""What a stage needs beside its weights: how large the tensors are that live at once in it, from the model's config.

Each formula counts elements of the widest moment of a forward pass, and was checked against the peak of the real
architectures (devtools/benchmarks/working_memory.py): without :data:`MARGIN` and :data:`WEIGHT_COPIES` it is 1.0 to 1.2 times that.
Attention is counted as a fused kernel has it, with no matrix of scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ..base.memory_size import module_bytes

if TYPE_CHECKING:
    import torch

MARGIN = 1.3
"""For what the kernels take for themselves. oneDNN lays a convolution's input out anew: up to 1.25 in float32.

It does so with weights too, see :data:`WEIGHT_COPIES`.
"""
WEIGHT_COPIES = 2
"""Of the largest weight. Seen in Kandinsky's UNet at 256x256, where they are most of it; in Stable Diffusion's one."""
TRANSFORMER_WIDTHS = 21
"""Of the channels, in a block's feed-forward layer: 8 before the gate, 4 after it twice, and the residuals."""
RESNET_WIDTHS = 5
"""Of the channels: input, first convolution, norm, activation, second convolution."""
TILE_PIXELS = 512 * 512
"""Of the tiles in which diffusers decodes."""
CLIP_TOKENS = 77
T5_TOKENS = 256
"""An encoder with no table of positions reads a text as a whole, in a multiple of these."""
T5_SCORES = 3
"""Of heads * tokens * tokens: the bias of its positions keeps them out of a fused kernel, so scores and their softmax are there too."""


def unet_bytes(unet: Any, *, rows: int, latent_pixels: int, controlnets: int = 0) -> int:
    """One forward pass of a UNet2DConditionModel.

    Args:
        rows: pictures in its batch, those of the guidance too.
        latent_pixels: height * width of its input.
        controlnets: what each adds at every level is there beside what the UNet keeps for its way up.
    """
    widths = unet.config.block_out_channels
    kept = _kept_on_the_way_down(widths, unet.config.layers_per_block)
    widest = 0.0
    for level, width in enumerate(widths):
        below = widths[min(level + 1, len(widths) - 1)]
        levels = [3 * (below + width) + below]  # the way up: joined with what was kept, normed, activated
        if "Attn" in unet.config.down_block_types[level]:
            levels.append(TRANSFORMER_WIDTHS * width)
        widest = max(widest, max(levels) / 4**level)
    if controlnets:
        kept += (controlnets + 1) * kept
    return _bytes((kept + widest) * rows * latent_pixels, unet.dtype) + _weight_copies(unet, unet.dtype)


def _kept_on_the_way_down(widths: Sequence[int], layers: int | Sequence[int]) -> float:
    """Elements a latent pixel: the output of each layer of the way down."""
    counts = [layers] * len(widths) if isinstance(layers, int) else layers
    own = sum(width * count / 4**level for level, (width, count) in enumerate(zip(widths, counts)))
    return widths[0] + own + sum(width / 4 ** (level + 1) for level, width in enumerate(widths[:-1]))


def encode_bytes(vae: Any, pixels: int, dtype: torch.dtype) -> int:
    """One encoding by an AutoencoderKL or VQModel of ``pixels`` (of all pictures that go in at once) in ``dtype``."""
    widths = vae.config.block_out_channels
    each = max(RESNET_WIDTHS * width / 4**level for level, width in enumerate(widths)) + vae.config.in_channels
    return _bytes(each * pixels, dtype) + _weight_copies(vae, dtype) + _widening(vae, dtype)


def decode_bytes(vae: Any, pixels: int, dtype: torch.dtype, tiled: bool = False) -> int:
    """One decoding by an AutoencoderKL or VQModel to ``pixels`` (of all pictures) in ``dtype``.

    MoVQ's spatial norm makes two tensors more out of the latent, as wide as what it norms.
    """
    widths = vae.config.block_out_channels
    extra = 2 if vae.config.get("norm_type") == "spatial" else 0
    each = RESNET_WIDTHS * widths[-1] / 4 ** (len(widths) - 1)
    for level, (width, below) in enumerate(pairwise(widths)):
        each = max(each, (RESNET_WIDTHS + extra) * width / 4**level, (3 + extra) * below / 4**level)
    each += vae.config.latent_channels
    canvas = 3 * vae.config.out_channels * pixels if tiled else 0  # tiles, rows, and the whole picture
    return (
        _bytes(each * (min(pixels, TILE_PIXELS) if tiled else pixels) + canvas, dtype)
        + _weight_copies(vae, dtype)
        + _widening(vae, dtype)
    )


def transformer_bytes(model: Any, *, rows: int, tokens: int, width: int, kept: int = 0) -> int:
    """One forward pass of a transformer over ``rows`` times ``tokens`` of ``width``; ``kept`` layers' outputs stay."""
    return _bytes((TRANSFORMER_WIDTHS + kept) * rows * tokens * width, model.dtype)


def joint_transformer_bytes(transformer: Any, *, rows: int, latent_pixels: int, text_tokens: int) -> int:
    """One forward pass of a transformer in whose blocks patches and text attend to each other (SD3Transformer2DModel).

    Its widest moment is the feed-forward layer of the patches, or the joint attention where the text is as long as they are.

    Args:
        rows: pictures in its batch, those of the guidance too where they go in together.
        latent_pixels: height * width of its input.
        text_tokens: of a row, those of all its text encoders.
    """
    config = transformer.config
    width = config.num_attention_heads * config.attention_head_dim
    patches = latent_pixels // config.patch_size**2
    feed_forward = 13 * patches + 3 * text_tokens
    attention = 10 * (patches + text_tokens)
    own_attention = patches if config.get("dual_attention_layers") else 0
    each = width * (max(feed_forward, attention) + own_attention)
    each += text_tokens * config.joint_attention_dim + (config.in_channels + config.out_channels) * latent_pixels
    return _bytes(rows * each, transformer.dtype)


def text_bytes(encoders: Sequence[Any], texts: Sequence[str]) -> int:
    """For encoding ``texts``. A token has a letter at least. CLIP reads 77 at a time, and every layer's output is kept."""
    whole = [one for one in encoders if not hasattr(one.config, "max_position_embeddings")]
    encoders = [one for one in encoders if one not in whole]
    runs = 2 * len(texts) + sum(len(text) for text in texts) // CLIP_TOKENS
    return sum(
        transformer_bytes(
            encoder,
            rows=1,
            tokens=CLIP_TOKENS,
            width=encoder.config.hidden_size,
            kept=runs * (encoder.config.num_hidden_layers + 2),
        )
        for encoder in encoders
    ) + sum(_whole_text_bytes(encoder, texts) for encoder in whole)


def _whole_text_bytes(encoder: Any, texts: Sequence[str]) -> int:
    tokens = T5_TOKENS * (1 + max(map(len, texts)) // T5_TOKENS)
    states = transformer_bytes(
        encoder, rows=1, tokens=tokens, width=encoder.config.hidden_size, kept=2 * (len(texts) + 1)
    )
    return states + _bytes(T5_SCORES * encoder.config.num_attention_heads * tokens**2, encoder.dtype)


def vision_bytes(encoder: Any) -> int:
    """For one picture in a CLIP vision encoder."""
    config = encoder.config
    tokens = (config.image_size // config.patch_size) ** 2 + 1
    return transformer_bytes(encoder, rows=1, tokens=tokens, width=config.hidden_size)


def prior_bytes(prior: Any, *, rows: int) -> int:
    """For a step of Kandinsky's prior: the text's tokens, and those of the time, the embeddings and the answer."""
    config = prior.config
    width = config.num_attention_heads * config.attention_head_dim
    tokens = config.num_embeddings + config.additional_embeddings
    return transformer_bytes(prior, rows=rows, tokens=tokens, width=width)


def _weight_copies(module: Any, dtype: torch.dtype) -> int:
    return WEIGHT_COPIES * max(weight.numel() for weight in module.parameters()) * dtype.itemsize


def _widening(vae: Any, dtype: torch.dtype) -> int:
    """What the weights grow by where they are cast up for the stage."""
    return module_bytes([vae]) * (dtype.itemsize - vae.dtype.itemsize) // vae.dtype.itemsize


def _bytes(elements: float, dtype: torch.dtype) -> int:
    return int(elements * dtype.itemsize * MARGIN)
