"""A model's files are only data: classes, paths and options in them have no effect or are rejected before anything is built."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.files.registry import ComponentRegistry
from diffusers_relay.pipelines.loading import controlnet as controlnet_loading
from diffusers_relay.pipelines.loading import folder as loading
from diffusers_relay.pipelines.loading.controlnet import load_controlnet_folder
from diffusers_relay.pipelines.loading.folder import load_folder
from diffusers_relay.pipelines.model.component_classes import PUBLISHED_WITH, SCHEDULER
from diffusers_relay.pipelines.model.components import PipelineComponents
from relay_dev.model_folders import SmallModels

UNET, VAE = "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
PROMPT = "a cat, naïve  Ünïcode's 12 dogs! <|endoftext|> <x>"


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> ComponentRegistry:
    registry = ComponentRegistry()
    for module in (loading, controlnet_loading):
        monkeypatch.setattr(module, "REGISTRY", registry)
    return registry


@pytest.fixture
def folder(models: SmallModels, tmp_path: Path) -> Path:
    return Path(shutil.copytree(models.named["sd15"], tmp_path / "model"))


@pytest.fixture
def prior(models: SmallModels, tmp_path: Path) -> Path:
    return Path(shutil.copytree(models.named["kandinsky_prior"], tmp_path / "prior"))


def load(folder: Path) -> PipelineComponents:
    return load_folder(folder, dtype=torch.float32, monitor=SilentMonitor())


def edit(file: Path, **entries: object) -> None:
    file.write_text(json.dumps({**(json.loads(file.read_text("utf-8")) if file.exists() else {}), **entries}), "utf-8")


def same(ours: PipelineComponents, expected: PipelineComponents) -> None:
    assert set(ours.modules) == set(expected.modules)
    for name, module in ours.modules.items():
        assert type(module) is type(expected[name])
        if isinstance(module, torch.nn.Module):
            state, reference = module.state_dict(), expected[name].state_dict()
            assert state.keys() == reference.keys(), "nothing is injected"
            assert all(torch.equal(value, reference[key]) for key, value in state.items())
        if name.startswith("tokenizer"):
            assert module(PROMPT).input_ids == expected[name](PROMPT).input_ids
    assert ours["scheduler"].config == expected["scheduler"].config


# --- classes


@pytest.mark.parametrize(
    ("component", "entry"),
    [
        ("scheduler", ["diffusers", "DiffusionPipeline"]),
        ("scheduler", ["diffusers", "StableDiffusionPipeline"]),
        ("scheduler", ["diffusers", "UNet2DConditionModel"]),
        ("scheduler", ["diffusers", "FlowMatchEulerDiscreteScheduler"]),
        ("scheduler", ["diffusers", "UnCLIPScheduler"]),
        ("scheduler", ["diffusers.schedulers", "DDIMScheduler"]),
        ("scheduler", ["transformers", "DDIMScheduler"]),
        ("unet", ["diffusers", "AutoencoderKL"]),
        ("unet", ["diffusers", "ModelMixin"]),
        ("vae", ["diffusers", "AutoModel"]),
        ("vae", ["diffusers", "AutoPipelineForText2Image"]),
        ("tokenizer", ["transformers", "AutoTokenizer"]),
        ("tokenizer", ["transformers", "GPT2Tokenizer"]),
        ("text_encoder", ["transformers", "pipeline"]),
        ("text_encoder", ["transformers", "T5EncoderModel"]),
        ("text_encoder", ["os", "system"]),
        ("text_encoder", ["transformers", "X" * 5000]),
    ],
)
def test_a_class_that_is_not_in_the_table_is_refused(
    component: str, entry: list[str], folder: Path, registry: ComponentRegistry
) -> None:
    edit(folder / "model_index.json", **{component: entry})
    (folder / component / "model_index.json").write_text('{"_class_name": ["evil", "Evil"]}', "utf-8")
    (folder / component / "evil.py").write_text("raise SystemExit('run')", "utf-8")
    with pytest.raises(RelayError) as caught:
        load(folder)
    text = str(caught.value)
    assert f"its {component} is declared as" in text
    assert f"the {component} of a Stable Diffusion 1.x / 2.x model can only be " in text
    assert len(text) < 900
    assert "\n" not in text
    assert registry.loads == 0


def test_names_that_other_versions_gave_a_class_load(prior: Path, folder: Path, models: SmallModels) -> None:
    for name in ("CLIPFeatureExtractor", "CLIPImageProcessorFast", "CLIPImageProcessor"):
        edit(prior / "model_index.json", image_processor=["transformers", name])
        assert type(load(prior)["image_processor"]).__name__ == "CLIPImageProcessor"
    edit(folder / "model_index.json", tokenizer=["transformers", "CLIPTokenizerFast"])
    same(load(folder), load(models.named["sd15"]))


@pytest.mark.parametrize("name", SCHEDULER.names)
def test_every_scheduler_of_the_table_loads(name: str, folder: Path) -> None:
    import diffusers

    edit(folder / "model_index.json", scheduler=["diffusers", name])
    own = getattr(diffusers, name).from_config(
        json.loads((folder / "scheduler" / "scheduler_config.json").read_text("utf-8"))
    )
    loaded = load(folder)["scheduler"]
    assert type(loaded) is type(own)
    ignored = {"_class_name", "_use_default_values"}
    assert {k: v for k, v in loaded.config.items() if k not in ignored} == {
        k: v for k, v in own.config.items() if k not in ignored
    }
    assert set(PUBLISHED_WITH) < set(SCHEDULER.names)


# --- no effect


def adapter(folder: Path) -> None:
    """As saved by peft; transformers would add it to the encoder."""
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 64, "target_modules": ["q_proj"], "task_type": None}
    edit(folder / "text_encoder" / "adapter_config.json", **config)
    key = "base_model.model.encoder.layers.0.self_attn.q_proj.lora_{}.weight"
    save_file(
        {key.format("A"): torch.ones(1, 32), key.format("B"): torch.ones(32, 1)},
        folder / "text_encoder" / "adapter_model.safetensors",
    )


def adapter_of_another_model(folder: Path) -> None:
    other = folder.with_name("other")
    shutil.copytree(folder / "text_encoder", other)
    weights = load_file(other / "model.safetensors")
    save_file({key: value + 1 for key, value in weights.items()}, other / "model.safetensors", {"format": "pt"})
    adapter(folder)
    edit(folder / "text_encoder" / "adapter_config.json", base_model_name_or_path=str(other))


def code_beside_it(folder: Path) -> None:
    for place, file in (("text_encoder", "config.json"), ("tokenizer", "tokenizer_config.json")):
        edit(folder / place / file, auto_map={"AutoModel": "evil.Evil", "AutoTokenizer": ["evil.Evil", "evil.Evil"]})
        edit(folder / place / file, custom_pipeline="evil", trust_remote_code=True, tokenizer_class="Evil")
        (folder / place / "evil.py").write_text("raise SystemExit('run')", "utf-8")


def options_of_the_libraries(folder: Path) -> None:
    options = {
        **{"attn_implementation": "owner/kernel", "_attn_implementation": "owner/kernel", "dtype": "float16"},
        **{"_attn_implementation_internal": "owner/kernel", "torch_dtype": "bfloat16", "use_safetensors": False},
        **{"transformers_weights": "../other.bin", "fusion_config": {"patch_embeddings": True}, "is_decoder": True},
        **{"_name_or_path": "/etc/passwd", "name_or_path": "/etc/passwd", "output_attentions": True},
        **{"variant": "x", "subfolder": "..", "return_dict": False, "distributed_config": {"tp_size": 2}},
        **{"_commit_hash": "x", "experts_implementation": "owner/kernel", "chunk_size_feed_forward": 7},
    }
    for name in ("text_encoder", "unet", "vae"):
        edit(folder / name / "config.json", **options)
    edit(folder / "scheduler" / "scheduler_config.json", **options, _class_name="DiffusionPipeline")
    edit(folder / "text_encoder" / "generation_config.json", custom_generate="evil")


def paths_of_a_tokenizer(folder: Path) -> None:
    outside = folder.with_name("outside")
    shutil.copytree(folder / "tokenizer", outside)
    vocabulary = json.loads((outside / "vocab.json").read_text("utf-8"))
    last = max(vocabulary.values())
    (outside / "vocab.json").write_text(json.dumps({key: last - n for key, n in vocabulary.items()}), "utf-8")
    paths = {
        **dict.fromkeys(("vocab", "vocab_file"), str(outside / "vocab.json")),
        **dict.fromkeys(("merges", "merges_file"), str(outside / "merges.txt")),
        **{"tokenizer_file": str(outside / "tokenizer.json"), "tokenizer_object": "x", "gguf_file": "x"},
        **{"name_or_path": str(outside), "special_tokens_map_file": "/dev/zero", "added_tokens_file": "/dev/zero"},
        **{"from_slow": True, "fix_mistral_regex": True, "chat_template": "{{ evil }}", "processor_class": "x"},
    }
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        edit(folder / "tokenizer" / name, **paths)
    (folder / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)


def a_tokenizer_that_is_a_program(folder: Path) -> None:
    """A pattern in tokenizer.json is a regular expression, which may never finish."""
    file = folder / "tokenizer" / "tokenizer.json"
    if file.exists():
        split = {"type": "Split", "pattern": {"Regex": "(a*)*b"}, "behavior": "Removed", "invert": False}
        edit(file, pre_tokenizer=split, post_processor=None, normalizer={"type": "Lowercase"}, decoder=None)


def an_index_beside_the_weights(folder: Path) -> None:
    """diffusers would follow the index to a pickle."""
    for name, file in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        weights = load_file(folder / name / f"{file}.safetensors")
        torch.save({key: value + 1 for key, value in weights.items()}, folder / name / "evil.bin")
        index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "evil.bin")}
        (folder / name / f"{file}.safetensors.index.json").write_text(json.dumps(index), "utf-8")


CHANGES_NOTHING = (
    adapter,
    adapter_of_another_model,
    code_beside_it,
    options_of_the_libraries,
    paths_of_a_tokenizer,
    a_tokenizer_that_is_a_program,
    an_index_beside_the_weights,
)


@pytest.mark.parametrize("change", CHANGES_NOTHING, ids=lambda change: change.__name__)
def test_what_is_no_data_of_the_architecture_changes_nothing(
    change: Callable[[Path], None], folder: Path, models: SmallModels
) -> None:
    change(folder)
    ours, expected = load(folder), load(models.named["sd15"])
    same(ours, expected)
    encoder = ours["text_encoder"]
    assert encoder.config._attn_implementation == expected["text_encoder"].config._attn_implementation
    assert not [name for name, _ in encoder.named_modules() if "lora" in name]
    assert encoder.config.use_return_dict if hasattr(encoder.config, "use_return_dict") else True


def test_a_picture_processor_s_other_keys_change_nothing(prior: Path, models: SmallModels) -> None:
    config = prior / "image_processor" / "preprocessor_config.json"
    edit(config, auto_map={"AutoImageProcessor": "evil.Evil"}, image_processor_type="Evil", device="cuda", backend="x")
    ours, expected = load(prior)["image_processor"], load(models.named["kandinsky_prior"])["image_processor"]
    assert type(ours) is type(expected)
    picture = torch.rand(3, 70, 50)
    assert torch.equal(
        ours(picture, do_rescale=False, return_tensors="pt").pixel_values,
        expected(picture, do_rescale=False, return_tensors="pt").pixel_values,
    )


def test_the_version_that_saved_a_unet_is_kept(folder: Path) -> None:
    """StableDiffusionPipeline uses another default size for UNets from before 0.9."""
    edit(folder / "unet" / "config.json", _diffusers_version="0.6.0")
    assert load(folder)["unet"].config._diffusers_version == "0.6.0"
    edit(folder / "unet" / "config.json", _diffusers_version="no; version")
    assert "_diffusers_version" not in load(folder)["unet"].config


# --- rejected

NUMBERS: list[tuple[str, dict[str, Any], str]] = [
    ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**8}, "num_train_timesteps is 100000000"),
    ("scheduler/scheduler_config.json", {"num_train_timesteps": 0}, "num_train_timesteps is 0"),
    ("scheduler/scheduler_config.json", {"num_train_timesteps": 1e3}, "num_train_timesteps is 1000.0"),
    ("scheduler/scheduler_config.json", {"trained_betas": [0.1] * 20_000}, "trained_betas"),
    ("scheduler/scheduler_config.json", {"beta_end": 1e300}, "beta_end is 1e+300"),
    ("scheduler/scheduler_config.json", {"beta_end": float("nan")}, "NaN"),
    ("scheduler/scheduler_config.json", {"beta_end": float("inf")}, "beta_end is inf"),
    ("text_encoder/config.json", {"num_hidden_layers": 20_000}, "num_hidden_layers is 20000"),
    ("text_encoder/config.json", {"vocab_size": 10**9}, "vocab_size is 1000000000"),
    ("text_encoder/config.json", {"hidden_size": -1}, "hidden_size is -1"),
    ("text_encoder/config.json", {"hidden_act": "x" * 10_000}, "hidden_act"),
    ("unet/config.json", {"layers_per_block": 20_000}, "layers_per_block is 20000"),
    ("unet/config.json", {"layers_per_block": [100] * 4, "transformer_layers_per_block": [100] * 4}, "layers"),
    ("unet/config.json", {"block_out_channels": [10**7] * 4}, "block_out_channels is 10000000"),
    ("unet/config.json", {"block_out_channels": [32] * 1000}, "block_out_channels"),
    ("unet/config.json", {"cross_attention_dim": 10**9}, "cross_attention_dim is 1000000000"),
    ("unet/config.json", {"transformer_layers_per_block": [[[[[1]]]]]}, "lists deep"),
    ("unet/config.json", {"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised"),
    ("text_encoder/config.json", {"quantization_config": {"quant_method": "gptq"}}, "quantised"),
    ("vae/config.json", {"norm_num_groups": 0}, "norm_num_groups is 0"),
    ("vae/config.json", {"sample_size": 10**6}, "sample_size is 1000000"),
    ("tokenizer/added_tokens.json", {f"<{n}>": n for n in range(20_000)}, "its vocabulary"),
    ("tokenizer/added_tokens.json", {"<x>": 10**12}, "1000000000000"),
    ("tokenizer/tokenizer_config.json", {"bos_token": "x" * 10**5}, "the token 'xxx"),
    ("tokenizer/tokenizer_config.json", {"bos_token": {"content": ["x"]}}, "the token ['x']"),
    ("tokenizer/tokenizer_config.json", {"added_tokens_decoder": {"9" * 4000: {"content": "x"}}}, "the token number"),
    ("tokenizer/tokenizer_config.json", {"added_tokens_decoder": {"../x": {"content": "x"}}}, "added_tokens_decoder"),
    ("tokenizer/vocab.json", {"a": "b"}, "the token 'a': 'b'"),
]


NOTHING = None
TYPES: list[tuple[str, dict[str, Any], str]] = [
    # what another type than its class has for a default does: an error of a library, in a run or before, or another picture
    ("scheduler/scheduler_config.json", {"num_train_timesteps": "1000"}, "is '1000', but it must be a whole number"),
    ("scheduler/scheduler_config.json", {"num_train_timesteps": True}, "is True, but it must be a whole number"),
    ("scheduler/scheduler_config.json", {"beta_start": "0.1"}, "is '0.1', but it must be a number"),
    ("scheduler/scheduler_config.json", {"beta_start": NOTHING}, "is None, but it must be a number"),
    ("scheduler/scheduler_config.json", {"beta_schedule": ["linear"]}, "it must be a word"),
    ("scheduler/scheduler_config.json", {"set_alpha_to_one": "no"}, "is 'no', but it must be true or false"),
    ("scheduler/scheduler_config.json", {"steps_offset": 1.5}, "is 1.5, but it must be a whole number"),
    (
        "scheduler/scheduler_config.json",
        {"beta_schedule": "weird"},
        "PNDMScheduler can't be built from scheduler/scheduler_config.json (weird is not implemented",
    ),
    (
        "scheduler/scheduler_config.json",
        {"prediction_type": "flow"},
        "can't run with these settings (prediction_type",
    ),
    (
        "scheduler/scheduler_config.json",
        {"prediction_type": "sample"},
        "can't run with these settings (prediction_",
    ),
    (
        "scheduler/scheduler_config.json",
        {"timestep_spacing": "weird"},
        "can't run with these settings (weird is not",
    ),
    ("scheduler/scheduler_config.json", {"steps_offset": 5000}, "can't run with these settings (index"),
    ("scheduler/scheduler_config.json", {"trained_betas": "abc"}, "PNDMScheduler can't be built from"),
    (
        "scheduler/scheduler_config.json",
        {"trained_betas": [0.1] * 10},
        "its betas are not a noise schedule. It needs 1000",
    ),
    ("scheduler/scheduler_config.json", {"trained_betas": [0.5] * 1000}, "its betas are not a noise schedule"),
    ("scheduler/scheduler_config.json", {"trained_betas": [2.0] * 1000}, "its betas are not a noise schedule"),
    ("scheduler/scheduler_config.json", {"beta_start": 0.0, "beta_end": 0.0}, "its betas are not a noise schedule"),
    ("scheduler/scheduler_config.json", {"beta_end": 5.0}, "its betas are not a noise schedule"),
    ("vae/config.json", {"scaling_factor": 0}, "scaling_factor is 0, but it must be 0.0001 to 10000"),
    ("vae/config.json", {"scaling_factor": -1.0}, "scaling_factor is -1.0"),
    ("vae/config.json", {"scaling_factor": 1e-300}, "scaling_factor is 1e-300"),
    ("vae/config.json", {"scaling_factor": "0.18"}, "is '0.18', but it must be a number"),
    ("vae/config.json", {"scaling_factor": True}, "is True, but it must be a number"),
    ("vae/config.json", {"scaling_factor": NOTHING}, "is None, but it must be a number"),
    ("vae/config.json", {"force_upcast": "no"}, "it must be true or false"),
    ("vae/config.json", {"latents_mean": [0.1] * 3, "latents_std": [1.0] * 4}, "it must be a list of 4 numbers"),
    ("vae/config.json", {"latents_mean": [0.1] * 4, "latents_std": [0.0] * 4}, "a list of 4 numbers above 0"),
    ("vae/config.json", {"block_out_channels": "abc"}, "it must be a list"),
    ("vae/config.json", {"down_block_types": [1, 2, 3, 4]}, "it must be a list"),
    (
        "vae/config.json",
        {"down_block_types": ["Evil"] * 4},
        "AutoencoderKL can't be built from vae/config.json (Evil does not exist)",
    ),
    ("vae/config.json", {"act_fn": 5}, "it must be a word"),
    ("unet/config.json", {"center_input_sample": "x"}, "it must be true or false"),
    ("unet/config.json", {"freq_shift": "x"}, "it must be a whole number"),
    ("unet/config.json", {"norm_eps": -5.0}, "it must be 0 to 1"),
    ("unet/config.json", {"norm_eps": "x"}, "it must be a number"),
    ("unet/config.json", {"downsample_padding": 9}, "it must be 0 to 1"),
    ("unet/config.json", {"mid_block_scale_factor": 0}, "it must be 1e-06 to 1e+06"),
    (
        "unet/config.json",
        {"act_fn": "evil"},
        "UNet2DConditionModel can't be built from unet/config.json (activation function evil",
    ),
    (
        "unet/config.json",
        {"in_channels": 8},
        "conv_in.weight has shape [32, 4, 3, 3], but the config needs [32, 8, 3, 3]",
    ),
    ("text_encoder/config.json", {"hidden_act": 5}, "it must be a word"),
    (
        "text_encoder/config.json",
        {"hidden_act": "evil"},
        "CLIPTextModel can't be built from text_encoder/config.json (it does not know 'evil')",
    ),
    ("text_encoder/config.json", {"num_attention_heads": 3}, "CLIPTextModel can't be built from"),
    ("text_encoder/config.json", {"layer_norm_eps": NOTHING}, "is None, but it must be a number"),
    ("text_encoder/config.json", {"layer_norm_eps": -1.0}, "it must be 0 to 1"),
    ("text_encoder/config.json", {"eos_token_id": NOTHING}, "is None, but it must be a whole number"),
    ("text_encoder/config.json", {"eos_token_id": [1, 2]}, "it must be a whole number"),
    ("text_encoder/config.json", {"num_hidden_layers": "2"}, "it must be a whole number"),
    ("text_encoder/config.json", {"num_hidden_layers": 1}, "contain 32 tensors that CLIPTextModel does not use"),
    ("text_encoder/config.json", {"max_position_embeddings": 10}, "has shape [77, 32], but the config needs [10, 32]"),
    ("tokenizer/tokenizer_config.json", {"model_max_length": 200}, "allows 200 tokens"),
]
SCHEDULERS: list[tuple[str, dict[str, Any], str]] = [
    ("DPMSolverMultistepScheduler", {"solver_order": 0}, "solver_order is 0, but it must be 1 to 10"),
    ("DPMSolverMultistepScheduler", {"variance_type": "learned_range"}, "can't run with these settings"),
    ("UniPCMultistepScheduler", {"disable_corrector": "x"}, "disable_corrector is 'x', but it must be a list"),
    ("UniPCMultistepScheduler", {"solver_p": ["diffusers", "DDIMScheduler"]}, "can't run with these settings"),
    ("DDPMScheduler", {"variance_type": "learned"}, "needs a variance from the unet"),
    ("DPMSolverSDEScheduler", {"noise_sampler_seed": "x"}, "noise_sampler_seed is 'x', but it must be 0 to"),
    ("DPMSolverSDEScheduler", {"noise_sampler_seed": -5}, "noise_sampler_seed is -5, but it must be 0 to"),
    ("SASolverScheduler", {"tau_func": "x"}, "can't run with these settings"),
    ("EulerDiscreteScheduler", {"interpolation_type": "weird"}, "can't run with these settings"),
    ("EulerDiscreteScheduler", {"use_karras_sigmas": "x"}, "it must be true or false"),
]


@pytest.mark.parametrize(("file", "entries", "says"), TYPES)
def test_values_of_another_type_are_refused_when_it_is_loaded(
    file: str, entries: dict[str, Any], says: str, folder: Path, library_warnings: list[str]
) -> None:
    edit(folder / file, **entries)
    refused_in_one_line(folder, says)
    assert not library_warnings


@pytest.mark.parametrize(("name", "entries", "says"), SCHEDULERS)
def test_a_scheduler_that_cannot_run_is_refused_when_it_is_loaded(
    name: str, entries: dict[str, Any], says: str, folder: Path
) -> None:
    edit(folder / "model_index.json", scheduler=["diffusers", name])
    edit(folder / "scheduler" / "scheduler_config.json", _class_name=name, **entries)
    refused_in_one_line(folder, says)


def refused_in_one_line(folder: Path, says: str) -> None:
    with pytest.raises(RelayError) as caught:
        load(folder)
    text = str(caught.value)
    assert says in text
    assert text.isprintable()
    assert len(text) < 600


def vocabulary(folder: Path, numbers: Callable[[int], int]) -> None:
    (folder / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)
    file = folder / "tokenizer" / "vocab.json"
    known = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps({token: numbers(number) for token, number in known.items()}), "utf-8")


def merges(folder: Path, more: str) -> None:
    (folder / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)
    file = folder / "tokenizer" / "merges.txt"
    file.write_text(file.read_text("utf-8") + more, "utf-8")


TOGETHER: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "an SDXL UNet": (
        "sdxl_base",
        lambda folder: edit(folder / "model_index.json", _class_name="StableDiffusionPipeline"),
        "its unet is not a Stable Diffusion 1.x / 2.x unet: addition_embed_type in unet/config.json is 'text_time'",
    ),
    "tokens with no vectors": (
        "sd15",
        lambda folder: vocabulary(folder, lambda number: number + 3000),
        "its text_encoder only has 879 tokens. They belong to different models",
    ),
    "gaps in a vocabulary": (
        "sd15",
        lambda folder: vocabulary(folder, lambda number: number if number < 200 else number + 50),
        "its tokenizer has a token with number 92",  # 926 or 928: transformers 4 and 5 number special tokens differently
    ),
    "pictures of another size": (
        "kandinsky_prior",
        lambda folder: edit(
            folder / "image_processor" / "preprocessor_config.json",
            size={"shortest_edge": 60},
            crop_size={"height": 60, "width": 60},
        ),
        "its image_processor makes images of 60 x 60, but its image_encoder reads",
    ),
    "pictures with no mean": (
        "kandinsky_prior",
        lambda folder: edit(folder / "image_processor" / "preprocessor_config.json", image_mean="x"),
        "can't prepare an image with these settings",
    ),
    "pictures divided by 0": (
        "kandinsky_prior",
        lambda folder: edit(folder / "image_processor" / "preprocessor_config.json", image_std=[0, 0, 0]),
        "can't prepare an image with these settings (the result has NaN or infinite values",
    ),
    "more noise than steps": (
        "x4_upscaler",
        lambda folder: edit(folder / "low_res_scheduler" / "scheduler_config.json", num_train_timesteps=5),
        "max_noise_level in model_index.json is 350, but its low_res_scheduler has 5 steps, which allows 0 to 4",
    ),
    "a merge of no tokens": (
        "sd15",
        lambda folder: merges(folder, "zzzq qqq\n"),
        "the merge 'zzzq qqq', whose tokens",
    ),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_components_that_do_not_fit_together_are_refused(name: str, models: SmallModels, tmp_path: Path) -> None:
    model, change, says = TOGETHER[name]
    folder = Path(shutil.copytree(models.named[model], tmp_path / "model"))
    change(folder)
    refused_in_one_line(folder, says)


def test_a_text_encoder_of_another_width_is_refused(folder: Path, models: SmallModels) -> None:
    from diffusers import UNet2DConditionModel

    config = {**json.loads((folder / "unet" / "config.json").read_text("utf-8")), "cross_attention_dim": 64}
    shutil.rmtree(folder / "unet")
    UNet2DConditionModel.from_config(config).save_pretrained(folder / "unet")
    refused_in_one_line(folder, "its unet reads embeddings of width 64, but its text encoders make 32")


def test_a_unet_of_another_pipeline_is_refused(folder: Path) -> None:
    from diffusers import UNet2DConditionModel

    config = {**json.loads((folder / "unet" / "config.json").read_text("utf-8")), "in_channels": 8}
    shutil.rmtree(folder / "unet")
    UNet2DConditionModel.from_config(config).save_pretrained(folder / "unet")
    refused_in_one_line(
        folder, "its unet takes 8 channels, but a Stable Diffusion 1.x / 2.x unet takes 4, or 9 for inpainting"
    )


def test_trying_a_scheduler_draws_nothing_from_the_world(folder: Path) -> None:
    for name in SCHEDULER.names:
        edit(folder / "model_index.json", scheduler=["diffusers", name])
        before = torch.random.get_rng_state()
        load(folder)
        assert torch.equal(torch.random.get_rng_state(), before), name


@pytest.mark.parametrize(("file", "entries", "says"), NUMBERS)
def test_numbers_that_no_model_has_are_refused_before_anything_is_built(
    file: str, entries: dict[str, Any], says: str, folder: Path, registry: ComponentRegistry
) -> None:
    edit(folder / file, **entries)
    refused(folder, registry, file, says)


def refused(folder: Path, registry: ComponentRegistry, *says: str) -> None:
    began = time.monotonic()
    with pytest.raises(RelayError) as caught:
        load(folder)
    text = str(caught.value)
    assert all(word in text for word in says), text
    assert len(text) < 600
    assert text.isprintable()
    text.encode("utf-8")
    assert registry.loads == 0
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[" * 500_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"in_channels": 1' + b"0" * 500_000 + b"}", "digits"),
        (b'{"in_channels": NaN}', "NaN"),
        (b'{"in_channels": 4, "in_channels": 5}', "'in_channels' occurs twice"),
        (b'{"in_channels": "\xff"}', "can't be read"),
        (b"\x00" * 100, "only zeros"),
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b"Entry not found", "is a text file ('Entry not found')"),
        (b'{"in_channels": 4,}', "can't be read"),
        (b"// text\n{}", "is a text"),
        (b"[]", "not a JSON object"),
        (b" " * (2 * 2**20), "larger than 1 MB"),
    ],
)
@pytest.mark.parametrize("file", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"])
def test_json_of_a_stranger(content: bytes, says: str, file: str, folder: Path, registry: ComponentRegistry) -> None:
    (folder / file).write_bytes(content)
    refused(folder, registry, file, says)


def test_a_mark_at_the_start_of_utf_8_is_passed_over(folder: Path, models: SmallModels) -> None:
    """As written by editors on Windows."""
    for name in ("model_index.json", "unet/config.json", "tokenizer/merges.txt", "tokenizer/vocab.json"):
        (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    (folder / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)
    same(load(folder), load(models.named["sd15"]))


@pytest.mark.parametrize("name", ["F" * 900_000, "A\n\x1b[31mB", "\ud800", "\u202eA"])
def test_a_pipeline_s_name_is_shown_in_one_line(name: str, folder: Path, registry: ComponentRegistry) -> None:
    edit(folder / "model_index.json", _class_name=name)
    refused(folder, registry, "which Diffusers Relay does not run. It runs: Stable Diffusion 1.x / 2.x")


@pytest.mark.parametrize("name", ["StableDiffusionInstructPix2PixPipeline", "StableDiffusionXLInstructPix2PixPipeline"])
def test_a_model_for_edits_is_refused_with_the_reason(name: str, folder: Path, registry: ComponentRegistry) -> None:
    edit(folder / "model_index.json", _class_name=name)
    reason = "it edits a picture by an instruction, with an image_guidance_scale and without a strength"
    refused(
        folder, registry, f"is a {name}, which Diffusers Relay does not run: {reason}, and no node does that. It runs"
    )


@pytest.mark.parametrize(
    "file", ["model_index.json", "unet/config.json", "tokenizer/vocab.json", "tokenizer/tokenizer_config.json", UNET]
)
def test_a_file_of_500_mb_is_not_read(file: str, folder: Path, registry: ComponentRegistry) -> None:
    os.truncate(folder / file, 500 * 2**20)
    refused(folder, registry, file)


if os.name != "nt":

    @pytest.mark.parametrize("file", ["model_index.json", "unet/config.json", "tokenizer/merges.txt", UNET])
    @pytest.mark.parametrize("kind", ["pipe", "device"])
    def test_a_pipe_or_a_device_is_no_file(file: str, kind: str, folder: Path, registry: ComponentRegistry) -> None:
        (folder / file).unlink()
        (folder / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)
        os.mkfifo(folder / file) if kind == "pipe" else (folder / file).symlink_to("/dev/zero")
        refused(folder, registry)


def test_an_index_with_a_million_entries_is_refused(folder: Path, registry: ComponentRegistry) -> None:
    stem = "diffusion_pytorch_model"
    for number in (1, 2):
        shutil.copyfile(folder / UNET, folder / "unet" / f"{stem}-{number:05}-of-00002.safetensors")
    (folder / UNET).unlink()
    index = {"weight_map": {f"tensor.{n}": f"../../{n}.safetensors" for n in range(10**6)}}
    (folder / "unet" / f"{stem}.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    refused(folder, registry, "index.json", "larger than 32 MB")


@pytest.mark.parametrize("names", [["evil.bin"] * 2, ["../vae/x.safetensors"] * 2, ["/etc/passwd"], [{"a": 1}], []])
def test_an_index_that_names_other_files_is_refused(
    names: list[Any], folder: Path, registry: ComponentRegistry, models: SmallModels
) -> None:
    unet = load(models.named["sd15"])["unet"]
    (folder / UNET).unlink()
    unet.save_pretrained(folder / "unet", max_shard_size="1MB")
    registry.loads = 0
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    edit(index, weight_map={f"tensor.{n}": name for n, name in enumerate(names)})
    refused(folder, registry, "index.json")


def test_shards_that_hold_a_tensor_twice_are_refused(folder: Path) -> None:
    stem = "diffusion_pytorch_model"
    names = [f"{stem}-{number:05}-of-00002.safetensors" for number in (1, 2)]
    weights = load_file(folder / UNET)
    for name in names:
        shutil.copyfile(folder / UNET, folder / "unet" / name)
    (folder / UNET).unlink()
    index = {"weight_map": dict(zip(weights, names * len(weights), strict=False))}
    (folder / "unet" / f"{stem}.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    with pytest.raises(RelayError, match="which another shard contains too"):
        load(folder)


@pytest.mark.parametrize(("flag", "value"), [("force_zeros_for_empty_prompt", "yes"), ("requires_aesthetics_score", 2)])
def test_flags_of_model_index_are_true_or_false(
    flag: str, value: object, models: SmallModels, tmp_path: Path, registry: ComponentRegistry
) -> None:
    folder = Path(shutil.copytree(models.named["sdxl_refiner"], tmp_path / "refiner"))
    edit(folder / "model_index.json", **{flag: value})
    refused(folder, registry, flag, "true or false")


# --- weights


def test_an_encoder_that_asks_for_more_than_its_file_holds_is_not_built(folder: Path) -> None:
    """transformers would first fill hundreds of MB with random values."""
    edit(folder / "text_encoder" / "config.json", hidden_size=4096, intermediate_size=16384, num_hidden_layers=32)
    began = time.monotonic()
    with pytest.raises(
        RelayError, match=r"the weights of its text_encoder don't match its config, which needs [\d,]+ numbers"
    ):
        load(folder)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["sd15", "kandinsky_prior", "kandinsky_decoder", "x2_upscaler"])
def test_what_a_module_makes_of_itself_has_its_dtype(name: str, dtype: torch.dtype, models: SmallModels) -> None:
    """Buffers that aren't in a file, such as the prior's mask, match diffusers' own loader."""
    from diffusers import DiffusionPipeline

    ours = load_folder(models.named[name], dtype=dtype, monitor=SilentMonitor())
    theirs = DiffusionPipeline.from_pretrained(models.named[name], torch_dtype=dtype)
    for component, module in ours.modules.items():
        if isinstance(module, torch.nn.Module):
            mine, reference = dict(module.named_buffers()), dict(theirs.components[component].named_buffers())
            assert mine.keys() == reference.keys()
            assert all(value.dtype == reference[key].dtype for key, value in mine.items())
            assert all(torch.equal(value, reference[key]) for key, value in mine.items())


@pytest.mark.parametrize("file", [UNET, TEXT])
def test_quantised_weights_are_refused(file: str, folder: Path) -> None:
    weights = load_file(folder / file)
    key = next(key for key, value in weights.items() if value.ndim == 2)
    weights[key] = weights[key].to(torch.int8)
    save_file(weights, folder / file, {"format": "pt"})
    with pytest.raises(RelayError, match=r"are quantised .*int8"):
        load(folder)


@pytest.mark.parametrize("file", [UNET, TEXT])
def test_weights_of_another_size_are_named(file: str, folder: Path) -> None:
    weights = load_file(folder / file)
    key = next(key for key, value in weights.items() if value.ndim == 1)
    weights[key] = torch.cat([weights[key], weights[key]])
    save_file(weights, folder / file, {"format": "pt"})
    with pytest.raises(RelayError, match=file.partition("/")[0]):
        load(folder)


@pytest.mark.parametrize("sharded", [False, True])
def test_the_old_names_of_a_vae_s_attention_load(sharded: bool, folder: Path, models: SmallModels) -> None:
    """As in the published VAEs; diffusers' method for renaming may move."""
    expected = load(models.named["sd15"])
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for key, value in load_file(folder / VAE).items():
        for new, name in names.items():
            key = key.replace(f"mid_block.attentions.0.{new}.", f"mid_block.attentions.0.{name}.")
        old[key] = value
    assert sum(".proj_attn." in key or ".query." in key for key in old) == 8
    if sharded:
        (folder / VAE).unlink()
        stem = "diffusion_pytorch_model"
        shards = [f"{stem}-{number:05}-of-00002.safetensors" for number in (1, 2)]
        for number, shard in enumerate(shards):
            save_file({key: old[key] for key in list(old)[number::2]}, folder / "vae" / shard)
        index = {"weight_map": {key: shards[place % 2] for place, key in enumerate(old)}}
        (folder / "vae" / f"{stem}.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    else:
        save_file(old, folder / VAE, {"format": "pt"})
    same(load(folder), expected)


def test_a_text_encoder_loads_under_the_names_of_either_transformers(folder: Path, models: SmallModels) -> None:
    expected = load(models.named["sd15"])
    weights = load_file(folder / TEXT)
    for starts in ("", "text_model."):
        save_file(
            {starts + key.removeprefix("text_model."): value for key, value in weights.items()},
            folder / TEXT,
            {"format": "pt"},
        )
        same(load(folder), expected)


# --- tokenizers


@pytest.mark.parametrize("name", ["sd15", "sdxl_base", "kandinsky_prior"])
@pytest.mark.parametrize(
    "without", [(), ("tokenizer.json",), ("vocab.json", "merges.txt"), ("special_tokens_map.json",)]
)
def test_a_tokenizer_is_that_of_transformers(
    name: str, without: tuple[str, ...], models: SmallModels, tmp_path: Path
) -> None:
    from transformers import CLIPTokenizer

    whole = models.named[name]
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    for tokenizer in folder.glob("tokenizer*"):
        theirs = CLIPTokenizer.from_pretrained(whole / tokenizer.name)
        if "vocab.json" in without and not (tokenizer / "tokenizer.json").exists():
            continue  # only transformers 4 saves it
        for file in without:
            (tokenizer / file).unlink(missing_ok=True)
        ours = load(folder)[tokenizer.name]
        for text in (PROMPT, "", "the " * 100):
            padded = {"padding": "max_length", "truncation": True, "max_length": 77}
            assert ours(text, **padded) == theirs(text, **padded)
        assert ours.model_max_length == theirs.model_max_length
        assert ours.special_tokens_map == theirs.special_tokens_map
        assert ours.added_tokens_decoder == theirs.added_tokens_decoder


def test_tokens_that_a_model_was_saved_with_stay(folder: Path) -> None:
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    tokenizer.add_tokens(["<cat-toy>"])
    shutil.rmtree(folder / "tokenizer")
    tokenizer.save_pretrained(folder / "tokenizer")
    expected = CLIPTokenizer.from_pretrained(folder / "tokenizer")("a <cat-toy> on").input_ids
    assert len(tokenizer) - 1 in expected
    assert load(folder)["tokenizer"]("a <cat-toy> on").input_ids == expected


@pytest.mark.parametrize("longest", [1000000000000000019884624838656, None, 0, -1, "77", 77.0])
def test_no_limit_is_that_of_the_encoder(longest: object, folder: Path, models: SmallModels) -> None:
    """diffusers doesn't use it otherwise, and fails without it."""
    edit(folder / "tokenizer" / "tokenizer_config.json", model_max_length=longest)
    same(load(folder), load(models.named["sd15"]))
    assert load(folder)["tokenizer"].model_max_length == 77


# --- ControlNets


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"block_out_channels": [10**7] * 4}, "block_out_channels is 10000000"),
        ({"layers_per_block": 10**4}, "layers_per_block is 10000"),
        ({"_class_name": "StableDiffusionPipeline"}, "is not a ControlNet"),
        ({"_class_name": ["evil", "Evil"]}, "is not a ControlNet"),
        ({"controlnet_conditioning_channel_order": "evil"}, "is 'evil', but it must be 'rgb' or 'bgr'"),
        ({"conditioning_channels": "3"}, "is '3', but it must be a whole number"),
    ],
)
def test_a_controlnet_s_config_is_data(
    entries: dict[str, Any], says: str, models: SmallModels, tmp_path: Path, registry: ComponentRegistry
) -> None:
    folder = Path(shutil.copytree(models.controlnets["sd15_depth"], tmp_path / "net"))
    edit(folder / "config.json", auto_map={"AutoModel": "evil.Evil"}, _name_or_path="/etc")
    edit(folder / "adapter_config.json", base_model_name_or_path="/etc")
    load_controlnet_folder(folder, dtype=torch.float32, monitor=SilentMonitor())
    registry.loads = 0
    edit(folder / "config.json", **entries)
    with pytest.raises(RelayError, match=says):
        load_controlnet_folder(folder, dtype=torch.float32, monitor=SilentMonitor())
    assert registry.loads == 0
