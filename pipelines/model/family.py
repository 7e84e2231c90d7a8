"""What a model family is: the facts that a row of :mod:`.family_table` states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from .component_classes import Classes
from .laws import Guidance, NoiseLaw, StepMemory, TextLayer, TextRecipe


class Task(str, Enum):
    """What a pipeline class is for."""

    TEXT_TO_IMAGE = "text-to-image"
    IMAGE_TO_IMAGE = "image-to-image"
    INPAINT = "inpainting"
    PRIOR = "prior"
    LATENT_UPSCALE = "latent upscaling"
    SUPER_RESOLUTION = "super-resolution"


@dataclass(frozen=True)
class ModelFamily:
    """One family's facts. Callers ask a fact; nobody compares names."""

    name: str
    """Stable key, e.g. ``"sdxl"``."""
    title: str
    """What messages call it."""
    pipeline_classes: Mapping[Task, str]
    """The name of diffusers' class for each task that the family has. What calls it: :mod:`..families.family_runs`."""
    recognised_by: frozenset[str]
    """``_class_name`` values of model_index.json that mean this family."""
    components: Mapping[str, Classes]
    """The components that the pack loads, and the classes that each may be; others of model_index.json (the safety checker)
    stay on disk."""
    optional: frozenset[str] = frozenset()
    """Those of ``components`` that a published model may lack (T5 beside Stable Diffusion 3's two CLIPs)."""
    control_pipeline_classes: Mapping[Task, str] = field(default_factory=dict)
    """The same for a run with ControlNets; empty: the family takes none."""
    autoencoder: str | None = None
    """The component that goes between pixels and latents; None: the family makes no latents."""
    text_encoders: tuple[str, ...] = ()
    """Text encoder components that :mod:`weighting` encodes a prompt with, first to last."""
    text: TextRecipe = TextRecipe.CLIP
    text_layer: TextLayer = TextLayer.NORMALISED
    noise: NoiseLaw = NoiseLaw.DIFFUSION
    also_noise: frozenset[NoiseLaw] = frozenset()
    """Other laws that some published models of the family were trained by."""
    known_schedule: Mapping[str, object] = field(default_factory=dict)
    """What the scheduler's config says in every published model of the family, for a folder whose own scheduler is of a law that
    the family can't run. Empty: not known, and such a folder is refused."""
    steps_offset: int | None = None
    """The family's pipelines set the scheduler's ``steps_offset`` to this, whatever its config says; None: they leave it."""
    guidance: Guidance = Guidance.ONE_BATCH
    memory: StepMemory = StepMemory.UNET
    drops_prompt_at_guidance_0: bool = False
    """At guidance 0 the script encodes "" in the place of the prompt."""
    serves_host_samplers: bool = True
    """Its text embeddings mean something to the host's own samplers."""
    since: str | None = None
    """The first version of diffusers that has what the family's module calls; None: all that the pack runs on have it."""
    auto_keys: tuple[str, ...] = ()
    """The family's rows of diffusers' AutoPipeline tables (``AUTO_IMAGE2IMAGE_PIPELINES_MAPPING`` and its sisters)."""
    denoiser: str = "unet"
    unet_reads_beside: str | None = None
    """What its UNet reads beside the text, as diffusers' ``addition_embed_type`` names it."""
    schedulers: tuple[str, ...] = ()
    """diffusers' scheduler classes of the law :attr:`noise` that the family's pipelines run with, beside the model's own."""
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
    takes_embeddings: bool = False
    """diffusers' ``load_textual_inversion`` works with the family's pipelines."""
    keeps_latents: bool = False
    """Its latents are its own: they never leave the run, and no other model's come in."""
    force_upcast_by_config: bool = False
    """The pipelines run the autoencoder in float32 where its config says ``force_upcast``."""
    host_factor: float = 1.0
    """Model scale / the host's LATENT: what the host's latent format of the family multiplies by."""
    host_shift: float = 0.0
    """What the host's latent format subtracts before that."""
    vae_config: str | None = None
    """The folder of ``loading/configs`` whose VAE a VAE file of the family is; None: it takes none from a file."""
    preview_format: str | None = None
    """The class of the host's ``latent_formats`` that fits the family's latents."""
    config_flags: Mapping[str, object] = field(default_factory=dict)
    """model_index.json entries that change results, with diffusers' defaults."""

    def pipeline_class(self, task: Task, *, control: bool = False) -> type:
        """diffusers' class for ``task``, with ControlNets or without; imports diffusers."""
        import diffusers

        return getattr(diffusers, (self.control_pipeline_classes if control else self.pipeline_classes)[task])
