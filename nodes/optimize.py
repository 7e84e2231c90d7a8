"""The node that sets how a model runs."""

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
                "Runs a model faster or in less memory. The weights are shared, and other branches of the graph are not affected. An option that would have no effect on this machine is an error. "
                "Use this for models of Diffusers Relay, and ComfyUI's TorchCompileModel for models of ComfyUI's own loaders."
            ),
            inputs=[
                DiffusersModel.Input("model", tooltip="The model to optimize."),
                io.Combo.Input(
                    "compile",
                    options=list(COMPILE_MODES),
                    default="off",
                    tooltip="The torch.compile mode for the denoiser and its ControlNets. The first step at each new size waits for the compiler, up to minutes; later steps and later loads don't. Needs a C++ compiler on a CPU, and Triton on a GPU.",
                ),
                io.Combo.Input(
                    "attention",
                    options=list(ATTENTIONS),
                    default="auto",
                    tooltip="auto: diffusers' default, which is sdpa for most models. sdpa: PyTorch's fused attention. xformers: the xformers package, CUDA only. sliced: computed in two halves, slower but in less memory.",
                ),
                io.Boolean.Input(
                    "vae_tiling",
                    default=False,
                    tooltip="Encode and decode large pictures in tiles. It takes less memory and gives nearly the same picture. Kandinsky's autoencoder can't do this.",
                ),
                io.Boolean.Input(
                    "vae_slicing",
                    default=False,
                    tooltip="Decode the pictures of a batch one at a time. It takes less memory and gives the same pictures. Kandinsky's autoencoder can't do this.",
                ),
                io.Boolean.Input(
                    "channels_last",
                    default=False,
                    tooltip="Use the channels_last memory format. It speeds up half-precision convolutions on a GPU and bfloat16 on a CPU.",
                ),
                io.Combo.Input(
                    "matmul",
                    options=list(MATMULS),
                    default="default",
                    optional=True,
                    tooltip="On a CPU in float32: onednn multiplies matrices with oneDNN, which is faster on many processors. The results agree to 6 digits, except on processors with AMX, which may multiply in bfloat16.",
                ),
            ],
            outputs=[DiffusersModel.Output(display_name="model", tooltip="The model with these options.")],
            **comfy_host.found_by(
                "torch.compile, compile, xformers, sdpa, attention, tiling, slicing, speed up, low vram, memory"
            ),
        )

    @classmethod
    def validate_inputs(
        cls, compile: str | None = None, attention: str | None = None, matmul: str | None = None
    ) -> bool | str:
        """Checks the choices, which the host does not."""
        chosen = (
            ("compile", compile, COMPILE_MODES),
            ("attention", attention, ATTENTIONS),
            ("matmul", matmul, MATMULS),
        )
        for name, value, options in chosen:
            result = comfy_host.refusal(comfy_host.check_choice, name, value, options)
            if result is not True:
                return result
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
