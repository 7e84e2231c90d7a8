"""Well-behaved random weights: fills modules from a seed, and scales them so that their outputs are as large as the real models'.

With torch's own initial values, pictures are nearly grey and texts hardly matter, so tests would prove little.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

PICTURE_STD = 0.45
POSTERIOR_LOGVAR = -8.0
TEXT_SHARE = 0.3


def random_module(make: Any, seed: int, gain: float = 1.0) -> Any:
    """Calls `make` without torch's initialisation, then fills every parameter from `seed`."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        module = make()
    generator = torch.Generator("cpu").manual_seed(seed)
    filled = {name: random_parameter(name, value.shape, generator, gain) for name, value in module.named_parameters()}
    module.load_state_dict(filled, strict=False, assign=True)
    left = [name for name, value in module.named_parameters() if value.is_meta]
    if left:
        raise RuntimeError(f"{type(module).__name__}: parameters without a value: {left}")
    return module.eval().requires_grad_(False)


def random_parameter(name: str, shape: torch.Size, generator: torch.Generator, gain: float) -> torch.Tensor:
    noise = torch.randn(shape, generator=generator)
    last = name.rsplit(".", 1)[-1]
    if last == "clip_std":  # the prior's output is multiplied by it, and diffusers initialises it to 0
        return torch.ones(shape)
    if last == "clip_mean":
        return 0.1 * noise
    if ".conv_y." in name or ".conv_b." in name:  # MoVQ's spatial norm: normalised * conv_y(latents) + conv_b(latents)
        return torch.full(shape, float(".conv_y." in name)) if last == "bias" else 0.05 * noise
    if last == "weight" and noise.ndim == 1:
        return 1 + 0.05 * noise
    if noise.ndim < 2:
        return 0.05 * noise
    return noise * (gain / math.sqrt(math.prod(shape[1:])))


def smooth_picture(seed: int, size: int = 64) -> torch.Tensor:
    """A picture of soft blobs, [1, 3, size, size] in -1..1."""
    coarse = torch.randn(1, 3, 5, 5, generator=torch.Generator("cpu").manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").tanh()


@torch.no_grad()
def calibrate_autoencoder(vae: Any, seed: int, size: int = 64) -> None:
    """Scales the latents to std 1 / scaling_factor with little posterior noise, and pictures to std PICTURE_STD."""
    channels = vae.config.latent_channels
    moments = vae.quant_conv(vae.encoder(smooth_picture(seed, size)))
    wanted = 1 / vae.config.scaling_factor
    scale = torch.full((2 * channels,), 0.02)
    scale[:channels] = wanted / moments[:, :channels].std()
    vae.quant_conv.weight.mul_(scale[:, None, None, None])
    vae.quant_conv.bias.mul_(scale)
    vae.quant_conv.bias[channels:] = POSTERIOR_LOGVAR
    latents = wanted * torch.randn(1, channels, 8, 8, generator=torch.Generator("cpu").manual_seed(seed))
    scale_output(vae.decoder.conv_out, vae.decode(latents).sample, PICTURE_STD)


@torch.no_grad()
def calibrate_movq(movq: Any, seed: int) -> None:
    latents = movq.encode(smooth_picture(seed)).latents
    scale_output(movq.quant_conv, latents, 1.0)
    latents = torch.randn(1, movq.config.latent_channels, 8, 8, generator=torch.Generator("cpu").manual_seed(seed))
    scale_output(movq.decoder.conv_out, movq.decode(latents, force_not_quantize=True).sample, PICTURE_STD)


@torch.no_grad()
def fit_unet(
    unet: Any,
    scheduler: Any,
    seed: int,
    conditions: Callable[[int, torch.Generator], dict[str, Any]],
    batch: int = 64,
    channels: int | None = None,
) -> None:
    """Fits the last convolution, by least squares, to predict the noise in noisy latents with this many channels.

    The layers before it stay random. Without the fit, each step would amplify an unrelated prediction, until the picture has only 0 and 1.
    """
    quieten_text(unet)
    generator = torch.Generator("cpu").manual_seed(seed)
    channels = channels or unet.config.in_channels
    coarse = torch.randn(batch, channels, 3, 3, generator=generator)
    clean = torch.nn.functional.interpolate(coarse, size=(8, 8), mode="bicubic")
    noise = torch.randn(clean.shape, generator=generator)
    timesteps = torch.linspace(1, 999, batch).long()
    noisy = scheduler.add_noise(clean, noise, timesteps)
    fit_last_layer(unet, lambda: unet(noisy, timesteps, **conditions(batch, generator)).sample, noise)


def quieten_text(unet: Any) -> None:
    """Reduces the text's effect, which is small in real models and which guidance multiplies."""
    for name, weight in unet.named_parameters():
        if ".attn2.to_out." in name:
            weight.mul_(TEXT_SHARE)


@torch.no_grad()
def fit_last_layer(unet: Any, run: Callable[[], torch.Tensor], wanted: torch.Tensor) -> None:
    """Fits the last convolution, by least squares, so that `run`, which runs the UNet, gives `wanted` in the first channels."""
    seen: list[torch.Tensor] = []
    layer = unet.conv_out
    hook = layer.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    output = run()
    hook.remove()
    scale_output(layer, output, 1.0)  # for channels without a target: Kandinsky's variance
    kernel, channels = layer.kernel_size[0], wanted.shape[1]
    patches = torch.nn.functional.unfold(seen[0], kernel, padding=kernel // 2).transpose(1, 2).flatten(0, 1)
    values = wanted.flatten(2).transpose(1, 2).flatten(0, 1)
    mean = patches.mean(0)
    centred = patches - mean
    ridge = 0.01 * len(patches) * torch.eye(patches.shape[1])
    weight = torch.linalg.solve(centred.T @ centred + ridge, centred.T @ values)
    layer.weight[:channels] = weight.T.unflatten(1, (-1, kernel, kernel))
    layer.bias[:channels] = values.mean(0) - mean @ weight


def scale_output(layer: Any, output: torch.Tensor, std: float) -> None:
    factor = std / output.std()
    layer.weight.mul_(factor)
    layer.bias.mul_(factor)
