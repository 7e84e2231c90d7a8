"""The fields of a row in :mod:`.family_table`: the facts about a model family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from .component_classes import Classes
from .laws import Guidance, NoiseLaw, StepMemory, TextLayer, TextRecipe


class Task(str, Enum):
    """The task of a pipeline class."""

    TEXT_TO_IMAGE = "text-to-image"
    IMAGE_TO_IMAGE = "image-to-image"
    INPAINT = "inpainting"
    PRIOR = "prior"
    LATENT_UPSCALE = "latent upscaling"
    SUPER_RESOLUTION = "super-resolution"


@dataclass(frozen=True)
class ModelFamily:
    """The facts about one family. Code uses these fields and never compares family names."""

    name: str
    """Stable key, e.g. ``"sdxl"``."""
    title: str
    """Its name in messages."""
    pipeline_classes: Mapping[Task, str]
    """Task -> name of diffusers' class for it. :mod:`..families.family_runs` calls them."""
    recognised_by: frozenset[str]
    """Values of ``_class_name`` in model_index.json that belong to this family."""
    components: Mapping[str, Classes]
    """The components that the pack loads, with the classes that each may have. Others in model_index.json, such as the
    safety checker, are not loaded."""
    recognised_without: frozenset[str] = frozenset()
    """Components that no model of the family has, if another family has the same values of ``_class_name``."""
    optional: frozenset[str] = frozenset()
    """Components that a published model may lack (e.g. T5 in Stable Diffusion 3)."""
    control_pipeline_classes: Mapping[Task, str] = field(default_factory=dict)
    """Task -> class name for a run with ControlNets; empty if the family can't use them."""
    pag_pipeline_classes: Mapping[Task, str] = field(default_factory=dict)
    """Task -> class name for a run with perturbed attention guidance (PAG); empty if diffusers has none."""
    pag_control_pipeline_classes: Mapping[Task, str] = field(default_factory=dict)
    """The same with ControlNets."""
    union_pipeline_classes: Mapping[Task, str] = field(default_factory=dict)
    """Task -> class name for a run with ControlNet Unions; empty if the family can't use them."""
    controlnet: Classes | None = None
    """The class of its ControlNets; None if the family can't use them. The family's module makes the arguments from them."""
    controlnet_union: Classes | None = None
    """The class of its ControlNet Unions; None if the family can't use them."""
    autoencoder: str | None = None
    """The component that converts between pixels and latents; None if the family makes no latents."""
    text_encoders: tuple[str, ...] = ()
    """Text encoder components with which :mod:`weighting` encodes a prompt, in order."""
    text: TextRecipe = TextRecipe.CLIP
    text_layer: TextLayer = TextLayer.NORMALISED
    noise: NoiseLaw = NoiseLaw.DIFFUSION
    also_noise: frozenset[NoiseLaw] = frozenset()
    """Other noise laws that some published models of the family were trained with."""
    known_schedule: Mapping[str, object] = field(default_factory=dict)
    """The scheduler config that all published models of the family share. It replaces a folder's own scheduler if its law can't
    be run by the family. If empty, such a folder is refused."""
    keeps_steps: bool = False
    """Whether image-to-image runs all steps at any strength, spread over a shorter part of the schedule."""
    steps_offset: int | None = None
    """The value to which the family's pipelines set the scheduler's ``steps_offset``; None if they don't change it."""
    guidance: Guidance = Guidance.ONE_BATCH
    has_true_cfg: bool = False
    """Whether its pipelines take ``true_cfg_scale`` with a negative prompt."""
    memory: StepMemory = StepMemory.UNET
    drops_prompt_at_guidance_0: bool = False
    """At guidance 0 the script encodes "" instead of the prompt."""
    serves_host_samplers: bool = True
    """Whether the host's own samplers can use its text embeddings."""
    since: str | None = None
    """The first version of diffusers that the family's module works with; None if all versions that the pack supports do."""
    auto_keys: tuple[str, ...] = ()
    """The family's keys in diffusers' AutoPipeline tables (such as ``AUTO_IMAGE2IMAGE_PIPELINES_MAPPING``)."""
    denoiser: str = "unet"
    unet_reads_beside: str | None = None
    """What its UNet reads besides the text: the value of diffusers' ``addition_embed_type``."""
    schedulers: tuple[str, ...] = ()
    """diffusers' scheduler classes with the law :attr:`noise` that the family's pipelines can use, besides the model's own."""
    size_multiple: int = 8
    """Width and height must be multiples of this, in pixels."""
    packed: int = 1
    """Latent pixels along one side that the denoiser reads as one token, packed into its input channels by the pipeline."""
    takes_image_embeds: bool = False
    """Whether it is conditioned on CLIP image embeddings instead of text (Kandinsky's decoder)."""
    takes_hint: bool = False
    """Whether it needs a depth map in every run."""
    inpaints_plain_models: bool = False
    """Whether the inpainting pipeline also runs a plain UNet. If not, it needs a UNet that was trained for inpainting. Those that run plain
    ones also take ``padding_mask_crop``."""
    blends_masks: bool = False
    """Whether diffusers' inpainting pipeline does what :class:`~..denoising.step_callback.KeepUnmasked` does with a plain
    denoiser, so that the family's module gets a masked run like any other. The family has no denoisers trained for inpainting."""
    has_denoising_range: bool = False
    """Whether the pipelines take ``denoising_end`` (and ``denoising_start`` for image-to-image)."""
    has_pooled_embeds: bool = False
    reads_sizes: bool = False
    """Whether its pipelines take SDXL's ``original_size``, ``crops_coords_top_left`` and ``target_size``."""
    takes_embeddings: bool = False
    """Whether diffusers' ``load_textual_inversion`` works with the family's pipelines."""
    keeps_latents: bool = False
    """Whether its latents never leave the run, and it can't read latents of other models."""
    force_upcast_by_config: bool = False
    """Whether the pipelines run the autoencoder in float32 if its config has ``force_upcast``."""
    host_factor: float = 1.0
    """Latents in the model's scale / the host's LATENT: the factor of the host's latent format for the family."""
    host_shift: float = 0.0
    """What the host's latent format subtracts before that."""
    vae_config: str | None = None
    """The folder in ``loading/configs`` with the config for the family's VAE files; None if the family can't use a VAE file."""
    preview_format: str | None = None
    """The class in the host's ``latent_formats`` for the family's latents."""
    config_flags: Mapping[str, object] = field(default_factory=dict)
    """Entries of model_index.json that change results, with diffusers' defaults."""

    def pipeline_class(self, task: Task, *, control: bool = False, union: bool = False, pag: bool = False) -> type:
        """diffusers' class for ``task``, with or without ControlNets and PAG. Imports diffusers.

        ``union``: the ControlNets are Unions, for which there is no PAG.
        """
        import diffusers

        if union:
            classes = self.union_pipeline_classes
        elif pag:
            classes = self.pag_control_pipeline_classes if control else self.pag_pipeline_classes
        else:
            classes = self.control_pipeline_classes if control else self.pipeline_classes
        return getattr(diffusers, classes[task])
