"""A small Qwen-Image: a vision LLM as text encoder, a transformer over patches and text, and a video autoencoder that runs with one frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from .parts import save, scheduler
from .qwen import make_qwen25_vl, make_qwen_tokenizer
from .stable_diffusion_3 import fit_velocity
from .weights import PICTURE_STD, POSTERIOR_LOGVAR, random_module, scale_output, smooth_picture

FLOW = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 8192,
    "max_shift": 0.9,
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "shift_terminal": 0.02,
    "time_shift_type": "exponential",
    "use_dynamic_shifting": True,
}
WIDTH = 48
"""Of a token of the text."""


def make_qwen_image(folder: Path, *, seed: int = 9521) -> Path:
    from diffusers import QwenImagePipeline, QwenImageTransformer2DModel

    transformer = random_module(
        lambda: QwenImageTransformer2DModel(
            in_channels=64,
            out_channels=16,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=4,
            joint_attention_dim=WIDTH,
            guidance_embeds=False,
            axes_dims_rope=(8, 4, 4),
        ),
        seed + 1,
    )

    def run(noisy: torch.Tensor, sigmas: torch.Tensor, generator: torch.Generator) -> object:
        batch = len(noisy)
        return transformer(
            hidden_states=QwenImagePipeline._pack_latents(noisy, *noisy.shape),
            timestep=sigmas,
            encoder_hidden_states=0.3 * torch.randn(batch, 20, WIDTH, generator=generator),
            encoder_hidden_states_mask=torch.ones(batch, 20, dtype=torch.long),
            img_shapes=[[(1, 4, 4)]] * batch,
        )

    fit_velocity(transformer.proj_out, seed, run, lambda patches: patches.permute(0, 2, 3, 1, 4, 5))
    pipeline = QwenImagePipeline(
        vae=_make_autoencoder(seed),
        text_encoder=make_qwen25_vl(seed + 2, WIDTH),
        tokenizer=make_qwen_tokenizer(folder / "tokenizer"),
        transformer=transformer,
        scheduler=scheduler(FLOW),
    )
    return save(pipeline, folder, FLOW)


@torch.no_grad()
def _make_autoencoder(seed: int) -> Any:
    """With the published mean and deviation of each channel, and latents that have them."""
    from diffusers import AutoencoderKLQwenImage

    vae = random_module(lambda: AutoencoderKLQwenImage(base_dim=8, num_res_blocks=1), seed)
    mean, deviation = torch.tensor(vae.config.latents_mean), torch.tensor(vae.config.latents_std)
    made = vae.encode(smooth_picture(seed)[:, :, None]).latent_dist.mean[0].flatten(1)
    layer = vae.quant_conv
    layer.weight[:16] *= (deviation / made.std(1)).view(-1, 1, 1, 1, 1)
    layer.bias[:16] = mean + (layer.bias[:16] - made.mean(1)) * deviation / made.std(1)
    layer.weight[16:] *= 0.02
    layer.bias[16:] = POSTERIOR_LOGVAR
    noise = torch.randn(1, 16, 1, 8, 8, generator=torch.Generator("cpu").manual_seed(seed))
    latents = mean.view(1, -1, 1, 1, 1) + deviation.view(1, -1, 1, 1, 1) * noise
    scale_output(vae.decoder.conv_out, vae.decode(latents).sample, PICTURE_STD)
    return vae
