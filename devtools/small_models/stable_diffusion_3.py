"""A small Stable Diffusion 3: two CLIPs and T5, a transformer of flow matching, a VAE of 16 channels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .parts import TEXT_WIDTH, make_text_encoder, make_tokenizer, save, scheduler
from .t5 import make_t5, make_t5_tokenizer
from .weights import PICTURE_STD, POSTERIOR_LOGVAR, random_module, scale_output, smooth_picture

FLOW = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": False,
}
WIDTH = 96
"""Of a token; the two CLIPs side by side are narrower and filled up."""


def make_sd3(folder: Path, *, t5: bool = True, seed: int = 7703) -> Path:
    """`t5`: without it, as it is published for small machines, the last text encoder and its tokenizer are missing."""
    from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline

    tokenizer, vocab_size = make_tokenizer(folder / "tokenizer")
    tokenizer_2, _ = make_tokenizer(folder / "tokenizer_2", pad_token="!")
    transformer = random_module(
        lambda: SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=16,
            out_channels=16,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=4,
            caption_projection_dim=64,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=2 * TEXT_WIDTH,
            pos_embed_max_size=32,
            qk_norm="rms_norm",
        ),
        seed + 1,
    )
    fit_velocity(
        transformer.proj_out,
        seed,
        lambda noisy, sigmas, generator: transformer(
            hidden_states=noisy,
            timestep=1000 * sigmas,
            encoder_hidden_states=0.3 * torch.randn(len(noisy), 20, WIDTH, generator=generator),
            pooled_projections=torch.randn(len(noisy), 2 * TEXT_WIDTH, generator=generator),
        ),
        lambda velocity: velocity.permute(0, 2, 3, 4, 5, 1),
    )
    pipeline = StableDiffusion3Pipeline(
        vae=make_sd3_autoencoder(seed),
        text_encoder=make_text_encoder(seed + 2, vocab_size, act="quick_gelu", projected=TEXT_WIDTH),
        text_encoder_2=make_text_encoder(seed + 3, vocab_size, projected=TEXT_WIDTH),
        text_encoder_3=make_t5(seed + 4, WIDTH) if t5 else None,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        tokenizer_3=make_t5_tokenizer(folder / "tokenizer_3") if t5 else None,
        transformer=transformer,
        scheduler=scheduler(FLOW),
    )
    return save(pipeline, folder, FLOW)


def make_sd3_autoencoder(seed: int, scaling_factor: float = 1.5305, shift_factor: float = 0.0609) -> Any:
    from diffusers import AutoencoderKL

    widths = (16, 16, 32, 32)
    vae = random_module(
        lambda: AutoencoderKL(
            block_out_channels=widths,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            latent_channels=16,
            norm_num_groups=8,
            sample_size=64,
            scaling_factor=scaling_factor,
            shift_factor=shift_factor,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        seed,
    )
    with torch.no_grad():
        wanted, layer = 1 / vae.config.scaling_factor, vae.encoder.conv_out
        made = vae.encoder(smooth_picture(seed))[:, :16]
        layer.weight[:16] *= wanted / made.std()
        layer.bias[:16] = layer.bias[:16] * wanted / made.std() + vae.config.shift_factor
        layer.weight[16:] *= 0.02
        layer.bias[16:] = POSTERIOR_LOGVAR
        latents = wanted * torch.randn(1, 16, 8, 8, generator=torch.Generator("cpu").manual_seed(seed))
        scale_output(vae.decoder.conv_out, vae.decode(latents).sample, PICTURE_STD)
    return vae


@torch.no_grad()
def fit_velocity(
    layer: Any,
    seed: int,
    run: Callable[[torch.Tensor, torch.Tensor, torch.Generator], object],
    ordered: Callable[[torch.Tensor], torch.Tensor],
    batch: int = 64,
) -> None:
    """Fits the last layer of a transformer with patches of 2 x 2, by least squares, to predict noise - clean. See weights.fit_unet.

    Args:
        run: calls the transformer with noisy latents [B, 16, 8, 8], noise levels [B], and a generator for the rest.
        ordered: [B, C, h, w, 2, 2] -> the order of the layer's outputs, [B, h, w, ...].
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    coarse = torch.randn(batch, 16, 3, 3, generator=generator)
    clean = torch.nn.functional.interpolate(coarse, size=(8, 8), mode="bicubic")
    noise = torch.randn(clean.shape, generator=generator)
    sigmas = torch.linspace(0.02, 1, batch)
    noisy = (1 - sigmas)[:, None, None, None] * clean + sigmas[:, None, None, None] * noise
    seen: list[torch.Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    run(noisy, sigmas, generator)
    hook.remove()
    features = seen[0].flatten(0, 1)
    patches = (noise - clean).unfold(2, 2, 2).unfold(3, 2, 2)  # [B, C, h, w, 2, 2]
    values = ordered(patches).reshape(len(features), -1)
    mean = features.mean(0)
    centred = features - mean
    ridge = 0.01 * len(features) * torch.eye(features.shape[1])
    weight = torch.linalg.solve(centred.T @ centred + ridge, centred.T @ values)
    layer.weight.copy_(weight.T)
    layer.bias.copy_(values.mean(0) - mean @ weight)
