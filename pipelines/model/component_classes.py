"""Which classes a component may be. The pack's own table: what a model's files name is looked up here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Classes:
    """The classes that one component may be."""

    library: str
    """``"diffusers"`` or ``"transformers"``."""
    names: tuple[str, ...]
    also: Mapping[str, str] = field(default_factory=dict)
    """Other names that published models have for one of :attr:`names`."""
    kind: str = "model"
    """``"model"``: it has weights; ``"scheduler"``, ``"tokenizer"``, ``"processor"``: it is made of its small files."""

    def named(self, library: object, class_name: object) -> str | None:
        """The class to use for an entry of model_index.json; None where it may not be used."""
        if library != self.library or not isinstance(class_name, str):
            return None
        return class_name if class_name in self.names else self.also.get(class_name)


UNET = Classes("diffusers", ("UNet2DConditionModel",))
AUTOENCODER = Classes("diffusers", ("AutoencoderKL", "AutoencoderTiny", "AsymmetricAutoencoderKL"))
AUTOENCODER_KL = Classes("diffusers", ("AutoencoderKL",))
MOVQ = Classes("diffusers", ("VQModel",))
PRIOR = Classes("diffusers", ("PriorTransformer",))
CONTROLNET = Classes("diffusers", ("ControlNetModel",))
SD3_TRANSFORMER = Classes("diffusers", ("SD3Transformer2DModel",))
TEXT = Classes("transformers", ("CLIPTextModel",))
TEXT_PROJECTED = Classes("transformers", ("CLIPTextModelWithProjection",))
T5 = Classes("transformers", ("T5EncoderModel",))
PICTURE = Classes("transformers", ("CLIPVisionModelWithProjection",))
T5 = Classes("transformers", ("T5EncoderModel",))
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
"""What diffusers calls KarrasDiffusionSchedulers, as far as it runs an epsilon or v-prediction model."""
PUBLISHED_WITH = (
    "LCMScheduler",
    "TCDScheduler",
    "EDMEulerScheduler",
    "EDMDPMSolverMultistepScheduler",
    "DDIMParallelScheduler",
    "DDPMParallelScheduler",
    "IPNDMScheduler",
    "SASolverScheduler",
)
"""Those that only a model that was made for them brings."""
FLOW_MATCH_SCHEDULERS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
"""Those that run a model of flow matching in diffusers' own pipelines and blocks."""
SCHEDULER = Classes("diffusers", KARRAS_DIFFUSION_SCHEDULERS + PUBLISHED_WITH, kind="scheduler")
FLOW_SCHEDULER = Classes("diffusers", FLOW_MATCH_SCHEDULERS, kind="scheduler")
PRIOR_SCHEDULER = Classes("diffusers", ("UnCLIPScheduler",), kind="scheduler")
