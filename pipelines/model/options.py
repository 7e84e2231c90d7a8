"""How a model's modules are run, as RelayOptimize lets the user choose: speed and memory, not what is painted."""

from __future__ import annotations

from dataclasses import dataclass

COMPILE_MODES = ("off", "default", "reduce-overhead", "max-autotune")
ATTENTIONS = ("auto", "sdpa", "xformers", "sliced")
MATMULS = ("default", "onednn")


@dataclass(frozen=True)
class ModelOptions:
    """The defaults change nothing."""

    compile: str = "off"
    """One of :data:`COMPILE_MODES`: a mode of torch.compile, for the denoiser and its ControlNets."""
    attention: str = "auto"
    """One of :data:`ATTENTIONS`; ``auto``: as diffusers sets it."""
    vae_tiling: bool = False
    vae_slicing: bool = False
    channels_last: bool = False
    """The denoiser's and its ControlNets' convolutions in that memory format."""
    matmul: str = "default"
    """One of :data:`MATMULS`: which library multiplies float32 matrices on a CPU."""
