"""The classes that each component may have: class names in a model's files are only looked up in this table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Classes:
    """The classes that one component may have."""

    library: str
    """``"diffusers"`` or ``"transformers"``."""
    names: tuple[str, ...]
    also: Mapping[str, str] = field(default_factory=dict)
    """Other names in published models -> the one of :attr:`names` to use."""
    kind: str = "model"
    """``"model"`` has weights; ``"scheduler"``, ``"tokenizer"`` and ``"processor"`` are built from small files."""

    def named(self, library: object, class_name: object) -> str | None:
        """The class to use for an entry of model_index.json; None if it is not allowed."""
        if library != self.library or not isinstance(class_name, str):
            return None
        return class_name if class_name in self.names else self.also.get(class_name)


UNET = Classes("diffusers", ("UNet2DConditionModel",))
AUTOENCODER = Classes("diffusers", ("AutoencoderKL", "AutoencoderTiny", "AsymmetricAutoencoderKL"))
AUTOENCODER_KL = Classes("diffusers", ("AutoencoderKL",))
MOVQ = Classes("diffusers", ("VQModel",))
PRIOR = Classes("diffusers", ("PriorTransformer",))
CONTROLNET = Classes("diffusers", ("ControlNetModel",))
CONTROLNET_UNION = Classes("diffusers", ("ControlNetUnionModel",), {"ControlNetModel_Union": "ControlNetUnionModel"})
SD3_TRANSFORMER = Classes("diffusers", ("SD3Transformer2DModel",))
FLUX_TRANSFORMER = Classes("diffusers", ("FluxTransformer2DModel",))
TEXT = Classes("transformers", ("CLIPTextModel",))
TEXT_PROJECTED = Classes("transformers", ("CLIPTextModelWithProjection",))
T5 = Classes("transformers", ("T5EncoderModel",))
PICTURE = Classes("transformers", ("CLIPVisionModelWithProjection",))
IP_ADAPTER = Classes("diffusers", ())
"""An IP-Adapter is not a model of its own: its layers become part of a UNet."""
TOKENIZER = Classes("transformers", ("CLIPTokenizer",), {"CLIPTokenizerFast": "CLIPTokenizer"}, kind="tokenizer")
T5_TOKENIZER = Classes("transformers", ("T5TokenizerFast",), {"T5Tokenizer": "T5TokenizerFast"}, kind="tokenizer")
PICTURE_PROCESSOR = Classes(
    "transformers",
    ("CLIPImageProcessor",),
    dict.fromkeys(("CLIPFeatureExtractor", "CLIPImageProcessorFast", "CLIPImageProcessorPil"), "CLIPImageProcessor"),
    kind="processor",
)

KARRAS_DIFFUSION_SCHEDULERS = (
    "DDIMScheduler",
    "DDPMScheduler",
    "PNDMScheduler",
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "DPMSolverSDEScheduler",
)
"""Those of diffusers' KarrasDiffusionSchedulers that can run an epsilon or v-prediction model."""
MORE_DIFFUSION_SCHEDULERS = ("LCMScheduler", "TCDScheduler", "SASolverScheduler")
"""Others that can run such a model. LCM and TCD are for models and LoRAs that were trained for few steps."""
PUBLISHED_WITH = (
    "EDMEulerScheduler",
    "EDMDPMSolverMultistepScheduler",
    "DDIMParallelScheduler",
    "DDPMParallelScheduler",
    "IPNDMScheduler",
)
"""Schedulers that are only used if the model itself has them."""
FLOW_MATCH_SCHEDULERS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
"""Schedulers that can run a flow matching model in diffusers' pipelines and blocks."""
FLOW_SOLVERS = ("UniPCMultistepScheduler", "DPMSolverMultistepScheduler")
"""Schedulers that can run a flow matching model with ``use_flow_sigmas``."""
SCHEDULER = Classes(
    "diffusers", KARRAS_DIFFUSION_SCHEDULERS + MORE_DIFFUSION_SCHEDULERS + PUBLISHED_WITH, kind="scheduler"
)
LCM_SCHEDULER = Classes("diffusers", ("LCMScheduler",), kind="scheduler")
FLOW_SCHEDULER = Classes("diffusers", FLOW_MATCH_SCHEDULERS, kind="scheduler")
PRIOR_SCHEDULER = Classes("diffusers", ("UnCLIPScheduler",), kind="scheduler")
