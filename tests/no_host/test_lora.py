"""LoRAs: the script's numbers in the branch that has them, no effect in other branches, and unchanged modules afterwards."""

from __future__ import annotations

import gc
import shutil
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusers_relay.pipelines.adapters.lora import active_loras, with_lora
from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.files.registry import REGISTRY
from diffusers_relay.pipelines.loading.folder import load_folder
from diffusers_relay.pipelines.model.components import PipelineComponents
from diffusers_relay.pipelines.model.embeds import mark_of
from diffusers_relay.pipelines.runs.sampling import TextToImageSettings, text_to_image
from reference import adapter_scripts as scripts
from reference.adapter_scripts import LoraFile
from relay_dev.model_folders import SmallModels, small_models
from support.without_host import Stopped, counting_runtime, encode, load

PROMPT, NEGATIVE = "a red cat in the forest", "ugly"
SETTINGS = TextToImageSettings(64, 64, 1, 4, 7.5, 3)
FILES = {
    "sd15": ["sd15_kohya", "styles/sd15_peft", "sd15_unet_only"],
    "sdxl_base": ["sdxl_kohya", "sdxl_peft"],
}
CASES = [(model, name) for model, names in FILES.items() for name in names]
ALL_PARTS = ("unet", "text_encoder", "text_encoder_2")


def lora_path(name: str) -> Path:
    return small_models().models / "loras" / f"{name}.safetensors"


def adapted(
    model: PipelineComponents, name: str, strength: float = 1.0, text_strength: float = 1.0
) -> PipelineComponents:
    return with_lora(model, lora_path(name), title=name, strength=strength, text_strength=text_strength)


def paint(model: PipelineComponents) -> torch.Tensor:
    prompt = encode(model, PROMPT, NEGATIVE)
    return text_to_image(model, prompt, SETTINGS, counting_runtime()).samples


def script(name: str, loras: list[LoraFile]) -> torch.Tensor:
    """Raw latents, in the host's scale."""
    pipe = scripts.pipeline(small_models().named[name], loras)
    latents = scripts.paint(pipe, PROMPT, NEGATIVE, seed=3, output_type="latent")
    return latents.float() / pipe.vae.config.scaling_factor


def state(model: PipelineComponents) -> dict[str, object]:
    """The identity of everything in a model's modules where a LoRA could leave something behind."""
    found: dict[str, object] = {}
    for part in ALL_PARTS:
        if part in model.modules:
            module = model[part]
            found |= {f"{part}: {name}": id(layer) for name, layer in module.named_modules()}
            found |= {
                f"{part}: {name}": (id(p), p.data_ptr(), p.requires_grad) for name, p in module.named_parameters()
            }
            found |= {f"{part}. {name}": id(value) for name, value in vars(module).items() if name != "training"}
            found[f"{part} training"] = [layer.training for layer in module.modules()]
    return found


@pytest.mark.parametrize(("strength", "text_strength"), [(1.0, 1.0), (0.6, 0.0), (-0.5, 0.25)])
@pytest.mark.parametrize(("model", "name"), CASES)
def test_the_script_s_numbers(
    inference_mode: None, model: str, name: str, strength: float, text_strength: float
) -> None:
    base = load(model)
    ours = adapted(base, name, strength, text_strength)
    pipe = scripts.pipeline(small_models().named[model], [LoraFile(lora_path(name), strength, text_strength)])
    prompt = encode(ours, PROMPT, NEGATIVE)
    expected = scripts.embeds(pipe, PROMPT, NEGATIVE)
    assert torch.equal(prompt.positive.hidden, expected[0])
    assert torch.equal(prompt.negative.hidden, expected[1])
    if model == "sdxl_base":
        assert torch.equal(prompt.positive.pooled, expected[2])
        assert torch.equal(prompt.negative.pooled, expected[3])
    painted = paint(ours)
    assert torch.equal(painted, script(model, [LoraFile(lora_path(name), strength, text_strength)]))
    assert (painted - paint(base)).abs().max() > 0.05, "a LoRA without an effect proves nothing"


@pytest.mark.parametrize("model", FILES)
def test_several_at_once(inference_mode: None, model: str) -> None:
    view, files = load(model), []
    for index, name in enumerate([*FILES[model], FILES[model][0]]):
        files.append(LoraFile(lora_path(name), 0.4 + 0.1 * index, 0.3 - 0.1 * index))
        view = adapted(view, name, files[-1].strength, files[-1].text_strength)
    assert torch.equal(paint(view), script(model, files))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(inference_mode: None, dtype: torch.dtype) -> None:
    view = adapted(load("sd15", dtype), "sd15_kohya", 0.7, 0.7)
    pipe = scripts.pipeline(small_models().named["sd15"], [LoraFile(lora_path("sd15_kohya"), 0.7, 0.7)], dtype=dtype)
    assert torch.equal(encode(view, PROMPT, NEGATIVE).positive.hidden, scripts.embeds(pipe, PROMPT, NEGATIVE)[0])
    latents = scripts.paint(pipe, PROMPT, NEGATIVE, seed=3, output_type="latent").float()
    assert torch.equal(paint(view), latents / pipe.vae.config.scaling_factor)


@pytest.mark.parametrize("model", FILES)
def test_other_branches_are_not_touched(inference_mode: None, model: str) -> None:
    """Both orders and two strengths, with the branch without a LoRA between and after them."""
    base = load(model)
    before = paint(base)
    found = state(base)
    weak, strong = adapted(base, FILES[model][0], 0.3, 0.3), adapted(base, FILES[model][0], 1.0, 1.0)
    assert weak["unet"] is base["unet"]
    first_weak, between, first_strong = paint(weak), paint(base), paint(strong)
    assert torch.equal(before, between)
    assert torch.equal(first_strong, paint(strong))
    assert torch.equal(first_weak, paint(weak))
    assert torch.equal(before, paint(base))
    assert not torch.equal(first_weak, first_strong)
    assert state(base) == found


@pytest.mark.parametrize("model", FILES)
def test_a_model_whose_first_run_is_with_a_lora(inference_mode: None, model: str) -> None:
    """transformers adds hooks to the encoder's layers at the first call, and must not do it twice."""
    base = load_folder(small_models().named[model], dtype=torch.float32, monitor=SilentMonitor())
    paint(adapted(base, FILES[model][0]))
    assert torch.equal(paint(base), script(model, []))


@pytest.mark.parametrize("model", FILES)
def test_strength_zero_is_the_base(inference_mode: None, model: str) -> None:
    base = load(model)
    assert torch.equal(paint(adapted(base, FILES[model][0], 0.0, 0.0)), paint(base))


@pytest.mark.parametrize("model", FILES)
def test_a_cancel_leaves_nothing(inference_mode: None, model: str) -> None:
    base = load(model)
    before = paint(base)
    found = state(base)
    view = adapted(base, FILES[model][0])
    with pytest.raises(Stopped):
        text_to_image(view, encode(view, PROMPT), SETTINGS, counting_runtime(stop_after=2))
    assert state(base) == found
    assert torch.equal(paint(base), before)


def test_an_error_in_the_middle_of_the_injection_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    base = load("sd15")
    found = state(base)
    view = adapted(adapted(base, "sd15_kohya"), "styles/sd15_peft")

    def fail(*_: object) -> None:
        raise RuntimeError("half way")

    monkeypatch.setattr("diffusers.utils.peft_utils.set_weights_and_activate_adapters", fail)
    with pytest.raises(RuntimeError, match="half way"), active_loras(view, ["text_encoder", "unet"]):
        pass
    assert state(base) == found


def test_it_is_active_inside_and_only_where_it_is_wanted() -> None:
    view = adapted(load("sd15"), "sd15_kohya", 1.0, 0.0)
    with active_loras(view, ["unet", "text_encoder"]):
        assert any("lora_A" in name for name, _ in view["unet"].named_parameters())
        assert not any("lora_A" in name for name, _ in view["text_encoder"].named_parameters())


# --- marks


def test_a_prompt_of_a_text_lora_is_refused_without_it(inference_mode: None) -> None:
    base = load("sd15")
    with_text = adapted(base, "sd15_kohya", 1.0, 0.5)
    for prompt_of, painter in (
        (with_text, base),
        (base, with_text),
        (with_text, adapted(base, "sd15_kohya", 1.0, 0.6)),
    ):
        with pytest.raises(RelayError, match=r"^prompt: .*Encode the prompt again"):
            text_to_image(painter, encode(prompt_of, PROMPT), SETTINGS, counting_runtime())
    assert mark_of(with_text).extras == ("LoRA sd15_kohya at text_strength 0.5",)


@pytest.mark.parametrize(("name", "text_strength"), [("sd15_kohya", 0.0), ("sd15_unet_only", 1.0)])
def test_a_lora_that_leaves_the_text_alone_leaves_the_mark_alone(
    inference_mode: None, name: str, text_strength: float
) -> None:
    base = load("sd15")
    view = adapted(base, name, 1.0, text_strength)
    assert mark_of(view).is_same(mark_of(base))
    text_to_image(view, encode(base, PROMPT), SETTINGS, counting_runtime())


# --- memory


def test_a_file_is_read_once_and_leaves_memory_with_the_last_view(models: SmallModels) -> None:
    base = load("sd15")
    path = lora_path("sd15_unet_only")
    loads = REGISTRY.loads
    views = [with_lora(base, path, title="x", strength=s, text_strength=1.0) for s in (0.1, 0.2)]
    assert REGISTRY.loads - loads <= 1
    assert views[0].loras[0].weights is views[1].loras[0].weights
    paint(views[0])
    tensors = [weakref.ref(tensor) for tensor in views[0].loras[0].weights.tensors]
    del views
    gc.collect()
    assert [ref for ref in tensors if ref() is not None] == []


def test_a_file_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tensors = load_file(lora_path("sd15_kohya"))
    save_file(tensors, path)
    old = with_lora(load("sd15"), path, title="x", strength=1.0, text_strength=1.0)
    save_file({name: 2 * tensor if "lora_up" in name else tensor for name, tensor in tensors.items()}, tmp_path / "y")
    (tmp_path / "y").replace(path)
    new = with_lora(load("sd15"), path, title="x", strength=1.0, text_strength=1.0)
    assert new.loras[0].weights is not old.loras[0].weights


# --- rejected


@pytest.mark.parametrize(
    ("model", "name", "says"),
    [
        ("sd15", "sdxl_kohya", r"lora: sdxl_kohya .*SDXL"),
        ("sd15", "sdxl_peft", r"lora: sdxl_peft was made for SDXL and does not fit sd15"),
        ("sdxl_base", "sd15_kohya", r"lora: sd15_kohya .*does not fit sdxl_base"),
        ("sdxl_base", "styles/sd15_peft", r"does not fit sdxl_base .*which lacks"),
        ("sdxl_refiner", "sdxl_peft", r"does not fit sdxl_refiner"),
        ("kandinsky_decoder", "sd15_kohya", r"Kandinsky 2.2 decoder\) can't use a LoRA.*Stable Diffusion XL"),
        ("kandinsky_prior", "sd15_kohya", r"can't use a LoRA"),
    ],
)
def test_another_family_s_is_refused(model: str, name: str, says: str) -> None:
    base = load(model)
    found = state(base)
    with pytest.raises(RelayError, match=says):
        adapted(base, name)
    assert state(base) == found


@pytest.mark.parametrize(("strength", "text_strength"), [(float("nan"), 1.0), (1.0, float("inf"))])
def test_a_strength_that_is_no_number(strength: float, text_strength: float) -> None:
    with pytest.raises(RelayError, match=r"strength: (nan|inf) is not a finite number"):
        adapted(load("sd15"), "sd15_kohya", strength, text_strength)


def refused(path: Path, says: str) -> None:
    with pytest.raises(RelayError, match=says):
        with_lora(load("sd15"), path, title="bad file", strength=1.0, text_strength=1.0)


def test_damaged_files_and_pickles(tmp_path: Path, models: SmallModels) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(lora_path("sd15_kohya").read_bytes()[:-100])
    refused(path, "lora: bad file is damaged or cut short")
    shutil.copyfile(models.models / "loras" / "sd15_pickle.pt", path)
    refused(path, "lora: bad file is a pickle with another suffix")
    path.write_bytes(b"")
    refused(path, "lora: bad file is empty")
    path.write_text("version https://git-lfs.github.com/spec/v1\n", "utf-8")
    refused(path, "git lfs pull")
    path.unlink()
    refused(path, "lora: bad file can't be read .No such file")


def test_files_that_are_something_else(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    good = load_file(lora_path("styles/sd15_peft"))
    for tensors, says in (
        ({"emb_params": torch.zeros(2, 32)}, "lora: bad file"),
        (
            {"transformer.blocks.0.attn.to_q.lora_A.weight": torch.ones(4, 8)},
            "was made for a transformer model and does not fit sd15",
        ),
        ({"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": torch.zeros(4, 8)}, "Flux"),
        (
            {**good, "unet.mid_block.nowhere.lora_A.weight": torch.zeros(4, 8)},
            "1 of its .* layers, such as unet.mid_block.nowhere",
        ),
        ({}, "lora: bad file"),
    ):
        save_file(tensors, path)
        refused(path, says)
    name = next(name for name in good if "attn2.to_k.lora_A" in name)
    save_file({**good, name: torch.zeros(4, 1024)}, path)
    refused(path, r"does not fit sd15 .*is for a layer of shape \[32, 1024\], but the model's has")


def test_a_view_of_another_model_does_not_carry_it() -> None:
    assert load_folder(small_models().named["comic"], dtype=torch.float32, monitor=SilentMonitor()).loras == ()
