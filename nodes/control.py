"""Nodes for ControlNets, which steer a run with a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..pipelines.control.unions import MODES, NO_MODE
from . import comfy_host, loading_inputs, model_choices
from .wire_types import DiffusersControl, DiffusersControlNet

NONE_HERE = "Put a ControlNet's folder or file in models/controlnet."


def _choices() -> tuple[dict[str, str], dict[str, str]]:
    """Name -> path: the folders in models/controlnet, and the files that are not part of one of them."""
    folders = comfy_host.folders_with("config.json", "controlnet")
    return folders, model_choices.without_insides(comfy_host.model_files("controlnet"), folders)


def _pick(value: str) -> Path:
    return model_choices.pick("controlnet", value, *_choices(), "ControlNets", NONE_HERE)


class RelayLoadControlNet(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayLoadControlNet",
            display_name="Load ControlNet (Diffusers)",
            category=f"{comfy_host.CATEGORY}/loaders",
            description=(
                "Loads a ControlNet from models/controlnet, either a diffusers folder or a single file. Two loaders of the same ControlNet share its weights. "
                "Use this with Apply ControlNet (Diffusers), and ComfyUI's own Load ControlNet Model for ComfyUI's own samplers."
            ),
            inputs=[
                io.Combo.Input(
                    "controlnet",
                    options=model_choices.shown(*_choices()),
                    tooltip="A folder with a config.json, or a .safetensors file, anywhere under models/controlnet (or a controlnet path of extra_model_paths.yaml).",
                ),
                loading_inputs.dtype(),
            ],
            outputs=[
                DiffusersControlNet.Output(
                    display_name="controlnet", tooltip="The ControlNet, for Apply ControlNet (Diffusers)."
                )
            ],
            hidden=[io.Hidden.unique_id],
            **comfy_host.found_by("controlnet, control net, controlnet loader, weights, depth, canny, pose"),
        )

    @classmethod
    def validate_inputs(cls, controlnet: str | None = None) -> bool | str:
        return comfy_host.refusal(_pick, controlnet)

    @classmethod
    def fingerprint_inputs(cls, controlnet: str, dtype: str) -> str:
        """Changes when a file of the ControlNet changes, so that the ControlNet is loaded again."""
        path = model_choices.accepted(*_choices()).get(controlnet)
        return "missing" if path is None else comfy_host.state_of_files(path)

    @classmethod
    def execute(cls, controlnet: str, dtype: str) -> io.NodeOutput:
        from ..pipelines.control.units import ControlNet
        from ..pipelines.loading.controlnet import load_controlnet_folder
        from ..pipelines.loading.single_parts import load_controlnet_file

        path, weights = _pick(controlnet), comfy_host.pick_dtype(dtype)
        if not path.is_dir():
            return io.NodeOutput(ControlNet(controlnet, load_controlnet_file(path, weights, source=controlnet)))
        monitor = comfy_host.runtime_for(cls).monitor
        return io.NodeOutput(load_controlnet_folder(path, dtype=weights, source=controlnet, monitor=monitor))


class RelayLoadControlNetFromHub(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayLoadControlNetFromHub",
            display_name="Load ControlNet from Hub (Diffusers)",
            category=f"{comfy_host.CATEGORY}/loaders",
            description="Downloads a ControlNet from the Hugging Face Hub once, into the usual cache, and loads it. Safetensors only.",
            inputs=loading_inputs.of_the_hub("lllyasviel/control_v11f1p_sd15_depth"),
            outputs=[
                DiffusersControlNet.Output(
                    display_name="controlnet", tooltip="The ControlNet, for Apply ControlNet (Diffusers)."
                )
            ],
            hidden=[io.Hidden.unique_id],
            **comfy_host.found_by(
                "controlnet, control net, controlnet loader, huggingface, hf, download controlnet, weights, depth, canny, pose"
            ),
        )

    @classmethod
    def validate_inputs(cls, repo_id: str | None = None) -> bool | str:
        return loading_inputs.refusal_of_repo(repo_id)

    @classmethod
    def execute(cls, repo_id: str, revision: str, variant: str, dtype: str, subfolder: str = "") -> io.NodeOutput:
        from ..pipelines.loading.controlnet import load_controlnet_from_hub

        return loading_inputs.load_from_hub(cls, load_controlnet_from_hub, repo_id, revision, subfolder, variant, dtype)


class RelayApplyControlNet(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayApplyControlNet",
            display_name="Apply ControlNet (Diffusers)",
            category=f"{comfy_host.CATEGORY}/control",
            description=(
                "Prepares a ControlNet and its control picture for the control input of a sampling node. Chain several nodes to use several ControlNets together. "
                "Use this for the samplers of Diffusers Relay, and ComfyUI's own Apply ControlNet for ComfyUI's own samplers."
            ),
            inputs=[
                DiffusersControlNet.Input(
                    "controlnet", tooltip="The ControlNet. It must be made for the kind of model that paints."
                ),
                io.Image.Input(
                    "image",
                    tooltip="The control picture (edges, depth and so on): one for the whole batch, or one for each picture. It is stretched to the painted size (lanczos) if its size differs.",
                ),
                io.Float.Input(
                    "conditioning_scale",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="How strongly the control picture steers the run. Higher is stronger; 0 turns the ControlNet off.",
                ),
                io.Float.Input(
                    "start",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Where the ControlNet starts, as a fraction of the steps that run. Higher starts later.",
                ),
                io.Float.Input(
                    "end",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Where the ControlNet stops, as a fraction of the steps that run. Lower stops earlier; it must be above start.",
                ),
                io.Boolean.Input(
                    "guess_mode",
                    default=False,
                    tooltip="Lets the ControlNet guess the content with little or no prompt: it steers only the prediction for the positive prompt, not the one for the negative prompt. Use the same setting for all ControlNets of a run, and a guidance_scale of 3 to 5.",
                ),
                DiffusersControl.Input(
                    "control",
                    optional=True,
                    tooltip="Other ControlNets to use together with this one, from another Apply ControlNet (Diffusers).",
                ),
                io.Combo.Input(
                    "mode",
                    options=[NO_MODE, *MODES],
                    default=NO_MODE,
                    optional=True,
                    tooltip="Only for a ControlNet Union: the kind of the control picture. tile and repaint need ProMax. For two kinds, apply the Union twice. none: an ordinary ControlNet.",
                ),
            ],
            outputs=[
                DiffusersControl.Output(
                    display_name="control",
                    tooltip="For the control input of a sampling node, or of another Apply ControlNet (Diffusers).",
                )
            ],
            **comfy_host.found_by(
                "controlnet, control net, use controlnet, depth, canny, pose, openpose, scribble, tile, union, promax"
            ),
        )

    @classmethod
    def validate_inputs(cls, start: float | None = None, end: float | None = None) -> bool | str:
        """Replaces the host's own check of these two inputs, which only knows a minimum and a maximum."""
        from ..pipelines.control.units import check_range

        return comfy_host.refusal(check_range, start, end)

    @classmethod
    def execute(
        cls,
        controlnet: Any,
        image: Any,
        conditioning_scale: float,
        start: float,
        end: float,
        guess_mode: bool,
        control: Any = (),
        mode: str = NO_MODE,
    ) -> io.NodeOutput:
        from ..pipelines.control.units import make_unit, stack_units

        comfy_host.check_choice("mode", mode, (NO_MODE, *MODES))
        unit = make_unit(controlnet, image, conditioning_scale, start, end, guess_mode, mode)
        return io.NodeOutput(stack_units(control, unit))
