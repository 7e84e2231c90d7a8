"""The model families, one row each. A new family is a row here, a module in ``families/`` and its line in :mod:`..families.family_runs`."""

from __future__ import annotations

from .component_classes import (
    AUTOENCODER,
    AUTOENCODER_KL,
    CONTROLNET,
    CONTROLNET_UNION,
    FLOW_MATCH_SCHEDULERS,
    FLOW_SCHEDULER,
    FLOW_SOLVERS,
    FLUX_TRANSFORMER,
    KARRAS_DIFFUSION_SCHEDULERS,
    LCM_SCHEDULER,
    MORE_DIFFUSION_SCHEDULERS,
    MOVQ,
    PICTURE,
    PICTURE_PROCESSOR,
    PRIOR,
    PRIOR_SCHEDULER,
    SCHEDULER,
    SD3_TRANSFORMER,
    T5,
    T5_TOKENIZER,
    TEXT,
    TEXT_PROJECTED,
    TOKENIZER,
    UNET,
)
from .family import ModelFamily, Task
from .laws import Guidance, NoiseLaw, StepMemory, TextLayer, TextRecipe

STABLE_DIFFUSION_SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "skip_prk_steps": True,
}

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
    pag_pipeline_classes={
        Task.TEXT_TO_IMAGE: "StableDiffusionPAGPipeline",
        Task.IMAGE_TO_IMAGE: "StableDiffusionPAGImg2ImgPipeline",
        Task.INPAINT: "StableDiffusionPAGInpaintPipeline",
    },
    pag_control_pipeline_classes={
        Task.TEXT_TO_IMAGE: "StableDiffusionControlNetPAGPipeline",
        Task.INPAINT: "StableDiffusionControlNetPAGInpaintPipeline",
    },
    controlnet=CONTROLNET,
    recognised_by=frozenset(
        {"StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"}
    ),
    components={"vae": AUTOENCODER, "text_encoder": TEXT, "tokenizer": TOKENIZER, "unet": UNET, "scheduler": SCHEDULER},
    auto_keys=(
        *("stable-diffusion", "stable-diffusion-controlnet"),
        *("stable-diffusion-pag", "stable-diffusion-controlnet-pag"),
    ),
    autoencoder="vae",
    text_encoders=("text_encoder",),
    also_noise=frozenset({NoiseLaw.EDM}),
    known_schedule=STABLE_DIFFUSION_SCHEDULE,
    steps_offset=1,
    takes_embeddings=True,
    schedulers=KARRAS_DIFFUSION_SCHEDULERS + MORE_DIFFUSION_SCHEDULERS,
    inpaints_plain_models=True,
    host_factor=0.18215,
    vae_config="sd15",
    preview_format="SD15",
)

LATENT_CONSISTENCY = ModelFamily(
    name="latent-consistency",
    title="Latent Consistency Model",
    pipeline_classes={
        Task.TEXT_TO_IMAGE: "LatentConsistencyModelPipeline",
        Task.IMAGE_TO_IMAGE: "LatentConsistencyModelImg2ImgPipeline",
    },
    recognised_by=frozenset({"LatentConsistencyModelPipeline", "LatentConsistencyModelImg2ImgPipeline"}),
    components={
        "vae": AUTOENCODER,
        "text_encoder": TEXT,
        "tokenizer": TOKENIZER,
        "unet": UNET,
        "scheduler": LCM_SCHEDULER,
    },
    auto_keys=("lcm",),
    autoencoder="vae",
    text_encoders=("text_encoder",),
    keeps_steps=True,
    guidance=Guidance.EMBEDDED,
    takes_embeddings=True,
    schedulers=("LCMScheduler",),
    host_factor=0.18215,
    vae_config="sd15",
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
    pag_pipeline_classes={
        Task.TEXT_TO_IMAGE: "StableDiffusionXLPAGPipeline",
        Task.IMAGE_TO_IMAGE: "StableDiffusionXLPAGImg2ImgPipeline",
        Task.INPAINT: "StableDiffusionXLPAGInpaintPipeline",
    },
    pag_control_pipeline_classes={
        Task.TEXT_TO_IMAGE: "StableDiffusionXLControlNetPAGPipeline",
        Task.IMAGE_TO_IMAGE: "StableDiffusionXLControlNetPAGImg2ImgPipeline",
    },
    union_pipeline_classes={
        Task.TEXT_TO_IMAGE: "StableDiffusionXLControlNetUnionPipeline",
        Task.IMAGE_TO_IMAGE: "StableDiffusionXLControlNetUnionImg2ImgPipeline",
        Task.INPAINT: "StableDiffusionXLControlNetUnionInpaintPipeline",
    },
    controlnet=CONTROLNET,
    controlnet_union=CONTROLNET_UNION,
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
    auto_keys=(
        *("stable-diffusion-xl", "stable-diffusion-xl-controlnet", "stable-diffusion-xl-controlnet-union"),
        *("stable-diffusion-xl-pag", "stable-diffusion-xl-controlnet-pag"),
    ),
    autoencoder="vae",
    text_encoders=("text_encoder", "text_encoder_2"),
    text_layer=TextLayer.PENULTIMATE,
    also_noise=frozenset({NoiseLaw.EDM}),
    known_schedule=STABLE_DIFFUSION_SCHEDULE,
    takes_embeddings=True,
    schedulers=KARRAS_DIFFUSION_SCHEDULERS + MORE_DIFFUSION_SCHEDULERS,
    inpaints_plain_models=True,
    has_denoising_range=True,
    has_pooled_embeds=True,
    reads_sizes=True,
    force_upcast_by_config=True,
    host_factor=0.13025,
    vae_config="sdxl",
    preview_format="SDXL",
    config_flags={"force_zeros_for_empty_prompt": True},
    unet_reads_beside="text_time",
)

SDXL_REFINER = ModelFamily(
    name="sdxl-refiner",
    title="Stable Diffusion XL refiner",
    pipeline_classes={
        Task.IMAGE_TO_IMAGE: "StableDiffusionXLImg2ImgPipeline",
        Task.INPAINT: "StableDiffusionXLInpaintPipeline",
    },
    pag_pipeline_classes={
        Task.IMAGE_TO_IMAGE: "StableDiffusionXLPAGImg2ImgPipeline",
        Task.INPAINT: "StableDiffusionXLPAGInpaintPipeline",
    },
    recognised_by=frozenset(
        {"StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"}
    ),
    recognised_without=frozenset({"text_encoder"}),
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
    also_noise=frozenset({NoiseLaw.EDM}),
    known_schedule=STABLE_DIFFUSION_SCHEDULE,
    takes_embeddings=True,
    schedulers=KARRAS_DIFFUSION_SCHEDULERS + MORE_DIFFUSION_SCHEDULERS,
    inpaints_plain_models=True,
    has_denoising_range=True,
    has_pooled_embeds=True,
    reads_sizes=True,
    force_upcast_by_config=True,
    host_factor=0.13025,
    vae_config="sdxl",
    preview_format="SDXL",
    config_flags={"force_zeros_for_empty_prompt": True, "requires_aesthetics_score": False},
    unet_reads_beside="text_time",
)

STABLE_DIFFUSION_3 = ModelFamily(
    name="stable-diffusion-3",
    title="Stable Diffusion 3",
    pipeline_classes={
        Task.TEXT_TO_IMAGE: "StableDiffusion3Pipeline",
        Task.IMAGE_TO_IMAGE: "StableDiffusion3Img2ImgPipeline",
        Task.INPAINT: "StableDiffusion3InpaintPipeline",
    },
    recognised_by=frozenset(
        {"StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline", "StableDiffusion3InpaintPipeline"}
    ),
    components={
        "vae": AUTOENCODER,
        "text_encoder": TEXT_PROJECTED,
        "text_encoder_2": TEXT_PROJECTED,
        "text_encoder_3": T5,
        "tokenizer": TOKENIZER,
        "tokenizer_2": TOKENIZER,
        "tokenizer_3": T5_TOKENIZER,
        "transformer": SD3_TRANSFORMER,
        "scheduler": FLOW_SCHEDULER,
    },
    optional=frozenset({"text_encoder_3", "tokenizer_3"}),
    since="0.39",
    auto_keys=("stable-diffusion-3",),
    autoencoder="vae",
    text_encoders=("text_encoder", "text_encoder_2", "text_encoder_3"),
    text=TextRecipe.CLIP_AND_T5,
    text_layer=TextLayer.PENULTIMATE,
    noise=NoiseLaw.FLOW,
    guidance=Guidance.TWO_CALLS,
    memory=StepMemory.TRANSFORMER,
    denoiser="transformer",
    schedulers=FLOW_MATCH_SCHEDULERS + FLOW_SOLVERS,
    size_multiple=16,
    blends_masks=True,
    has_pooled_embeds=True,
    host_factor=1.5305,
    host_shift=0.0609,
    vae_config="sd3",
    preview_format="SD3",
)

FLUX = ModelFamily(
    name="flux",
    title="Flux.1",
    pipeline_classes={
        Task.TEXT_TO_IMAGE: "FluxPipeline",
        Task.IMAGE_TO_IMAGE: "FluxImg2ImgPipeline",
        Task.INPAINT: "FluxInpaintPipeline",
    },
    recognised_by=frozenset({"FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline"}),
    components={
        "vae": AUTOENCODER,
        "text_encoder": TEXT,
        "text_encoder_2": T5,
        "tokenizer": TOKENIZER,
        "tokenizer_2": T5_TOKENIZER,
        "transformer": FLUX_TRANSFORMER,
        "scheduler": FLOW_SCHEDULER,
    },
    auto_keys=("flux",),
    autoencoder="vae",
    text_encoders=("text_encoder", "text_encoder_2"),
    text=TextRecipe.POOLED_CLIP_AND_T5,
    text_layer=TextLayer.BARE,
    noise=NoiseLaw.FLOW,
    guidance=Guidance.EMBEDDED,
    has_true_cfg=True,
    memory=StepMemory.SINGLE_STREAM,
    denoiser="transformer",
    schedulers=(*FLOW_MATCH_SCHEDULERS[:1], *FLOW_SOLVERS),
    size_multiple=16,
    packed=2,
    blends_masks=True,
    has_pooled_embeds=True,
    host_factor=0.3611,
    host_shift=0.1159,
    vae_config="flux",
    preview_format="Flux",
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
    text=TextRecipe.NONE,
    noise=NoiseLaw.UNCLIP,
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
    auto_keys=("kandinsky22",),
    autoencoder="movq",
    text=TextRecipe.NONE,
    schedulers=("DDPMScheduler", "DDIMScheduler"),
    size_multiple=64,
    takes_image_embeds=True,
    unet_reads_beside="image",
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
    text=TextRecipe.NONE,
    schedulers=("DDPMScheduler", "DDIMScheduler"),
    size_multiple=64,
    takes_image_embeds=True,
    takes_hint=True,
    unet_reads_beside="image_hint",
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
    # The pipeline scales latents with the scheduler's sigmas. Other schedulers have none, or (DPM-Solver++, DEIS, UniPC) keep
    # their latents in another scale than the pipeline expects: they run, but the result is wrong.
    schedulers=("EulerDiscreteScheduler", "HeunDiscreteScheduler", "LMSDiscreteScheduler"),
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
    takes_embeddings=True,
    schedulers=KARRAS_DIFFUSION_SCHEDULERS,
    size_multiple=4,
    keeps_latents=True,
    force_upcast_by_config=True,
    config_flags={"max_noise_level": 350},
)

FAMILIES: tuple[ModelFamily, ...] = (
    STABLE_DIFFUSION,
    LATENT_CONSISTENCY,
    SDXL_BASE,
    SDXL_REFINER,
    STABLE_DIFFUSION_3,
    FLUX,
    KANDINSKY22_PRIOR,
    KANDINSKY22_DECODER,
    KANDINSKY22_DEPTH,
    LATENT_UPSCALER,
    SUPER_RESOLUTION,
)
