"""The example workflows: their descriptions by topic, and the layout of a description on the page (sheet.py).

They follow the image-to-image guide of the diffusers documentation and related guides. To add an example, write a function in
the module of its topic and add a line to `SHEETS`.
"""

from __future__ import annotations

from collections.abc import Callable

from .chains import base_to_refiner, latent_chain, text_to_image_to_image
from .control import controlnet_depth_then_restyle
from .image_to_image import sd15_image_to_image, sdxl_refiner
from .inpainting import inpaint_a_part, inpaint_softly
from .kandinsky import kandinsky22, kandinsky22_depth, kandinsky22_mix
from .lora import lcm_in_four_steps, lora_strength
from .native import mixed_with_native_nodes
from .pictures import ip_adapter_style
from .prompting import negative_prompt, weighted_prompt
from .sheet import Sheet
from .sweeps import guidance_sweep, pag_against_none, strength_sweep
from .upscaling import image_to_x2_to_x4

SHEETS: tuple[Callable[[], Sheet], ...] = (
    sd15_image_to_image,
    sdxl_refiner,
    kandinsky22,
    strength_sweep,
    guidance_sweep,
    pag_against_none,
    negative_prompt,
    weighted_prompt,
    kandinsky22_mix,
    text_to_image_to_image,
    latent_chain,
    base_to_refiner,
    mixed_with_native_nodes,
    controlnet_depth_then_restyle,
    kandinsky22_depth,
    inpaint_a_part,
    inpaint_softly,
    ip_adapter_style,
    lora_strength,
    lcm_in_four_steps,
    image_to_x2_to_x4,
)
