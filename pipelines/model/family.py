"""The model families: what each is, in one table. A new family is one row here and one module beside this one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from ..base.errors import RelayError, shown
from .component_classes import (
    AUTOENCODER,
    AUTOENCODER_KL,
    MOVQ,
    PICTURE,
    PICTURE_PROCESSOR,
    PRIOR,
    PRIOR_SCHEDULER,
    SCHEDULER,
    TEXT,
    TEXT_PROJECTED,
    TOKENIZER,
    UNET,
    Classes,
)
from .component_classes import KARRAS_DIFFUSION_SCHEDULERS as KARRAS_DIFFUSION_SCHEDULERS


class Task(str, Enum):
    """What a pipeline class is for."""

    TEXT_TO_IMAGE = "text-to-image"
    IMAGE_TO_IMAGE = "image-to-image"
    INPAINT = "inpainting"
    PRIOR = "prior"
    LATENT_UPSCALE = "latent upscaling"
    SUPER_RESOLUTION = "super-resolution"


class TextLayer(str, Enum):
    """Which hidden state of a CLIP text encoder a family's denoiser reads."""

    NORMALISED = "the last layer, normalised"
    PENULTIMATE = "the last layer but one"
    BARE = "the last layer, not normalised"


@dataclass(frozen=True)
class ModelFamily:
    """One family's facts. Callers ask a fact; nobody compares names."""

    name: str
    """Stable key, e.g. ``"sdxl"``."""
    title: str
    """What messages call it."""
    pipeline_classes: Mapping[Task, str]
    """The name of diffusers' class for each task that the family has."""
    recognised_by: frozenset[str]
    """``_class_name`` values of model_index.json that mean this family."""
    components: Mapping[str, Classes]
    """The components that the pack loads, and the classes that each may be; others of model_index.json (the safety checker)
    stay on disk."""
    control_pipeline_classes: Mapping[Task, str] = field(default_factory=dict)
    """The same for a run with ControlNets; empty: the family takes none."""
    autoencoder: str | None = None
    """The component that goes between pixels and latents; None: the family makes no latents."""
    text_encoders: tuple[str, ...] = ()
    """Text encoder components that :mod:`weighting` encodes a prompt with, first to last."""
    text_layer: TextLayer = TextLayer.NORMALISED
    drops_prompt_at_guidance_0: bool = False
    """At guidance 0 the script encodes "" in the place of the prompt."""
    serves_host_samplers: bool = True
    """Its text embeddings mean something to the host's own samplers."""
    denoiser: str = "unet"
    unet_reads_beside: str | None = None
    """What its UNet reads beside the text, as diffusers' ``addition_embed_type`` names it."""
    schedulers: tuple[str, ...] = ()
    """diffusers' scheduler classes that the family's pipelines run with, beside the model's own."""
    module: str = ""
    """The module of this package that calls the family's pipelines."""
    size_multiple: int = 8
    """Pixels: a width or height that the family can paint is a multiple of this."""
    takes_image_embeds: bool = False
    """Conditioned by CLIP image embeddings (Kandinsky's decoder) instead of text."""
    takes_hint: bool = False
    """Paints along a depth map, and does not run without one."""
    inpaints_plain_models: bool = False
    """The inpainting pipeline runs a plain UNet too; elsewhere it needs one that was trained to see a mask."""
    has_denoising_range: bool = False
    """The pipelines take ``denoising_end`` (and ``denoising_start`` for image-to-image)."""
    has_pooled_embeds: bool = False
    keeps_latents: bool = False
    """Its latents are its own: they never leave the run, and no other model's come in."""
    force_upcast_by_config: bool = False
    """The pipelines run the autoencoder in float32 where its config says ``force_upcast``."""
    host_factor: float = 1.0
    """Model scale / the host's LATENT: what the host's latent format of the family multiplies by."""
    preview_format: str | None = None
    """The class of the host's ``latent_formats`` that fits the family's latents."""
    config_flags: Mapping[str, object] = field(default_factory=dict)
    """model_index.json entries that change results, with diffusers' defaults."""

    def pipeline_class(self, task: Task, *, control: bool = False) -> type:
        """diffusers' class for ``task``, with ControlNets or without; imports diffusers."""
        import diffusers

        return getattr(diffusers, (self.control_pipeline_classes if control else self.pipeline_classes)[task])

    def require(self, task: Task, source: str) -> None:
        """Refuses ``task`` where the family has no pipeline for it."""
        if task not in self.pipeline_classes:
            raise RelayError(
                f"model: {source} ({self.title}) can't do {task.value}. Families that can: "
                f"{', '.join(f.title for f in FAMILIES if task in f.pipeline_classes)}."
            )


STABLE_DIFFUSION = ModelFamily(
    name="stable-diffusion",
    title="Stable Diffusion 1.x / 2.x",
    pipeline_classes={
        Task.TEXT_TO_IMAGE: "StableDiffusionPipeline",
        Task.IMAGE_TO_IMAGE: "StableDiffusionImg2ImgPipeline",
        Task.INPAINT: "StableDiffusionInpaintPipeline",
    },
    control_pipeline_classes={
        Task.TEXT_TO_IMAGE: "StableDiffusionControlNetPipeline",
        Task.IMAGE_TO_IMAGE: "StableDiffusionControlNetImg2ImgPipeline",
        Task.INPAINT: "StableDiffusionControlNetInpaintPipeline",
    },
    recognised_by=frozenset(
        {"StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"}
    ),
    components={"vae": AUTOENCODER, "text_encoder": TEXT, "tokenizer": TOKENIZER, "unet": UNET, "scheduler": SCHEDULER},
    autoencoder="vae",
    text_encoders=("text_encoder",),
    schedulers=KARRAS_DIFFUSION_SCHEDULERS,
    module="stable_diffusion",
    inpaints_plain_models=True,
    host_factor=0.18215,
    preview_format="SD15",
)

SDXL_BASE = ModelFamily(
    name="sdxl",
    title="Stable Diffusion XL",
    pipeline_classes={
        Task.TEXT_TO_IMAGE: "StableDiffusionXLPipeline",
        Task.IMAGE_TO_IMAGE: "StableDiffusionXLImg2ImgPipeline",
        Task.INPAINT: "StableDiffusionXLInpaintPipeline",
    },
    control_pipeline_classes={
        Task.TEXT_TO_IMAGE: "StableDiffusionXLControlNetPipeline",
        Task.IMAGE_TO_IMAGE: "StableDiffusionXLControlNetImg2ImgPipeline",
        Task.INPAINT: "StableDiffusionXLControlNetInpaintPipeline",
    },
    recognised_by=frozenset(
        {"StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"}
    ),
    components={
        "vae": AUTOENCODER,
        "text_encoder": TEXT,
        "text_encoder_2": TEXT_PROJECTED,
        "tokenizer": TOKENIZER,
        "tokenizer_2": TOKENIZER,
        "unet": UNET,
        "scheduler": SCHEDULER,
    },
    autoencoder="vae",
    text_encoders=("text_encoder", "text_encoder_2"),
    text_layer=TextLayer.PENULTIMATE,
    schedulers=KARRAS_DIFFUSION_SCHEDULERS,
    unet_reads_beside="text_time",
    module="sdxl",
    inpaints_plain_models=True,
    has_denoising_range=True,
    has_pooled_embeds=True,
    force_upcast_by_config=True,
    host_factor=0.13025,
    preview_format="SDXL",
    config_flags={"force_zeros_for_empty_prompt": True},
)

SDXL_REFINER = ModelFamily(
    name="sdxl-refiner",
    title="Stable Diffusion XL refiner",
    pipeline_classes={
        Task.IMAGE_TO_IMAGE: "StableDiffusionXLImg2ImgPipeline",
        Task.INPAINT: "StableDiffusionXLInpaintPipeline",
    },
    recognised_by=frozenset(),  # by the missing first text encoder: see recognise()
    components={
        "vae": AUTOENCODER,
        "text_encoder_2": TEXT_PROJECTED,
        "tokenizer_2": TOKENIZER,
        "unet": UNET,
        "scheduler": SCHEDULER,
    },
    autoencoder="vae",
    text_encoders=("text_encoder_2",),
    text_layer=TextLayer.PENULTIMATE,
    schedulers=KARRAS_DIFFUSION_SCHEDULERS,
    unet_reads_beside="text_time",
    module="sdxl",
    inpaints_plain_models=True,
    has_denoising_range=True,
    has_pooled_embeds=True,
    force_upcast_by_config=True,
    host_factor=0.13025,
    preview_format="SDXL",
    config_flags={"force_zeros_for_empty_prompt": True, "requires_aesthetics_score": False},
)

KANDINSKY22_PRIOR = ModelFamily(
    name="kandinsky22-prior",
    title="Kandinsky 2.2 prior",
    pipeline_classes={Task.PRIOR: "KandinskyV22PriorPipeline"},
    recognised_by=frozenset({"KandinskyV22PriorPipeline", "KandinskyV22PriorEmb2EmbPipeline"}),
    components={
        "prior": PRIOR,
        "image_encoder": PICTURE,
        "text_encoder": TEXT_PROJECTED,
        "tokenizer": TOKENIZER,
        "scheduler": PRIOR_SCHEDULER,
        "image_processor": PICTURE_PROCESSOR,
    },
    text_encoders=("text_encoder",),
    module="kandinsky22_prior",
    denoiser="prior",
)

KANDINSKY22_DECODER = ModelFamily(
    name="kandinsky22",
    title="Kandinsky 2.2 decoder",
    pipeline_classes={
        Task.TEXT_TO_IMAGE: "KandinskyV22Pipeline",
        Task.IMAGE_TO_IMAGE: "KandinskyV22Img2ImgPipeline",
        Task.INPAINT: "KandinskyV22InpaintPipeline",
    },
    recognised_by=frozenset({"KandinskyV22Pipeline", "KandinskyV22Img2ImgPipeline", "KandinskyV22InpaintPipeline"}),
    components={"unet": UNET, "movq": MOVQ, "scheduler": SCHEDULER},
    autoencoder="movq",
    schedulers=("DDPMScheduler", "DDIMScheduler"),
    unet_reads_beside="image",
    module="kandinsky22",
    size_multiple=64,
    takes_image_embeds=True,
)

KANDINSKY22_DEPTH = ModelFamily(
    name="kandinsky22-depth",
    title="Kandinsky 2.2 depth ControlNet decoder",
    pipeline_classes={
        Task.TEXT_TO_IMAGE: "KandinskyV22ControlnetPipeline",
        Task.IMAGE_TO_IMAGE: "KandinskyV22ControlnetImg2ImgPipeline",
    },
    recognised_by=frozenset({"KandinskyV22ControlnetPipeline", "KandinskyV22ControlnetImg2ImgPipeline"}),
    components={"unet": UNET, "movq": MOVQ, "scheduler": SCHEDULER},
    autoencoder="movq",
    schedulers=("DDPMScheduler", "DDIMScheduler"),
    unet_reads_beside="image_hint",
    module="kandinsky22_depth",
    size_multiple=64,
    takes_image_embeds=True,
    takes_hint=True,
)

LATENT_UPSCALER = ModelFamily(
    name="x2-latent-upscaler",
    title="Stable Diffusion x2 latent upscaler",
    pipeline_classes={Task.LATENT_UPSCALE: "StableDiffusionLatentUpscalePipeline"},
    recognised_by=frozenset({"StableDiffusionLatentUpscalePipeline"}),
    components={
        "vae": AUTOENCODER_KL,
        "text_encoder": TEXT,
        "tokenizer": TOKENIZER,
        "unet": UNET,
        "scheduler": SCHEDULER,
    },
    autoencoder="vae",
    text_encoders=("text_encoder",),
    text_layer=TextLayer.BARE,
    drops_prompt_at_guidance_0=True,
    serves_host_samplers=False,
    # The pipeline scales with the scheduler's own sigmas. Others have none, or (DPM-Solver++, DEIS, UniPC) keep their
    # latents in another scale than it reckons with: they run, and end somewhere else.
    schedulers=("EulerDiscreteScheduler", "HeunDiscreteScheduler", "LMSDiscreteScheduler"),
    module="upscalers",
    has_pooled_embeds=True,
    host_factor=0.18215,
    preview_format="SD15",
)

SUPER_RESOLUTION = ModelFamily(
    name="x4-upscaler",
    title="Stable Diffusion x4 upscaler",
    pipeline_classes={Task.SUPER_RESOLUTION: "StableDiffusionUpscalePipeline"},
    recognised_by=frozenset({"StableDiffusionUpscalePipeline"}),
    components={
        "vae": AUTOENCODER_KL,
        "text_encoder": TEXT,
        "tokenizer": TOKENIZER,
        "unet": UNET,
        "scheduler": SCHEDULER,
        "low_res_scheduler": SCHEDULER,
    },
    autoencoder="vae",
    text_encoders=("text_encoder",),
    serves_host_samplers=False,
    schedulers=KARRAS_DIFFUSION_SCHEDULERS,
    module="upscalers",
    size_multiple=4,
    keeps_latents=True,
    force_upcast_by_config=True,
    config_flags={"max_noise_level": 350},
)

FAMILIES: tuple[ModelFamily, ...] = (
    STABLE_DIFFUSION,
    SDXL_BASE,
    SDXL_REFINER,
    KANDINSKY22_PRIOR,
    KANDINSKY22_DECODER,
    KANDINSKY22_DEPTH,
    LATENT_UPSCALER,
    SUPER_RESOLUTION,
)


def recognise(model_index: Mapping[str, object], where: str) -> ModelFamily:
    """The family that a model_index.json declares.

    Args:
        model_index: the parsed file.
        where: the repo or folder, for the message.

    Raises:
        RelayError: there is no ``_class_name``, or it is of a family that the pack does not have.
    """
    class_name = model_index.get("_class_name")
    if not isinstance(class_name, str):
        raise RelayError(
            f"{where}: model_index.json names no pipeline class (_class_name is {shown(repr(class_name))}). The file is damaged or not of a diffusers model."
        )
    for family in FAMILIES:
        if class_name in family.recognised_by:
            if family is SDXL_BASE and _is_absent(model_index.get("text_encoder")):
                return SDXL_REFINER
            return family
    known = ", ".join(family.title for family in FAMILIES)
    raise RelayError(f"{where} is a {shown(class_name)}, which Diffusers Relay does not run. It runs: {known}.")


def _is_absent(entry: object) -> bool:
    return entry is None or (isinstance(entry, (list, tuple)) and all(part is None for part in entry))
