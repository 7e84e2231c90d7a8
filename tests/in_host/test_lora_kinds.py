"""LoRA files of every kind give the weights that the host's own loader gives from the same file and the same model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from diffusers_relay.pipelines.adapters.lora import active_loras, with_lora
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.loading.folder import load_folder
from diffusers_relay.pipelines.model.components import PipelineComponents
from relay_dev.model_folders import SmallModels
from small_models.native_checkpoint import NATIVE_NAME
from support.lora_files import kohya, put
from support.lora_kinds import CASES, Case, low_rank

OTHERWISE = {
    "OFT with a limit": "the host does not multiply alpha by the outputs",
    "OFT with factors": "the host leaves out the factors",
    "LoHa as a DoRA": "the host divides by the norms of the model's own rows",
    "LoKr as a DoRA": "the host divides by the norms of the model's own rows",
    "LoKr of a convolution, with a core": "the host logs an error of torch's kron and leaves the layer as it was",
}
"""Kind -> where the host differs from the trainers, which the merge by hand in no_host/test_lora_kinds.py follows."""
TOLERANCE = 2e-6


@pytest.fixture(scope="module", autouse=True)
def inference_mode() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def native(models: SmallModels) -> Any:
    """The host's MODEL."""
    import comfy.sd

    path = models.models / "checkpoints" / f"{NATIVE_NAME}.safetensors"
    return comfy.sd.load_checkpoint_guess_config(str(path))[0]


@pytest.fixture(scope="module")
def ours(models: SmallModels) -> PipelineComponents:
    folder = Path(models.models / "diffusers" / NATIVE_NAME)
    return load_folder(folder, dtype=torch.float32, source=NATIVE_NAME, monitor=SilentMonitor())


def made(name: str, model: PipelineComponents) -> Case:
    shapes = {key: tuple(value.shape) for key, value in model["unet"].state_dict().items()}
    return CASES[name]({key.removesuffix(".weight"): shape for key, shape in shapes.items()})


def theirs(native: Any, path: Path, strength: float) -> dict[str, torch.Tensor]:
    """Key of the host's model -> its weight with the file."""
    import comfy.lora

    keys = comfy.lora.model_lora_keys_unet(native.model, {})
    patches = comfy.lora.load_lora(load_file(path), keys)
    weights = native.model.state_dict()
    return {
        key: comfy.lora.calculate_weight([(strength, patch, 1.0, None, None)], weights[key].float().clone(), key)
        for key, patch in patches.items()
    }


@pytest.mark.parametrize("name", CASES)
def test_each_kind_is_the_host_s(native: Any, ours: PipelineComponents, name: str, tmp_path: Path) -> None:
    case = made(name, ours)
    path = put(
        tmp_path / "x.safetensors", {f"{kohya(case.layer)}.{end}": tensor for end, tensor in case.tensors.items()}
    )
    view = with_lora(ours, path, title="x", strength=1.0, text_strength=1.0)
    expected = theirs(native, path, 1.0)
    layer = view["unet"].get_submodule(case.layer)
    before = {part: getattr(layer, part).clone() for part in ("weight", "bias") if getattr(layer, part) is not None}
    with active_loras(view, ["unet"]):
        for key, value in expected.items():
            part = key.rpartition(".")[2]
            got = getattr(layer, part)
            assert not torch.equal(got, before[part])
            far = float((got - value).abs().max() / value.abs().max())
            assert (far > 1e-3) if name in OTHERWISE else (far < TOLERANCE), f"{key}: {far:.2g}"
    assert len(expected) == (case.weight is not None) + (case.bias is not None)


@pytest.mark.parametrize("name", ["LoHa", "LoKr of a convolution, whole", "difference", "norm"])
def test_at_half_strength(native: Any, ours: PipelineComponents, name: str, tmp_path: Path) -> None:
    case = made(name, ours)
    path = put(
        tmp_path / "x.safetensors", {f"{kohya(case.layer)}.{end}": tensor for end, tensor in case.tensors.items()}
    )
    view = with_lora(ours, path, title="x", strength=0.5, text_strength=1.0)
    with active_loras(view, ["unet"]):
        for key, value in theirs(native, path, 0.5).items():
            got = getattr(view["unet"].get_submodule(case.layer), key.rpartition(".")[2])
            assert float((got - value).abs().max() / value.abs().max()) < TOLERANCE


def test_a_plain_lora_is_the_host_s(native: Any, ours: PipelineComponents, tmp_path: Path) -> None:
    """PEFT's layer against a convolution with the host's merged weight."""
    layer = "up_blocks.0.resnets.0.conv1"
    case = low_rank(layer, tuple(ours["unet"].get_submodule(layer).weight.shape))
    path = put(tmp_path / "x.safetensors", {f"{kohya(layer)}.{end}": tensor for end, tensor in case.tensors.items()})
    view = with_lora(ours, path, title="x", strength=0.7, text_strength=1.0)
    (weight,) = theirs(native, path, 0.7).values()
    bias = ours["unet"].get_submodule(layer).bias
    given = torch.randn(2, weight.shape[1], 5, 5, generator=torch.Generator().manual_seed(1))
    wanted = torch.nn.functional.conv2d(given, weight, bias, padding=1)
    with active_loras(view, ["unet"]):
        got = view["unet"].get_submodule(layer)(given)
    assert torch.allclose(got, wanted, atol=2e-5 * float(wanted.abs().max()))
