"""The laws that families differ by. A row of :mod:`.family_table` chooses one of each; each is written once, where its enum says."""

from __future__ import annotations

from enum import Enum


class NoiseLaw(str, Enum):
    """How noise lies over the steps, and what the model says of it: ``denoising/``. The value is what messages call it."""

    DIFFUSION = "discrete betas"
    EDM = "EDM"
    FLOW = "flow matching"
    UNCLIP = "UnCLIP"
    CONSISTENCY = "consistency models"
    VQ = "VQ diffusion"
    IPNDM = "IPNDM, whose timesteps go from 0 to 1"


class TextLayer(str, Enum):
    """Which hidden state of a CLIP text encoder a family's denoiser reads."""

    NORMALISED = "the last layer, normalised"
    PENULTIMATE = "the last layer but one"
    BARE = "the last layer, not normalised"


class TextRecipe(str, Enum):
    """Which text encoders there are and how their states are put together: ``weighting/``."""

    NONE = "no text encoder, or one that the family's own module calls"
    CLIP = "CLIP encoders, joined on the width"
    CLIP_AND_T5 = "two CLIP encoders joined on the width, T5 after them"


class Guidance(str, Enum):
    """How a step is guided away from the negative prompt, which decides what it costs."""

    ONE_BATCH = "the prompt and its negative in one batch"
    TWO_CALLS = "the prompt and its negative one after the other"


class StepMemory(str, Enum):
    """The formula for what one step of the denoiser needs beside its weights: ``device/working_memory.py``."""

    UNET = "a UNet2DConditionModel"
    TRANSFORMER = "a transformer over patches and text tokens"
