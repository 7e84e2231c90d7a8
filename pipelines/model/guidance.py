"""How a model's prediction is guided, besides ``guidance_scale``: rescaled guidance, and perturbed attention guidance (PAG)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GuidanceOptions:
    """The options of RelaySetGuidance. The defaults change nothing."""

    rescale: float = 0.0
    """0 to 1: how far the guided prediction is scaled back to the spread of the prompt's own. Section 3.4 of https://huggingface.co/papers/2305.08891"""
    pag_scale: float = 0.0
    """0 turns PAG off. https://huggingface.co/papers/2403.17377"""
    pag_layers: tuple[str, ...] = ()
    """The self-attention layers that PAG perturbs: parts of their names in the denoiser."""

    @property
    def has_pag(self) -> bool:
        return self.pag_scale > 0
