"""One script for each task, with whatever arguments a test is about, written without the pack's code, like scripts.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting, AutoPipelineForText2Image

from .control_scripts import Control, controlled
from .inpaint_scripts import mask_picture
from .scripts import generator, loaded, soft_picture

SIZE = (96, 64)
AUTO = {"text": AutoPipelineForText2Image, "image": AutoPipelineForImage2Image, "inpaint": AutoPipelineForInpainting}
STRENGTH = {"image": 0.7, "inpaint": 0.8}
STEPS = 5


def paint(
    model: Path | str,
    task: str,
    prompt: str,
    negative_prompt: str | None = None,
    *,
    pipeline_class: Any = None,
    controls: Sequence[Control] = (),
    scheduler: Any = None,
    load: Mapping[str, Any] | None = None,
    seed: int = 3,
    takes_negative: bool = True,
    prepare: Callable[[Any], dict[str, Any]] | None = None,
    **call: Any,
) -> Any:
    """A picture of SIZE. task: a key of AUTO; it starts from `soft_picture(*SIZE)`, under `mask_picture(*SIZE)`.

    pipeline_class: to use instead of AUTO's. takes_negative: whether the pipeline has a negative prompt. scheduler: a function of the pipeline's own scheduler that returns the one to use. load: more arguments of from_pretrained.
    prepare: changes the pipeline, and returns more arguments of its call. call: more arguments of the pipeline's call.
    """
    if controls:
        image_argument = "image" if task == "text" else "control_image"
        pipeline, arguments = controlled(AUTO[task], model, controls, image_argument, **(load or {}))
    else:
        pipeline, arguments = loaded(pipeline_class or AUTO[task], model, dict(load or {})), {}
    if scheduler is not None:
        pipeline.scheduler = scheduler(pipeline.scheduler)
    if prepare is not None:
        arguments |= prepare(pipeline)
    if task != "image":
        arguments |= {"width": SIZE[0], "height": SIZE[1]}
    if task != "text":
        arguments |= {"image": soft_picture(*SIZE), "strength": STRENGTH[task]}
    if task == "inpaint":
        arguments["mask_image"] = mask_picture(*SIZE)
    if takes_negative:
        arguments["negative_prompt"] = negative_prompt
    return pipeline(
        prompt,
        generator=generator(seed),
        **{"num_inference_steps": STEPS, "guidance_scale": 5.0, "output_type": "np"} | arguments | call,
    ).images
