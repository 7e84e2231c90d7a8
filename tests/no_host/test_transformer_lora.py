"""LoRAs of transformers (Stable Diffusion 3, Flux.1) under diffusers' names: the script's numbers, and the shared modules restored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from diffusers_relay.pipelines.adapters.lora import with_lora
from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.model.components import PipelineComponents
from diffusers_relay.pipelines.runs.sampling import TextToImageSettings, text_to_image
from reference import adapter_scripts
from relay_dev.model_folders import SmallModels
from support.lora_files import pair, put
from support.versions import WITH_SD3_BLOCKS
from support.without_host import counting_runtime, encode, load

pytestmark = pytest.mark.usefixtures("inference_mode")
PROMPT = "a red cat"
NAMES = ["flux_dev", *(["sd3"] if WITH_SD3_BLOCKS else [])]
ADAPTED = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "to_add_out", "ff.net.0.proj", "norm1.linear", "proj_mlp")
TEXT = "encoder.layers.0.self_attn.q_proj"


def layers(model: PipelineComponents) -> list[str]:
    return [name for name, _ in model["transformer"].named_modules() if name.endswith(ADAPTED)]


def tensors(model: PipelineComponents, style: str) -> dict[str, torch.Tensor]:
    """As diffusers' scripts or as OneTrainer name them."""
    made: dict[str, torch.Tensor] = {}
    for name in layers(model):
        down, up = (0.5 * one for one in pair(model, "transformer", name))
        if style == "diffusers":
            start, ends = f"transformer.{name}", ("lora_A.weight", "lora_B.weight")
        else:
            start, ends = f"lora_transformer_{name.replace('.', '_')}", ("lora_down.weight", "lora_up.weight")
        made |= {f"{start}.{ends[0]}": down, f"{start}.{ends[1]}": up}
    if style == "diffusers":
        down, up = pair(model, "text_encoder", TEXT)
        key = f"text_encoder.text_model.{TEXT}"
        made |= {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}
    return made


def adapted(model: PipelineComponents, path: Path, strength: float = 0.6, text: float = 0.4) -> PipelineComponents:
    return with_lora(model, path, title="my lora", strength=strength, text_strength=text)


def paint(model: PipelineComponents) -> torch.Tensor:
    settings = TextToImageSettings(64, 64, 1, 3, 3.5, 3)
    return text_to_image(model, encode(model, PROMPT), settings, counting_runtime()).samples


@pytest.mark.parametrize("name", NAMES)
def test_the_script_s_numbers_and_nothing_left(models: SmallModels, tmp_path: Path, name: str) -> None:
    model = load(name)
    plain = paint(model)
    before = {key: id(layer) for key, layer in model["transformer"].named_modules()}
    path = put(tmp_path / "one.safetensors", tensors(model, "diffusers"))
    ours = paint(adapted(model, path))
    pipe = adapter_scripts.pipeline(models.named[name])
    pipe.load_lora_weights(tmp_path, weight_name=path.name, adapter_name="a")
    pipe.set_adapters(["a"], [{"transformer": 0.6, "text_encoder": 0.4}])
    settings: dict[str, Any] = {"seed": 3, "num_inference_steps": 3, "guidance_scale": 3.5, "output_type": "latent"}
    script = adapter_scripts.paint(pipe, PROMPT, **settings)
    config = pipe.vae.config
    if script.ndim == 3:
        script = pipe._unpack_latents(script, 64, 64, 8)
    assert (ours - (script / config.scaling_factor + config.shift_factor)).abs().max() <= 3e-5
    assert (ours - plain).abs().max() > 0.05
    assert before == {key: id(layer) for key, layer in model["transformer"].named_modules()}
    assert torch.equal(paint(model), plain)


def test_one_trainers_names_are_the_same_lora(tmp_path: Path) -> None:
    model = load("flux_dev")
    paths = [put(tmp_path / f"{style}.safetensors", tensors(model, style)) for style in ("diffusers", "OneTrainer")]
    one, other = (paint(adapted(model, path, text=0.0)) for path in paths)
    assert torch.equal(one, other)


def test_what_is_not_for_the_model_is_refused(tmp_path: Path) -> None:
    flux, sd15 = load("flux_dev"), load("sd15")
    down, up = torch.ones(4, 64), torch.ones(192, 4)
    qkv = "lora_unet_double_blocks_0_img_attn_qkv"
    kohya = put(tmp_path / "kohya.safetensors", {f"{qkv}.lora_down.weight": down, f"{qkv}.lora_up.weight": up})
    of_flux = put(tmp_path / "flux.safetensors", tensors(flux, "diffusers"))
    attention = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    unet = dict(zip(("lora_A.weight", "lora_B.weight"), pair(sd15, "unet", attention)))
    of_unet = put(tmp_path / "unet.safetensors", {f"unet.{attention}.{end}": value for end, value in unet.items()})
    for model, path, message in (
        (flux, kohya, rf"was made for Flux, but with the layer names of the original code, such as .*{qkv}.*convert"),
        (sd15, of_flux, r"was made for Flux and does not fit sd15"),
        (flux, of_unet, r"does not fit flux_dev \(Flux\.1\), which lacks 1 of its 1 layers"),
    ):
        with pytest.raises(RelayError, match=message):
            adapted(model, path)
