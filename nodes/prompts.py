"""Nodes that encode and mix prompts."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..weighting.syntax import SYNTAXES
from . import comfy_host, sampling_inputs
from .wire_types import DiffusersModel, DiffusersPrompt

SYNTAX_TOOLTIP = (
    'How weights are written. compel: word++ or word--, (some words)1.3, ("one", "two").and(1, 0.5), ("one", "two").blend(0.7, 0.3). '
    "a1111: (words) or [words], (some words:1.3), BREAK. plain: every character is text."
)
CATEGORY = f"{comfy_host.CATEGORY}/prompts"


def _check_syntax(syntax: str) -> None:
    comfy_host.check_choice("syntax", syntax, SYNTAXES)


class RelayEncodePrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayEncodePrompt",
            display_name="Encode Prompt",
            category=CATEGORY,
            description=(
                "Encodes text to embeddings with the model's own text encoders, weighted by Compel. For Kandinsky, use Kandinsky Prior. "
                "Use this for models of Diffusers Relay and for Compel's weights, and ComfyUI's CLIP Text Encode (Prompt) for anything else."
            ),
            inputs=[
                DiffusersModel.Input(
                    "model",
                    tooltip="The model that the prompt is for. Each model only reads embeddings of its own text encoders.",
                ),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    default="",
                    tooltip="What to paint. The text can be longer than 77 tokens.",
                ),
                io.String.Input(
                    "negative_prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    default="",
                    tooltip="What to keep out of the picture. It only works if guidance_scale is above 1. Empty is the same as None in a diffusers script.",
                ),
                io.Combo.Input("syntax", options=list(SYNTAXES), default="compel", tooltip=SYNTAX_TOOLTIP),
                io.Int.Input(
                    "clip_skip",
                    default=0,
                    min=0,
                    max=24,
                    tooltip="How many of the text encoder's last layers to skip. 0 is the model's default. Clip skip 2 in other programs is 1 here, as in diffusers.",
                    **comfy_host.advanced(io.Int.Input),
                ),
            ],
            outputs=[
                DiffusersPrompt.Output(
                    display_name="prompt", tooltip="Both prompts, for the samplers of Diffusers Relay."
                ),
                io.Conditioning.Output(display_name="positive", tooltip="The prompt for ComfyUI's own samplers."),
                io.Conditioning.Output(
                    display_name="negative", tooltip="The negative prompt for ComfyUI's own samplers."
                ),
            ],
            hidden=[io.Hidden.unique_id],
            **comfy_host.found_by(
                "prompt, text prompt, positive prompt, negative prompt, text encoder, clip text encode, prompt weights, weights, compel, a1111, clip skip"
            ),
        )

    @classmethod
    def validate_inputs(cls, syntax: str | None = None) -> bool | str:
        return comfy_host.refusal(_check_syntax, syntax)

    @classmethod
    def execute(cls, model: Any, prompt: str, negative_prompt: str, syntax: str, clip_skip: int) -> io.NodeOutput:
        from ..weighting.compel_encoder import encode_prompt
        from ..weighting.conditioning import to_conditioning

        _check_syntax(syntax)
        runtime = comfy_host.runtime_for(cls)
        embeds = encode_prompt(model, prompt, negative_prompt, runtime, syntax=syntax, clip_skip=clip_skip)
        if not model.family.serves_host_samplers:
            refused = comfy_host.refused_output(
                f"Encode Prompt: {model.source} is a {model.family.title}, which ComfyUI's own samplers can't run. "
                "Connect prompt to a node of this pack, and leave positive and negative unconnected."
            )
            return io.NodeOutput(embeds, refused, refused)
        return io.NodeOutput(embeds, to_conditioning(embeds.positive), to_conditioning(embeds.negative))


class RelayKandinskyPrior(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayKandinskyPrior",
            display_name="Kandinsky Prior",
            category=CATEGORY,
            description="The first half of Kandinsky 2.2: turns text (and optionally a picture) into the image embeddings that the decoder paints from.",
            inputs=[
                DiffusersModel.Input(
                    "prior", tooltip="A Kandinsky 2.2 prior, e.g. kandinsky-community/kandinsky-2-2-prior."
                ),
                io.String.Input("prompt", multiline=True, dynamic_prompts=True, default="", tooltip="What to paint."),
                io.String.Input(
                    "negative_prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    default="",
                    tooltip="What to keep out of the picture. It also changes the positive embedding, as in diffusers. Empty is the same as None in a script.",
                ),
                io.Combo.Input("syntax", options=list(SYNTAXES), default="compel", tooltip=SYNTAX_TOOLTIP),
                io.Int.Input(
                    "steps",
                    default=25,
                    min=2,
                    max=1000,
                    tooltip="Denoising steps of the prior. More steps take longer. The model's default is 25.",
                ),
                io.Float.Input(
                    "guidance_scale",
                    default=4.0,
                    min=0.0,
                    max=50.0,
                    step=0.1,
                    tooltip="How closely the embedding follows the text. Higher follows it more closely. The model's default is 4.",
                ),
                sampling_inputs.seed("The seed for the prior's noise."),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="A picture: the run starts from its embedding. strength sets how much it can change.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="Only used with image: how far the embedding can move away from the picture's. 1 ignores the picture; lower values stay closer to it.",
                ),
            ],
            outputs=[
                DiffusersPrompt.Output(display_name="prompt", tooltip="Image embeddings, for a Kandinsky 2.2 decoder.")
            ],
            hidden=[io.Hidden.unique_id],
            **comfy_host.found_by(
                "prior, prompt, negative prompt, kandinsky 2.2, unclip, text to embedding, interpolate"
            ),
        )

    @classmethod
    def validate_inputs(cls, syntax: str | None = None) -> bool | str:
        return comfy_host.refusal(_check_syntax, syntax)

    @classmethod
    def execute(
        cls,
        prior: Any,
        prompt: str,
        negative_prompt: str,
        syntax: str,
        steps: int,
        guidance_scale: float,
        seed: int,
        image: Any = None,
        strength: float = 1.0,
    ) -> io.NodeOutput:
        from ..pipelines.families.kandinsky22_prior import PriorSettings, check_prior, run_prior
        from ..pipelines.model.family import Task
        from ..pipelines.model.family_lookup import require_task
        from ..weighting.prior_encoder import encode_for_prior

        require_task(prior.family, Task.PRIOR, prior.source)
        _check_syntax(syntax)
        runtime = comfy_host.runtime_for(cls)
        settings = PriorSettings(steps, guidance_scale, seed, strength)
        check_prior(settings, image)
        text = encode_for_prior(prior, prompt, negative_prompt, runtime, syntax=syntax)
        return io.NodeOutput(run_prior(prior, text, settings, runtime, image))


class RelayImagePrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayImagePrompt",
            display_name="Image Prompt",
            category=CATEGORY,
            description=(
                "Turns a picture into a prompt for a Kandinsky 2.2 decoder: its CLIP image embedding. "
                "Use this for Kandinsky, and ComfyUI's CLIP Vision Encode for unCLIP checkpoints and style models."
            ),
            inputs=[
                DiffusersModel.Input("prior", tooltip="A Kandinsky 2.2 prior. Only its image encoder is used."),
                io.Image.Input("image", tooltip="One picture."),
            ],
            outputs=[
                DiffusersPrompt.Output(display_name="prompt", tooltip="Image embeddings, for a Kandinsky 2.2 decoder.")
            ],
            hidden=[io.Hidden.unique_id],
            **comfy_host.found_by(
                "image embedding, embedding, clip vision, image variation, variations, kandinsky, unclip, interpolate"
            ),
        )

    @classmethod
    def execute(cls, prior: Any, image: Any) -> io.NodeOutput:
        from ..pipelines.families.kandinsky22_prior import embed_image
        from ..pipelines.model.family import Task
        from ..pipelines.model.family_lookup import require_task

        require_task(prior.family, Task.PRIOR, prior.source)
        return io.NodeOutput(embed_image(prior, image, comfy_host.runtime_for(cls)))


class RelayMixPrompts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayMixPrompts",
            display_name="Mix Prompts",
            category=CATEGORY,
            description=(
                "Mixes two prompts of the same kind: a weighted mean of their embeddings. "
                "Use this for prompts of Diffusers Relay, and ComfyUI's ConditioningAverage for CONDITIONING."
            ),
            inputs=[
                DiffusersPrompt.Input("prompt_a", tooltip="The first prompt. Its weight is 1 - weight_b."),
                DiffusersPrompt.Input(
                    "prompt_b", tooltip="The second prompt, made with the same model. Its weight is weight_b."
                ),
                io.Float.Input(
                    "weight_b",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="The weight of prompt_b. 0: only prompt_a. 1: only prompt_b.",
                ),
            ],
            outputs=[DiffusersPrompt.Output(display_name="prompt", tooltip="The mixed prompt.")],
            **comfy_host.found_by(
                "blend prompts, interpolate, average, merge prompts, combine prompts, conditioning average, lerp, mix images"
            ),
        )

    @classmethod
    def execute(cls, prompt_a: Any, prompt_b: Any, weight_b: float) -> io.NodeOutput:
        from ..pipelines.model.mixing import mix

        return io.NodeOutput(mix(prompt_a, prompt_b, weight_b))
