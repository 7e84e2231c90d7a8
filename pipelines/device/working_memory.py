"""Estimates the memory that a stage needs in addition to its weights, from the model's config.

Each formula counts the tensor elements that exist at the peak of a forward pass. It was checked against the measured peak of
the real architectures (devtools/benchmarks/working_memory.py): without :data:`MARGIN` and :data:`WEIGHT_COPIES` it is 1.0 to
1.2 times that. Attention is assumed to run in a fused kernel, without a matrix of scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ..base.memory_size import module_bytes

if TYPE_CHECKING:
    import torch

MARGIN = 1.3
"""Factor for the kernels' own buffers. oneDNN copies a convolution's input to another layout: up to 1.25 in float32.

It also copies weights, see :data:`WEIGHT_COPIES`.
"""
WEIGHT_COPIES = 2
"""Copies of the largest weight. Measured: two in Kandinsky's UNet, most of its need at 256x256; one in Stable Diffusion's."""
TRANSFORMER_WIDTHS = 21
"""Elements per channel in a block's feed-forward layer: 8 before the gate, twice 4 after it, and the residuals."""
SINGLE_STREAM_WIDTHS, FLOAT32_WIDTHS = 14, 2
"""Elements per channel in a single stream block, and those that are float32 in every dtype: its rotated queries and keys."""
RESNET_WIDTHS = 5
"""Elements per channel: input, first convolution, norm, activation, second convolution."""
VIDEO_ENCODE_WIDTHS, VIDEO_DECODE_WIDTHS = 12, 18
"""Elements per pixel and channel of the first level in a video VAE with one frame. Measured: its convolutions read two empty frames too."""
TILE_PIXELS = 512 * 512
"""Pixels of a tile in diffusers' tiled decoding."""
CLIP_TOKENS = 77
FLOAT32_BYTES = 4
RGB = 3
T5_TOKENS = 256
"""An encoder without a table of positions reads a text as a whole, padded to a multiple of this."""
T5_SCORES = 3
"""Factor of heads * tokens * tokens: T5's position bias prevents a fused kernel, so the scores and their softmax exist too."""


def unet_bytes(unet: Any, *, rows: int, latent_pixels: int, controlnets: int = 0) -> int:
    """One forward pass of a UNet2DConditionModel.

    Args:
        rows: batch size, including the rows for guidance.
        latent_pixels: height * width of its input.
        controlnets: their number. Each adds residuals as large as the UNet's own skip connections.
    """
    widths = unet.config.block_out_channels
    kept = _skip_elements(widths, unet.config.layers_per_block)
    widest = 0.0
    for level, width in enumerate(widths):
        below = widths[min(level + 1, len(widths) - 1)]
        levels = [3 * (below + width) + below]  # up block: concatenated with the skip, normalised, activated
        if "Attn" in unet.config.down_block_types[level]:
            levels.append(TRANSFORMER_WIDTHS * width)
        widest = max(widest, max(levels) / 4**level)
    if controlnets:
        kept += (controlnets + 1) * kept
    return _bytes((kept + widest) * rows * latent_pixels, unet.dtype) + _weight_copies(unet, unet.dtype)


def _skip_elements(widths: Sequence[int], layers: int | Sequence[int]) -> float:
    """Elements per latent pixel of all skip connections: the output of each layer of the down blocks."""
    counts = [layers] * len(widths) if isinstance(layers, int) else layers
    own = sum(width * count / 4**level for level, (width, count) in enumerate(zip(widths, counts)))
    return widths[0] + own + sum(width / 4 ** (level + 1) for level, width in enumerate(widths[:-1]))


def encode_bytes(vae: Any, pixels: int, dtype: torch.dtype) -> int:
    """One encoding by an AutoencoderKL, VQModel or video VAE in ``dtype``. ``pixels``: of all pictures in its batch."""
    if "base_dim" in vae.config:
        each = VIDEO_ENCODE_WIDTHS * vae.config.base_dim
    else:
        widths = vae.config.block_out_channels
        each = max(RESNET_WIDTHS * width / 4**level for level, width in enumerate(widths)) + RGB
    return _bytes(each * pixels, dtype) + _weight_copies(vae, dtype) + _widening(vae, dtype)


def decode_bytes(vae: Any, pixels: int, dtype: torch.dtype, tiled: bool = False) -> int:
    """One decoding by an AutoencoderKL, VQModel or video VAE in ``dtype``. ``pixels``: of all pictures in its batch.

    MoVQ's spatial norm computes two more tensors from the latent, as wide as its input.
    """
    each = VIDEO_DECODE_WIDTHS * vae.config.base_dim if "base_dim" in vae.config else _decoder_elements(vae)
    canvas = 3 * RGB * pixels if tiled else 0  # tiles, rows of tiles, and the whole picture
    return (
        _bytes(each * (min(pixels, TILE_PIXELS) if tiled else pixels) + canvas, dtype)
        + _weight_copies(vae, dtype)
        + _widening(vae, dtype)
    )


def _decoder_elements(vae: Any) -> float:
    """Elements per pixel in the decoder of an AutoencoderKL or VQModel."""
    widths = vae.config.block_out_channels
    extra = 2 if vae.config.get("norm_type") == "spatial" else 0
    each = RESNET_WIDTHS * widths[-1] / 4 ** (len(widths) - 1)
    for level, (width, below) in enumerate(pairwise(widths)):
        each = max(each, (RESNET_WIDTHS + extra) * width / 4**level, (3 + extra) * below / 4**level)
    latent_channels: int = vae.config.latent_channels
    return each + latent_channels


def transformer_bytes(model: Any, *, rows: int, tokens: int, width: int, kept: int = 0) -> int:
    """One forward pass of a transformer over [rows, tokens, width]; the outputs of ``kept`` layers stay in memory."""
    return _bytes((TRANSFORMER_WIDTHS + kept) * rows * tokens * width, model.dtype)


def joint_transformer_bytes(transformer: Any, *, rows: int, latent_pixels: int, text_tokens: int) -> int:
    """One forward pass of a transformer with joint attention of patches and text (SD3Transformer2DModel).

    Its peak is the feed-forward layer of the patches, or the joint attention if the text is about as long as the patches.

    Args:
        rows: batch size, including the rows for guidance if they are in the same batch.
        latent_pixels: height * width of its input.
        text_tokens: tokens per row, of all text encoders together.
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


def single_stream_bytes(transformer: Any, *, rows: int, patches: int, text_tokens: int) -> int:
    """One forward pass of a transformer with double and single stream blocks (FluxTransformer2DModel).

    Its peak is the feed-forward layer of a single block, which is computed beside the attention.

    Args:
        rows: batch size.
        patches: tokens of the picture per row.
        text_tokens: tokens of the text per row.
    """
    config = transformer.config
    width = config.num_attention_heads * config.attention_head_dim
    widths = SINGLE_STREAM_WIDTHS + FLOAT32_WIDTHS * FLOAT32_BYTES / transformer.dtype.itemsize
    each = widths * width * (patches + text_tokens)
    each += text_tokens * config.joint_attention_dim + 2 * config.in_channels * patches
    return _bytes(rows * each, transformer.dtype)


def text_bytes(encoders: Sequence[Any], texts: Sequence[str], tokens: int = T5_TOKENS) -> int:
    """Encoding of ``texts``. A token has at least one letter. CLIP reads 77 tokens per run, and every layer's output is kept.

    ``tokens``: an encoder without a limit reads a multiple of this.
    """
    unlimited = [encoder for encoder in encoders if not hasattr(encoder.config, "max_position_embeddings")]
    encoders = [encoder for encoder in encoders if encoder not in unlimited]
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
    ) + sum(_whole_text_bytes(encoder, texts, tokens) for encoder in unlimited)


def _whole_text_bytes(encoder: Any, texts: Sequence[str], step: int) -> int:
    tokens = step * (1 + max(map(len, texts)) // step)
    states = transformer_bytes(
        encoder, rows=1, tokens=tokens, width=encoder.config.hidden_size, kept=2 * (len(texts) + 1)
    )
    return states + _bytes(T5_SCORES * encoder.config.num_attention_heads * tokens**2, encoder.dtype)


def vision_bytes(encoder: Any, *, pictures: int = 1, keeps_layers: bool = False) -> int:
    """A batch of pictures in a CLIP vision encoder. ``keeps_layers``: the outputs of all layers stay in memory."""
    config = encoder.config
    tokens = (config.image_size // config.patch_size) ** 2 + 1
    kept = config.num_hidden_layers + 1 if keeps_layers else 0
    return transformer_bytes(encoder, rows=pictures, tokens=tokens, width=config.hidden_size, kept=kept)


def prior_bytes(prior: Any, *, rows: int) -> int:
    """One step of Kandinsky's prior. Its tokens are those of the text, the time, the embeddings and the prediction."""
    config = prior.config
    width = config.num_attention_heads * config.attention_head_dim
    tokens = config.num_embeddings + config.additional_embeddings
    return transformer_bytes(prior, rows=rows, tokens=tokens, width=width)


def _weight_copies(module: Any, dtype: torch.dtype) -> int:
    return WEIGHT_COPIES * max(weight.numel() for weight in module.parameters()) * dtype.itemsize


def _widening(vae: Any, dtype: torch.dtype) -> int:
    """Bytes that the weights grow by if they are cast to a wider ``dtype`` for the stage."""
    return module_bytes([vae]) * (dtype.itemsize - vae.dtype.itemsize) // vae.dtype.itemsize


def _bytes(elements: float, dtype: torch.dtype) -> int:
    return int(elements * dtype.itemsize * MARGIN)
