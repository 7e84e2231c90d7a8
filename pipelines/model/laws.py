"""The laws in which families differ. A row of :mod:`.family_table` chooses one of each; the enums say where they are implemented."""

from __future__ import annotations

from enum import Enum


class NoiseLaw(str, Enum):
    """How noise is distributed over the steps, and what the model predicts: ``denoising/``. The value is its name in messages."""

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
    """Which text encoders there are and how their hidden states are joined: ``weighting/``."""

    NONE = "no text encoder, or one that the family's own module calls"
    CLIP = "CLIP encoders, joined on the width"
    CLIP_AND_T5 = "two CLIP encoders joined on the width, T5 after them"
    POOLED_CLIP_AND_T5 = "T5, and a CLIP encoder for the pooled embedding"


class Guidance(str, Enum):
    """How a step is guided away from the negative prompt, which determines its cost."""

    ONE_BATCH = "the prompt and its negative in one batch"
    TWO_CALLS = "the prompt and its negative one after the other"
    EMBEDDED = "the scale is an input of the denoiser; a negative prompt is only read with true_cfg_scale"


class StepMemory(str, Enum):
    """The formula for the memory that one step of the denoiser needs besides its weights: ``device/working_memory.py``."""

    UNET = "a UNet2DConditionModel"
    TRANSFORMER = "a transformer over patches and text tokens"
    SINGLE_STREAM = "a transformer whose later blocks read patches and text tokens as one sequence"
