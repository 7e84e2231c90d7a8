"""LoHa, LoKr, OFT, DoRA, differences and norms in LoRA files: each is the merge by hand in float64, and leaves nothing behind."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from diffusers_relay.pipelines.adapters.lora import active_loras, with_lora
from diffusers_relay.pipelines.base.encoded_once import ENCODED
from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.device.offload import PlainOffload
from diffusers_relay.pipelines.device.runtime import Runtime
from diffusers_relay.pipelines.model.components import PipelineComponents
from diffusers_relay.pipelines.model.embeds import mark_of
from diffusers_relay.pipelines.runs.sampling import TextToImageSettings, text_to_image
from diffusers_relay.weighting.compel_encoder import encode_prompt
from support.lora_files import assert_merged, delta, kohya, pair, put
from support.lora_kinds import (
    CASES,
    CONV,
    LINEAR,
    NORM,
    POINT,
    WIDE,
    Case,
    bias_alone,
    difference,
    loha,
    lokr,
    low_rank,
    norm,
    numbers,
    oft,
)
from support.without_host import load

Wanted = Mapping[str, torch.Tensor]
TOLERANCE = 1e-6
"""Relative to the largest value; float32 has 1.2e-7."""


def shapes(model: PipelineComponents | None = None) -> dict[str, tuple[int, ...]]:
    unet = (model or load("sd15"))["unet"]
    return {name: tuple(unet.get_submodule(name).weight.shape) for name in (LINEAR, WIDE, CONV, POINT, NORM)}


def file_of(folder: Path, *cases: Case, name: Callable[[str], str] = kohya) -> Path:
    tensors = {f"{name(case.layer)}.{end}": tensor for case in cases for end, tensor in case.tensors.items()}
    return put(folder / f"{len(list(folder.iterdir()))}.safetensors", tensors)


def by_hand(model: PipelineComponents, case: Case, strength: float) -> dict[str, torch.Tensor]:
    """Parameter of the UNet -> its value in float64."""
    layer = model["unet"].get_submodule(case.layer)
    merges = {"weight": case.weight, "bias": case.bias}
    return {
        f"{case.layer}.{name}": merge(getattr(layer, name).detach().double(), strength)
        for name, merge in merges.items()
        if merge is not None
    }


def assert_changed(view: PipelineComponents, wanted: Wanted, part: str = "unet", tolerance: float = TOLERANCE) -> None:
    """Inside the stage the parameters in ``wanted`` have its values and no other has changed; afterwards none has."""
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in view[part].named_parameters()}
    with active_loras(view, [part]):
        for name, tensor in view[part].named_parameters():
            if name in wanted:
                far = (tensor.double() - wanted[name]).abs().max() / wanted[name].abs().max()
                assert far < tolerance, f"{name} is off by {far:.2g}"
                assert (tensor - before[name][1]).abs().max() > 1e-4, "a change that changes nothing proves nothing"
            else:
                assert torch.equal(tensor, before[name][1]), name
    after = dict(view[part].named_parameters())
    assert list(after) == list(before)
    for name, (address, tensor) in before.items():
        assert after[name].data_ptr() == address
        assert torch.equal(after[name], tensor)
        assert not after[name].is_inference()


def opened(path: Path, strength: float = 1.0, model: PipelineComponents | None = None) -> PipelineComponents:
    return with_lora(model or load("sd15"), path, title="my lora", strength=strength, text_strength=strength)


@pytest.mark.parametrize("strength", [1.0, 0.4, -0.5])
@pytest.mark.parametrize("name", CASES)
def test_each_kind_is_the_merge_by_hand(inference_mode: None, name: str, strength: float, tmp_path: Path) -> None:
    case = CASES[name](shapes())
    view = opened(file_of(tmp_path, case), strength)
    assert_changed(view, by_hand(view, case, strength))
    assert view.loras[0].weights.notes == ()


@pytest.mark.parametrize(
    "naming",
    [
        lambda layer: f"unet.{layer}",
        lambda layer: f"base_model.model.{layer}",
        lambda layer: f"lycoris_{layer.replace('.', '_')}",
        lambda layer: f"oft_unet_{layer.replace('.', '_')}",
    ],
    ids=["diffusers", "PEFT", "LyCORIS", "kohya's OFT"],
)
def test_names_of_other_programs(naming: Callable[[str], str], tmp_path: Path) -> None:
    found = shapes()
    cases = [oft(LINEAR, found[LINEAR], 0.0), loha(CONV, found[CONV], True), norm(NORM, found[NORM])]
    view = opened(file_of(tmp_path, *cases, name=naming))
    assert_changed(view, {name: value for case in cases for name, value in by_hand(view, case, 1.0).items()})


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("lora_unet_input_blocks_1_0_in_layers_0", "down_blocks.0.resnets.0.norm1"),
        ("lora_unet_input_blocks_1_0_out_layers_0", "down_blocks.0.resnets.0.norm2"),
        ("lora_unet_out_0", "conv_norm_out"),
        ("lora_unet_conv_norm_out", "conv_norm_out"),
        (
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_norm2",
            "down_blocks.0.attentions.0.transformer_blocks.0.norm2",
        ),
    ],
)
def test_names_of_norms(name: str, layer: str, tmp_path: Path) -> None:
    case = norm(layer, tuple(load("sd15")["unet"].get_submodule(layer).weight.shape))
    view = opened(file_of(tmp_path, case, name=lambda _: name))
    assert_changed(view, by_hand(view, case, 1.0))


def test_a_text_encoder(tmp_path: Path) -> None:
    model = load("sd15")
    encoder = model["text_encoder"]
    fc1 = next(name for name, _ in encoder.named_modules() if name.endswith("encoder.layers.0.mlp.fc1"))
    last = next(name for name, _ in encoder.named_modules() if name.endswith("final_layer_norm"))
    cases = [
        loha(fc1, tuple(encoder.get_submodule(fc1).weight.shape), False),
        norm(last, tuple(encoder.get_submodule(last).weight.shape)),
    ]
    names = {fc1: "lora_te_text_model_encoder_layers_0_mlp_fc1", last: "lora_te_text_model_final_layer_norm"}
    view = opened(file_of(tmp_path, *cases, name=names.__getitem__))
    wanted = {}
    for case in cases:
        layer = encoder.get_submodule(case.layer)
        for name, merge in (("weight", case.weight), ("bias", case.bias)):
            if merge is not None:
                wanted[f"{case.layer}.{name}"] = merge(getattr(layer, name).detach().double(), 1.0)
    assert_changed(view, wanted, "text_encoder")
    assert mark_of(view).extras == ("LoRA my lora at text_strength 1",)
    assert view.loras[0].strength_in("unet") == 0.0


def test_kinds_in_one_file_and_several_files_on_one_layer(tmp_path: Path) -> None:
    """Changes of one layer are computed from the model's own weight and added, so that the order does not matter."""
    model, found = load("sd15"), shapes()
    one = file_of(tmp_path, loha(LINEAR, found[LINEAR], False), oft(CONV, found[CONV], 0.0), norm(NORM, found[NORM]))
    other = file_of(tmp_path, lokr(CONV, found[CONV], True, "whole"), difference(LINEAR, found[LINEAR], False))
    parts = {
        LINEAR: [(loha(LINEAR, found[LINEAR], False), 0.7), (difference(LINEAR, found[LINEAR], False), -0.2)],
        CONV: [(oft(CONV, found[CONV], 0.0), 0.7), (lokr(CONV, found[CONV], True, "whole"), -0.2)],
    }
    wanted = by_hand(model, norm(NORM, found[NORM]), 0.7)
    for layer, cases in parts.items():
        weight = model["unet"].get_submodule(layer).weight.detach().double()
        wanted[f"{layer}.weight"] = weight + sum(case.weight(weight, s) - weight for case, s in cases)  # type: ignore[misc]
    for files in ([(one, 0.7), (other, -0.2)], [(other, -0.2), (one, 0.7)]):
        view = model
        for path, strength in files:
            view = opened(path, strength, view)
        assert_changed(view, wanted)


def test_beside_a_plain_lora(tmp_path: Path) -> None:
    """A LoRA with a difference of the same layer's bias, and a LoHa of another file on the LoRA's layer."""
    model, found = load("sd15"), shapes()
    down, up = pair(model, "unet", CONV)
    lora = Case(CONV, {"lora_down.weight": down, "lora_up.weight": up}, None)
    biased = bias_alone(CONV, found[CONV])
    added = loha(CONV, found[CONV], False)
    view = opened(file_of(tmp_path, lora, biased), 1.0)
    view = opened(file_of(tmp_path, added), 0.5, view)
    base = model["unet"].get_submodule(CONV)
    weight, bias = base.weight.detach().double(), base.bias.detach().double()
    given = numbers(2, weight.shape[1], 5, 5, scale=1.0)
    wanted = torch.nn.functional.conv2d(
        given.double(),
        added.weight(weight, 0.5) + delta(down, up).double(),  # type: ignore[misc]
        biased.bias(bias, 1.0),  # type: ignore[misc]
        padding=1,
    )
    with torch.no_grad(), active_loras(view, ["unet"]):
        got = view["unet"].get_submodule(CONV)(given)
    assert torch.allclose(got.double(), wanted, atol=2e-5 * float(wanted.abs().max()))
    assert torch.equal(base.weight.double(), weight)
    assert_merged(opened(file_of(tmp_path, lora)), "unet", {CONV: delta(down, up)})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["LoHa", "LoKr, both whole", "OFT with a limit", "norm", "LoHa as a DoRA"])
def test_half_precision_is_the_rounded_merge(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = load("sd15", dtype)
    case = CASES[name](shapes(model))
    view = opened(file_of(tmp_path, case), 0.8, model)
    wanted = {key: value.to(dtype).double() for key, value in by_hand(model, case, 0.8).items()}
    with active_loras(view, ["unet"]):
        for key, value in wanted.items():
            got = view["unet"].get_parameter(key).double()
            assert ((got != value).double().mean()) < 0.01, "only ties round differently"
            assert torch.allclose(got, value, rtol=torch.finfo(dtype).eps, atol=0)


def test_files_in_eight_bits(tmp_path: Path) -> None:
    case = loha(LINEAR, shapes()[LINEAR], False)
    narrow = {end: tensor.to(torch.float8_e4m3fn) for end, tensor in case.tensors.items() if tensor.ndim}
    t = {end: tensor.double() for end, tensor in narrow.items()}
    change = (t["hada_w1_a"] @ t["hada_w1_b"]) * (t["hada_w2_a"] @ t["hada_w2_b"])
    view = opened(file_of(tmp_path, Case(LINEAR, narrow, None)))
    weight = view["unet"].get_submodule(LINEAR).weight.detach().double()
    assert_changed(view, {f"{LINEAR}.weight": weight + change})


def test_a_merge_that_the_model_s_type_can_not_hold(tmp_path: Path) -> None:
    case = loha(LINEAR, shapes()[LINEAR], False)
    big = {**case.tensors, "hada_w1_a": case.tensors["hada_w1_a"] * 1e6}
    path = file_of(tmp_path, Case(LINEAR, big, None))
    half = load("sd15", torch.float16)
    before = half["unet"].get_submodule(LINEAR).weight.clone()
    view = opened(path, 1.0, opened(file_of(tmp_path, norm(NORM, shapes()[NORM])), 1.0, half))
    words = rf"^lora: with my lora, {LINEAR}.weight has values up to .*, but float16 only reaches 65504. Lower strength"
    with pytest.raises(RelayError, match=words), active_loras(view, ["unet"]):
        pytest.fail("it was merged")
    assert torch.equal(half["unet"].get_submodule(LINEAR).weight, before)
    with active_loras(opened(path), ["unet"]):
        pass
    wide = difference(LINEAR, shapes()[LINEAR], False)
    wide.tensors["diff"][0, 0] = 7e4
    with pytest.raises(
        RelayError, match=r"^lora: my lora has values up to 7e\+04, but sd15 .* in float16 only reaches"
    ):
        opened(file_of(tmp_path, wide), 1.0, half)


def test_an_error_in_the_stage_leaves_nothing(tmp_path: Path) -> None:
    case = loha(LINEAR, shapes()[LINEAR], False)
    view = opened(file_of(tmp_path, case))
    layer = view["unet"].get_submodule(LINEAR)
    address, before = layer.weight.data_ptr(), layer.weight.clone()

    def stop() -> None:
        assert not torch.equal(layer.weight, before)
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"), active_loras(view, ["unet"]):
        stop()
    assert layer.weight.data_ptr() == address
    assert torch.equal(layer.weight, before)


def test_a_memory_format_that_the_stage_has_set_stays(inference_mode: None, tmp_path: Path) -> None:
    """RelayOptimize's channels_last clones the weights inside the stage; they must not come back in two formats."""
    model = load("sd15")
    view = opened(file_of(tmp_path, loha(CONV, shapes()[CONV], True)))
    weight = model["unet"].get_submodule(CONV).weight
    data, before = weight.data, weight.detach().clone()
    try:
        with active_loras(view, ["unet"]), torch.inference_mode(False):
            weight.data = weight.data.clone(memory_format=torch.channels_last)
        assert not weight.data.is_inference()
        assert weight.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(weight, before)
    finally:
        weight.data = data


@pytest.mark.parametrize("capacity", [None, 1000], ids=["whole", "streamed"])
def test_a_picture_is_that_of_the_merged_model(inference_mode: None, capacity: int | None, tmp_path: Path) -> None:
    """Both stages, text and denoising, against a model whose weights were merged by hand before the run; twice, and the base between."""
    base, found = load("sd15"), shapes()
    encoder = base["text_encoder"]
    fc1 = next(name for name, _ in encoder.named_modules() if name.endswith("encoder.layers.0.mlp.fc1"))
    text = loha(fc1, tuple(encoder.get_submodule(fc1).weight.shape), False)
    cases = [lokr(CONV, found[CONV], True, "whole"), oft(WIDE, found[WIDE], 0.0), norm(NORM, found[NORM])]
    tensors = {f"{kohya(case.layer)}.{end}": tensor for case in cases for end, tensor in case.tensors.items()}
    name = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    tensors |= {f"{name}.{end}": tensor for end, tensor in text.tensors.items()}
    view = opened(put(tmp_path / "x.safetensors", tensors), 0.5)
    with torch.inference_mode(False):
        merged = {part: copy.deepcopy(base[part]) for part in ("unet", "text_encoder")}
        for part, case in [("unet", one) for one in cases] + [("text_encoder", text)]:
            layer = merged[part].get_submodule(case.layer)
            for kind, merge in (("weight", case.weight), ("bias", case.bias)):
                if merge is not None:
                    parameter = getattr(layer, kind)
                    parameter.data = merge(parameter.data.double(), 0.5).float()
    by_hand = base.with_changes(modules=merged)

    def paint(model: PipelineComponents) -> torch.Tensor:
        runtime = Runtime(PlainOffload(capacity=capacity), SilentMonitor())
        ENCODED.clear()
        prompt = encode_prompt(model, "a red cat", "ugly", syntax="compel", runtime=runtime)
        return text_to_image(model, prompt, TextToImageSettings(64, 64, 1, 3, 5.0, 3), runtime).samples

    plain, wanted = paint(base), paint(by_hand)
    first, again = paint(view), paint(view)
    assert (wanted - plain).abs().max() > 0.05, "a change without an effect proves nothing"
    assert torch.allclose(first, wanted, atol=1e-4 * float(wanted.abs().max()))
    assert torch.equal(first, again)
    assert torch.equal(paint(base), plain)


# --- the layer that reads the latents


@pytest.mark.parametrize("kind", ["LoRA", "LoHa", "LoKr", "difference"])
def test_an_input_layer_of_other_channels_is_skipped_with_a_word(kind: str, tmp_path: Path) -> None:
    model = load("sd15")
    shape = tuple(model["unet"].conv_in.weight.shape)
    other = (shape[0], shape[1] + 5, *shape[2:])
    made = {"LoRA": low_rank, "LoHa": lambda *a: loha(*a, False), "LoKr": lambda *a: lokr(*a, True, "flat")}
    wide = made.get(kind, lambda *a: difference(*a, True))("conv_in", other)
    beside = loha(LINEAR, shapes()[LINEAR], False)
    view = opened(file_of(tmp_path, wide, beside))
    assert view.loras[0].weights.notes == (
        "The LoRA's conv_in is for 9 channels and the model's reads 4, so this layer of the LoRA is not used.",
    )
    assert_changed(view, by_hand(view, beside, 1.0))
    with pytest.raises(RelayError, match=r"^lora: my lora does not fit sd15 .*its only layer, lora_unet_conv_in"):
        opened(file_of(tmp_path, wide))
    for wrong in ((shape[0] + 1, *other[1:]), (*other[:2], 5, 5)):
        with pytest.raises(RelayError, match=r"does not fit sd15 .*: lora_unet_conv_in is for a layer of shape"):
            opened(file_of(tmp_path, low_rank("conv_in", wrong), beside))


# --- refused


def with_one(end: str, tensor: torch.Tensor | None, make: Callable[[], Case]) -> Case:
    case = make()
    tensors = {key: value for key, value in case.tensors.items() if key != end}
    return Case(case.layer, tensors if tensor is None else {**tensors, end: tensor}, None)


REFUSED: dict[str, tuple[Callable[[], Case], str]] = {
    "half a LoHa": (lambda: with_one("hada_w2_b", None, lambda: loha(LINEAR, shapes()[LINEAR], False)), "has no hada_w2_b weights for 1 of its 1 layers, such as .*The file is incomplete"),
    "one core": (lambda: with_one("hada_t1", None, lambda: loha(CONV, shapes()[CONV], True)), "has no hada_t1 weights"),
    "half a LoKr": (lambda: with_one("lokr_w1", None, lambda: lokr(LINEAR, shapes()[LINEAR], True, "flat")), "has no lokr_w1 weights"),
    "half a factor": (lambda: with_one("lokr_w2_b", None, lambda: lokr(LINEAR, shapes()[LINEAR], True, "flat")), "has no lokr_w2_b weights"),
    "whole and factors": (lambda: with_one("lokr_w2", torch.ones(8, 8), lambda: lokr(LINEAR, shapes()[LINEAR], True, "flat")), "has both lokr_w2 and lokr_w2_a weights"),
    "two kinds": (lambda: with_one("diff", torch.ones(32, 32), lambda: loha(LINEAR, shapes()[LINEAR], False)), "has the weights of several kinds: LoHa and full difference"),
    "DoRA of a difference": (lambda: with_one("dora_scale", torch.ones(32, 1), lambda: difference(LINEAR, shapes()[LINEAR], False)), "has dora_scale weights, which a layer of kind full difference has not"),
    "rank": (lambda: with_one("hada_w2_b", torch.ones(5, 32), lambda: loha(LINEAR, shapes()[LINEAR], False)), "has different ranks: 4 and 5"),
    "other inputs": (lambda: loha(LINEAR, (32, 64), False), r"does not fit sd15 .*is for a layer of shape \[32, 64\], but the model's has \[32, 32\]. Use a LoRA that was trained"),
    "other outputs of a LoKr": (lambda: lokr(LINEAR, (64, 32), True, "whole"), r"is for a layer of shape \[64, 32\]"),
    "other outputs of an OFT": (lambda: oft(LINEAR, (64, 32), 0.0), r"is for a layer of shape \[64, 32\]"),
    "BOFT": (lambda: Case(LINEAR, {"oft_blocks": torch.ones(2, 4, 8, 8)}, None), "is a BOFT, which Load LoRA .Diffusers. can't load. Use a plain LoRA"),
    "LoRA of a norm": (lambda: low_rank(NORM, (32, 32)), r"is for a layer of shape \[32, 32\], but the model's has \[32\]"),
    "norm of a matrix": (lambda: norm(LINEAR, (32,)), r"is for a layer of shape \[32\], but the model's has \[32, 32\]"),
    "a bias too much": (lambda: bias_alone(LINEAR, (32,)), "changes biases, but the model's layer has none"),
    "a bias of another size": (lambda: bias_alone(CONV, (7,)), "changes 7 biases, but the model's layer has"),
    "burnt": (lambda: with_one("hada_w1_a", torch.full((32, 4), torch.nan), lambda: loha(LINEAR, shapes()[LINEAR], False)), "NaN or infinite values in its hada_w1_a weights: the training"),
    "no matrix": (lambda: with_one("hada_w1_a", torch.ones(4), lambda: loha(LINEAR, shapes()[LINEAR], False)), "of the wrong shapes"),
    "no blocks": (lambda: Case(LINEAR, {"oft_blocks": torch.ones(4, 8, 7)}, None), "has oft_blocks of the wrong shape"),
    "factors of another number": (lambda: with_one("rescale", torch.ones(5), lambda: oft(LINEAR, shapes()[LINEAR], 0.0)), "has 5 rescale factors"),
    "lengths of another number": (lambda: with_one("dora_scale", torch.ones(5, 1), lambda: loha(LINEAR, shapes()[LINEAR], False)), "with 5 values, but the layer has 32 outputs"),
    "PEFT's OFT": (lambda: Case(LINEAR, {"oft_R.weight": torch.ones(4, 28)}, None), "is an OFT or BOFT of PEFT, whose settings are in another file"),
    "whole numbers": (lambda: with_one("hada_w1_a", torch.ones(32, 4, dtype=torch.int8), lambda: loha(LINEAR, shapes()[LINEAR], False)), "of type int8"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_used_is_refused(name: str, tmp_path: Path) -> None:
    make, words = REFUSED[name]
    with pytest.raises(RelayError, match=words) as caught:
        opened(file_of(tmp_path, make()))
    assert str(caught.value).startswith("lora: my lora")
    assert len(str(caught.value)) < 400


def test_one_layer_under_two_names(tmp_path: Path) -> None:
    case = loha(LINEAR, shapes()[LINEAR], False)
    names = (kohya(LINEAR), f"unet.{LINEAR}")
    tensors = {f"{name}.{end}": tensor.clone() for name in names for end, tensor in case.tensors.items()}
    with pytest.raises(RelayError, match="twice, under two names"):
        opened(put(tmp_path / "x.safetensors", tensors))


def test_metadata_of_a_lora_on_a_loha(tmp_path: Path) -> None:
    case = loha(LINEAR, shapes()[LINEAR], False)
    tensors = {f"unet.{LINEAR}.{end}": tensor for end, tensor in case.tensors.items()}
    path = put(tmp_path / "x.safetensors", tensors, {"lora_adapter_metadata": '{"unet.r": 4, "unet.lora_alpha": 4}'})
    with pytest.raises(RelayError, match=r"contradicts itself: by its metadata it is a LoRA, but .* is a LoHa"):
        opened(path)
