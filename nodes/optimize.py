"""The node that chooses how a model is run."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..pipelines.model.options import ATTENTIONS, COMPILE_MODES, MATMULS, ModelOptions
from . import comfy_host
from .wire_types import DiffusersModel


class RelayOptimize(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelayOptimize",
            display_name="Optimize (Diffusers)",
            category=f"{comfy_host.CATEGORY}/model",
            description=(
                "The same model, run faster or in less memory. The weights are shared; other branches of the graph are run as they were. An "
                "option that could do nothing on this machine is an error."
            ),
            inputs=[
                DiffusersModel.Input("model", tooltip="The model to run so."),
                io.Combo.Input(
                    "compile",
                    options=list(COMPILE_MODES),
                    default="off",
                    tooltip="torch.compile for the denoiser and its ControlNets, in this mode. The first step of each new size waits for the compiler, minutes at worst; later ones and later loads do not. Needs a C++ compiler on a CPU, and Triton on a GPU.",
                ),
                io.Combo.Input(
                    "attention",
                    options=list(ATTENTIONS),
                    default="auto",
                    tooltip="auto: as diffusers sets it, which is sdpa for most models. sdpa: torch's own fused attention. xformers: that package's, on CUDA. sliced: in two halves, slower in less memory.",
                ),
                io.Boolean.Input(
                    "vae_tiling",
                    default=False,
                    tooltip="Encode and decode large pictures in tiles: less memory, and near the same picture. Kandinsky's autoencoder can't.",
                ),
                io.Boolean.Input(
                    "vae_slicing",
                    default=False,
                    tooltip="Decode the pictures of a batch one after the other: less memory, and the same pictures. Kandinsky's autoencoder can't.",
                ),
                io.Boolean.Input(
                    "channels_last",
                    default=False,
                    tooltip="The memory format that half-precision convolutions on a GPU, and bfloat16 on a CPU, are faster in.",
                ),
                io.Combo.Input(
                    "matmul",
                    options=list(MATMULS),
                    default="default",
                    optional=True,
                    tooltip="On a CPU in float32: onednn multiplies matrices with another library, which is faster on many processors. The same to 6 digits, but on one with AMX, which may multiply in bfloat16.",
                ),
            ],
            outputs=[DiffusersModel.Output(display_name="model", tooltip="The model, run with these options.")],
        )

    @classmethod
    def validate_inputs(
        cls, compile: str | None = None, attention: str | None = None, matmul: str | None = None
    ) -> bool | str:
        """Of the choices, which the host does not check."""
        chosen = (
            ("compile", compile, COMPILE_MODES),
            ("attention", attention, ATTENTIONS),
            ("matmul", matmul, MATMULS),
        )
        for name, value, options in chosen:
            said = comfy_host.refusal(comfy_host.check_choice, name, value, options)
            if said is not True:
                return said
        return True

    @classmethod
    def execute(
        cls,
        model: Any,
        compile: str,
        attention: str,
        vae_tiling: bool,
        vae_slicing: bool,
        channels_last: bool,
        matmul: str = "default",
    ) -> io.NodeOutput:
        from ..pipelines.denoising.optimising import with_options

        options = ModelOptions(compile, attention, vae_tiling, vae_slicing, channels_last, matmul)
        return io.NodeOutput(with_options(model, options, comfy_host.denoising_device()))
