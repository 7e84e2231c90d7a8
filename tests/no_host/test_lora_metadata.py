"""A LoRA file's metadata: rank and alpha of its layers are used; settings that make it more than a plain LoRA are rejected."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from diffusers_relay.pipelines.adapters.lora import active_loras
from diffusers_relay.pipelines.base.errors import RelayError
from relay_dev.model_folders import small_models
from support.lora_files import CONTEXT, QUERY, assert_merged, delta, layer, open_lora, pair, put
from support.without_host import load

OUT = QUERY.replace("to_q", "to_out.0")


def metadata_of(entries: Mapping[str, Any], start: str = "unet.") -> dict[str, str]:
    return {"lora_adapter_metadata": json.dumps({f"{start}{name}": value for name, value in entries.items()})}


def tensors_of(name: str, rank: int = 4) -> dict[str, torch.Tensor]:
    down, up = pair(load("sd15"), "unet", name, rank)
    return {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}


def product(name: str, rank: int = 4) -> torch.Tensor:
    return delta(*pair(load("sd15"), "unet", name, rank))


# --- settings that are used


@pytest.mark.parametrize("start", ["unet.", ""], ids=["of a pipeline", "of one component"])
@pytest.mark.parametrize(
    ("entries", "scale"),
    [
        ({"r": 4, "lora_alpha": 2}, 0.5),
        ({"r": 8, "lora_alpha": 2, "rank_pattern": {"attn1.to_q": 4}, "alpha_pattern": {"to_q": 12}}, 3.0),
        ({"r": 4, "lora_alpha": 2, "alpha_pattern": {f"^{QUERY}$": 12, "to_q": 1}}, 3.0),
        ({"r": 4, "lora_alpha": 2, "alpha_pattern": {"to_q": 1, f"^{QUERY}": 12}}, 0.25),
        ({"r": 4, "lora_alpha": 2, "alpha_pattern": {QUERY.replace(".", "\\."): 12}}, 3.0),
        ({"r": 4, "lora_alpha": 2, "alpha_pattern": {"own_to_q": 12, "o_q": 12, "attn1": 12, "^to_q": 12}}, 0.5),
        ({"r": 4, "lora_alpha": 2, "use_rslora": True}, 1.0),
        ({"r": 4, "lora_alpha": 4, "alpha_pattern": {f"layer_{i}": 2 for i in range(40_000)}}, 1.0),
    ],
    ids=lambda value: "" if isinstance(value, float) else ",".join(value)[-60:],
)
def test_rank_and_alpha(start: str, entries: dict[str, Any], scale: float, tmp_path: Path) -> None:
    path = put(tmp_path / "x.safetensors", tensors_of(QUERY), metadata_of(entries, start))
    assert_merged(open_lora(load("sd15"), path), "unet", {QUERY: scale * product(QUERY)})


@pytest.mark.parametrize("pattern", ["to_q", "^down_blocks", f"^{QUERY}", "attn1.to_q", "o_q", "^to_q"])
def test_a_name_means_what_it_means_in_peft(pattern: str, tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel
    from peft import LoraConfig

    unet: Any = UNet2DConditionModel.from_pretrained(small_models().named["sd15"], subfolder="unet")
    unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=[QUERY], alpha_pattern={pattern: 8}))
    entries = {"r": 4, "lora_alpha": 4, "alpha_pattern": {pattern: 8}}
    view = open_lora(load("sd15"), put(tmp_path / "x.safetensors", tensors_of(QUERY), metadata_of(entries)))
    assert_merged(view, "unet", {QUERY: unet.get_submodule(QUERY).scaling["default"] * product(QUERY)})


@pytest.mark.parametrize("name", ["text_model.encoder.layers.0.self_attn.q_proj", "encoder.layers.0.self_attn.q_proj"])
def test_names_of_the_text_encoder_with_and_without_its_wrapper(name: str, tmp_path: Path) -> None:
    model, plain = load("sd15"), name.removeprefix("text_model.")
    down, up = pair(model, "text_encoder", plain)
    tensors = {f"text_encoder.{name}.lora_A.weight": down, f"text_encoder.{name}.lora_B.weight": up}
    entries = {"r": 4, "lora_alpha": 4, "alpha_pattern": {f"^{name}": 12}}
    path = put(tmp_path / "x.safetensors", tensors, metadata_of(entries, "text_encoder."))
    assert_merged(open_lora(model, path), "text_encoder", {plain: 3.0 * delta(down, up)})


@pytest.mark.parametrize("whole_pipeline", [True, False], ids=["save_lora_weights", "save_lora_adapter"])
@pytest.mark.parametrize("dora", [False, True], ids=["LoRA", "DoRA"])
def test_files_of_the_installed_diffusers_and_peft(whole_pipeline: bool, dora: bool, tmp_path: Path) -> None:
    """With all the settings that they write; the expected values come from the saved model."""
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    unet: Any = UNet2DConditionModel.from_pretrained(small_models().named["sd15"], subfolder="unet")
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=[QUERY, OUT],
        rank_pattern={QUERY: 6},
        alpha_pattern={QUERY: 3},
        lora_dropout=0.3,
        use_rslora=True,
        use_dora=dora,
        init_lora_weights="gaussian",
    )
    unet.add_adapter(config)
    numbers = torch.Generator().manual_seed(1)
    for name, parameter in unet.named_parameters():
        if "lora_B" in name or "magnitude" in name:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=numbers)
    if whole_pipeline:
        StableDiffusionPipeline.save_lora_weights(
            tmp_path,
            unet_lora_layers=get_peft_model_state_dict(unet),
            unet_lora_adapter_metadata=unet.peft_config["default"].to_dict(),
        )
    else:
        unet.save_lora_adapter(tmp_path, adapter_name="default")
    path = tmp_path / "pytorch_lora_weights.safetensors"
    assert any("magnitude" in key for key in load_file(path)) == dora
    before = {name: unet.get_submodule(name).get_base_layer().weight.detach().clone() for name in (QUERY, OUT)}
    for name in (QUERY, OUT):
        unet.get_submodule(name).merge()
    deltas = {name: unet.get_submodule(name).get_base_layer().weight.detach() - before[name] for name in (QUERY, OUT)}
    assert_merged(open_lora(load("sd15"), path), "unet", deltas)


OLDER = {  # as peft 0.10 writes them
    **dict.fromkeys(("auto_mapping", "base_model_name_or_path", "revision", "task_type", "layers_pattern")),
    **dict.fromkeys(("layers_to_transform", "modules_to_save", "megatron_config", "layer_replication")),
    **{"bias": "none", "fan_in_fan_out": False, "inference_mode": True, "init_lora_weights": True, "loftq_config": {}},
    **{"lora_dropout": 0.0, "megatron_core": "megatron.core", "peft_type": "LORA", "use_dora": False},
    **{"target_modules": ["to_q"], "rank_pattern": {}, "alpha_pattern": {}, "use_rslora": False},
}
NEWER = {  # as peft 0.18 to 0.21 do
    **OLDER,
    **dict.fromkeys(("arrow_config", "alora_invocation_tokens", "corda_config", "eva_config", "exclude_modules")),
    **dict.fromkeys(("kasa_config", "lora_ga_config", "monteclora_config", "target_parameters", "use_bdlora")),
    **{"qalora_group_size": 16, "use_qalora": False, "lora_bias": False, "ensure_weight_tying": False},
    **{"peft_version": "0.21.2", "trainable_token_indices": None, "velora_config": None, "a_later_one": None},
}
WITHOUT_EFFECT = {
    "target_modules": "(((a+)+)+)+$",
    "exclude_modules": "(.*)*x",
    "lora_dropout": 0.9,
    "fan_in_fan_out": True,
    "megatron_core": "antigravity",
    "base_model_name_or_path": "someone/else",
    "bias": "all",
    "modules_to_save": ["conv_in"],
    "inference_mode": False,
    "eva_config": {"rho": 2.0},
}


@pytest.mark.parametrize("start", ["gaussian", "eva", "orthogonal", "mica", True, False, None])
@pytest.mark.parametrize("entries", [OLDER, NEWER, WITHOUT_EFFECT], ids=["older peft", "newer peft", "without effect"])
def test_what_says_nothing_of_the_value(entries: dict[str, Any], start: Any, tmp_path: Path) -> None:
    model, began = load("sd15"), time.monotonic()
    found = {name: parameter.requires_grad for name, parameter in model["unet"].named_parameters()}
    metadata = metadata_of({**entries, "init_lora_weights": start, "r": 4, "lora_alpha": 2})
    view = open_lora(model, put(tmp_path / "x.safetensors", tensors_of(QUERY), metadata))
    assert_merged(view, "unet", {QUERY: 0.5 * product(QUERY)})
    with active_loras(view, ["unet"]):
        config = next(iter(view["unet"].peft_config.values()))
        assert (config.lora_dropout, config.bias, set(config.target_modules)) == (0.0, "none", {QUERY})
        assert not any(isinstance(one, torch.nn.Dropout) and one.p for one in layer(view, "unet", QUERY).modules())
        assert not any(module.training for module in view["unet"].modules())
    assert {name: parameter.requires_grad for name, parameter in model["unet"].named_parameters()} == found
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(("value", "fits"), [(16, True), (17, False)])
def test_a_setting_that_is_as_the_installed_peft_has_it_by_itself(
    value: int, fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in every file from a later peft where nobody set it."""
    import peft

    later = dataclasses.make_dataclass("Later", [("group_size", int, 16)], bases=(peft.LoraConfig,))
    monkeypatch.setattr(peft, "LoraConfig", later)
    metadata = metadata_of({"r": 4, "lora_alpha": 4, "group_size": value})
    path = put(tmp_path / "x.safetensors", tensors_of(QUERY), metadata)
    if fits:
        assert open_lora(load("sd15"), path).loras
        return
    with pytest.raises(RelayError, match="was made with group_size: 17"):
        open_lora(load("sd15"), path)


def test_what_was_trained_too_and_is_not_in_the_file_is_noted(tmp_path: Path) -> None:
    entries = {"r": 4, "lora_alpha": 4, "bias": "all", "modules_to_save": ["conv_in"]}
    (note,) = (
        open_lora(load("sd15"), put(tmp_path / "x.safetensors", tensors_of(QUERY), metadata_of(entries)))
        .loras[0]
        .weights.notes
    )
    assert "biases and other layers of the model were trained too" in note
    plain = put(tmp_path / "y.safetensors", tensors_of(QUERY), metadata_of({**NEWER, "r": 4, "lora_alpha": 4}))
    assert open_lora(load("sd15"), plain).loras[0].weights.notes == ()


# --- rejected


PLAIN = {"r": 4, "lora_alpha": 4}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"r": 64, "lora_alpha": 64}, r"contradicts itself: by its metadata, .*attn1.to_q has rank 64, but its tensors have rank 4"),
    ({"r": 4, "lora_alpha": 4, "rank_pattern": {"to_q": 8}}, "has rank 8"),
    ({"rank_pattern": {"to_q": 8}}, "has rank 8"),
    ({**PLAIN, "rank_pattern": {"(.*)*to_q": 4}}, r"rank_pattern in its metadata has the expression \(\.\*\)\*to_q,"),
    ({**PLAIN, "alpha_pattern": {"(((a+)+)+)+$": 8}}, "alpha_pattern in its metadata has the expression"),
    ({**PLAIN, "alpha_pattern": ["to_q"]}, "alpha_pattern .*not a table"),
    ({**PLAIN, "alpha_pattern": {"to_q": "8"}}, "alpha_pattern in its metadata is 8, which is not a usable number"),
    ({"r": 4, "lora_alpha": "four"}, "lora_alpha in its metadata is four, which is not a usable number"),
    ({"r": 4, "lora_alpha": math.nan}, "lora_alpha in its metadata is nan, which is not a usable number"),
    ({"r": 4, "lora_alpha": math.inf}, "lora_alpha .*not a usable number"),
    ({"r": None, "lora_alpha": 4}, "r in its metadata is None, which is not a usable number"),
    ({"r": True, "lora_alpha": 4}, "r in its metadata is True, which is not a usable number"),
    *[
        ({**PLAIN, "init_lora_weights": start}, rf"trained on changed model weights \(init_lora_weights: {start.lower()}\)")
        for start in ("pissa", "pissa_niter_16", "olora", "OLoRA", "corda", "loftq", "lora_ga")
    ],
    ({**PLAIN, "init_lora_weights": "of_next_year"}, "was made with init_lora_weights: of_next_year"),
    ({**PLAIN, "layer_replication": [[0, 2], [1, 3]]}, "was made with layer_replication"),
    ({**PLAIN, "use_qalora": True, "peft_version": "0.18.1"}, "was made with use_qalora: True, .*it was saved by peft 0.18.1. Use a plain LoRA"),
    ({**PLAIN, "kasa_config": {"beta": 1}}, "was made with kasa_config"),
    ({**PLAIN, "alora_invocation_tokens": [1, 2]}, "was made with alora_invocation_tokens"),
    ({**PLAIN, "a\nsetting of 2030" + 900 * "x": 900 * "\x1b"}, r"was made with a\\nsetting of 2030x"),
    ({**PLAIN, "use_dora": True}, "contradicts itself: by its metadata it is a DoRA, but .* has no DoRA magnitude vector"),
]  # fmt: skip


@pytest.mark.parametrize(("entries", "words"), REFUSED, ids=lambda value: value[:50] if isinstance(value, str) else "")
def test_what_is_refused(entries: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = put(tmp_path / "x.safetensors", tensors_of(QUERY), metadata_of(entries))
    with pytest.raises(RelayError, match=words) as caught:
        open_lora(load("sd15"), path)
    message = str(caught.value)
    assert message.startswith(("lora: my lora ", "lora: my lora: "))
    assert message.isprintable()
    assert len(message) < 400


@pytest.mark.parametrize("text", ["[1]", "3", "{", "[" * 100_000], ids=["list", "number", "half", "deep"])
def test_metadata_that_are_no_table(text: str, tmp_path: Path) -> None:
    path = put(tmp_path / "x.safetensors", tensors_of(QUERY), {"lora_adapter_metadata": text})
    with pytest.raises(RelayError, match=r"^lora: my lora: its lora_adapter_metadata can't be read"):
        open_lora(load("sd15"), path)


def test_lengths_that_the_metadata_deny(tmp_path: Path) -> None:
    tensors = {**tensors_of(QUERY), f"unet.{QUERY}.lora_magnitude_vector": torch.ones(32)}
    path = put(tmp_path / "x.safetensors", tensors, metadata_of({**PLAIN, "use_dora": False}))
    with pytest.raises(RelayError, match=r"by its metadata it is not a DoRA, but .* has a DoRA magnitude vector"):
        open_lora(load("sd15"), path)


@pytest.mark.parametrize(("alpha", "fits"), [(8.0, True), (4.0, False)])
def test_an_alpha_of_the_layer_s_own_beside_metadata(alpha: float, fits: bool, tmp_path: Path) -> None:
    tensors = {**tensors_of(QUERY), f"unet.{QUERY}.alpha": torch.tensor(alpha)}
    path = put(tmp_path / "x.safetensors", tensors, metadata_of({"r": 4, "lora_alpha": 8}))
    if fits:
        assert_merged(open_lora(load("sd15"), path), "unet", {QUERY: 2.0 * product(QUERY)})
        return
    with pytest.raises(RelayError, match=r"by its alpha, .* has strength 1, but by its metadata 2"):
        open_lora(load("sd15"), path)


def test_only_what_is_said_of_the_file_s_own_components_counts(tmp_path: Path) -> None:
    metadata = metadata_of({"r": 64, "init_lora_weights": "pissa"}, "transformer.")
    view = open_lora(load("sd15"), put(tmp_path / "x.safetensors", tensors_of(CONTEXT), metadata))
    assert_merged(view, "unet", {CONTEXT: product(CONTEXT)})
