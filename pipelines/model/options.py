"""The options of RelayOptimize: how a model's modules are run, which affects speed and memory."""

from __future__ import annotations

from dataclasses import dataclass

COMPILE_MODES = ("off", "default", "reduce-overhead", "max-autotune")
ATTENTIONS = ("auto", "sdpa", "xformers", "sliced")
MATMULS = ("default", "onednn")


@dataclass(frozen=True)
class ModelOptions:
    """Options for running the modules. The defaults change nothing."""

    compile: str = "off"
    """One of :data:`COMPILE_MODES`: torch.compile's mode for the denoiser and its ControlNets."""
    attention: str = "auto"
    """One of :data:`ATTENTIONS`; ``auto`` keeps diffusers' choice."""
    vae_tiling: bool = False
    vae_slicing: bool = False
    channels_last: bool = False
    """Whether the convolutions of the denoiser and its ControlNets use the channels_last memory format."""
    matmul: str = "default"
    """One of :data:`MATMULS`: the library that multiplies float32 matrices on a CPU."""
