"""IP-Adapter files and image encoders: what is loaded, what is refused and called by its name, and what the hub loader fetches."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionModelWithProjection

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.loading.image_encoder import KINDS, EncoderKind, load_image_encoder_file
from diffusers_relay.pipelines.loading.ip_adapter import load_ip_adapter, read_kind
from diffusers_relay.pipelines.loading.ip_adapter_hub import load_ip_adapter_from_hub
from relay_dev.hub_cache import HUB_IP_ADAPTERS
from relay_dev.model_folders import SmallModels
from relay_host.fake_hub import FakeHub, FakeRepo
from small_models.ip_adapters import face_id_adapter, plus_adapter
from support.without_host import ListeningMonitor

PLAIN = "models/ip-adapter_sd15.safetensors"
SDXL_PLUS = "sdxl_models/ip-adapter-plus_sdxl_vit-h.safetensors"


@pytest.fixture(scope="module")
def unet(models: SmallModels) -> Any:
    return UNet2DConditionModel.from_pretrained(models.named["sd15"], subfolder="unet")


@pytest.fixture
def plain(models: SmallModels) -> dict[str, torch.Tensor]:
    return load_file(models.models / "ipadapter" / PLAIN)


def without(tensors: dict[str, torch.Tensor], *names: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in tensors.items() if key not in names}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda unet, plain: face_id_adapter(unet, 5), "x is an IP-Adapter FaceID. It reads a face embedding of insig"),
        (
            lambda unet, plain: plain | {"ip_adapter.0.to_q_lora.down.weight": torch.ones(2, 2)},
            "x is an IP-Adapter FaceID",
        ),
        (lambda unet, plain: plus_adapter(unet, 5, vision=512), "x is the IP-Adapter of InstantID"),
        (
            lambda unet, plain: {"lora_unet_a.lora_down.weight": torch.ones(2, 2)},
            "x is not an IP-Adapter .* a LoRA. Put it",
        ),
        (lambda unet, plain: {"a": torch.ones(2)}, "x is not an IP-Adapter .* neither image_proj"),
        (lambda unet, plain: without(plain, "image_proj.proj.weight"), "of a kind that diffusers does not load"),
        (
            lambda unet, plain: without(plain, "image_proj.norm.bias"),
            "tensors of its image_proj are not those of an IP-Ad",
        ),
        (lambda unet, plain: plain | {"image_proj.more": torch.ones(2)}, "tensors of its image_proj are not those"),
        (
            lambda unet, plain: plain | {"ip_adapter.1.more": torch.ones(2)},
            "has a tensor ip_adapter.1.more, which no IP",
        ),
        (
            lambda unet, plain: plain | {"ip_adapter.1.to_k_ip.weight": torch.ones(32, 7)},
            r"ip_adapter.1.to_k_ip.weight has shape \[32, 7\], but its second number must be 32",
        ),
        (
            lambda unet, plain: {key: value for key, value in plain.items() if key.startswith("image")},
            "has no attention layers",
        ),
        (
            lambda unet, plain: plain | {"ip_adapter.1.to_k_ip.weight": torch.ones(32, 32, dtype=torch.int8)},
            "has dtype I8, so its weights are quantised",
        ),
    ],
)
def test_another_file_is_refused_and_named(change: Any, says: str, unet: Any, plain: Any, tmp_path: Path) -> None:
    save_file(change(unet, plain), tmp_path / "x.safetensors")
    with pytest.raises(RelayError, match=says):
        read_kind(tmp_path / "x.safetensors", "x")


def test_a_pickle_is_refused(models: SmallModels, tmp_path: Path) -> None:
    pickled = models.models / "ipadapter" / "pickled.bin"
    with pytest.raises(RelayError, match=r"pickled.bin is not a .safetensors file. A pickle can run any code"):
        read_kind(pickled, "pickled.bin")
    shutil.copy(pickled, tmp_path / "x.safetensors")
    with pytest.raises(RelayError, match="x is a pickle with another suffix"):
        read_kind(tmp_path / "x.safetensors", "x")


def load(models: SmallModels, file: str, encoder: Path) -> Any:
    path = models.models / "ipadapter" / file
    return load_ip_adapter(path, encoder, torch.float32, source=file, encoder_source=encoder.name)


@pytest.mark.parametrize(
    ("file", "encoder", "says"),
    [
        (
            PLAIN,
            "small_vit_g",
            "small_vit_g is not the one for models/ip-adapter_sd15.* one with embeddings of 24; this one has 40",
        ),
        (
            SDXL_PLUS,
            "small_vit_g",
            "needs one whose layers are 32 wide; this one has 48. Choose the other image encoder",
        ),
    ],
)
def test_the_other_image_encoder_is_refused(models: SmallModels, file: str, encoder: str, says: str) -> None:
    with pytest.raises(RelayError, match=f"image_encoder: .*{says}"):
        load(models, file, models.models / "clip_vision" / encoder)


def test_a_folder_that_is_no_image_encoder_is_refused(models: SmallModels, tmp_path: Path) -> None:
    with pytest.raises(RelayError, match=r"image_encoder: sd15 lacks config.json"):
        load(models, PLAIN, models.named["sd15"])
    with pytest.raises(RelayError, match="image_encoder: text_encoder"):
        load(models, PLAIN, models.named["sd15"] / "text_encoder")


# --- an image encoder in one file

SMALL = {32: EncoderKind("small", 2, "gelu")}


@pytest.fixture
def whole_clip(models: SmallModels, tmp_path: Path) -> Path:
    """As ComfyUI's users have it: transformers' names with vision_model., here of a whole CLIP model, with its text half."""
    tensors = load_file(models.models / "clip_vision" / "small_vit_h" / "model.safetensors")
    named = {
        key if key.startswith(("vision_model.", "visual_")) else f"vision_model.{key}": v for key, v in tensors.items()
    }
    named |= {"text_model.encoder.layers.0.layer_norm1.weight": torch.ones(4), "logit_scale": torch.ones(())}
    named["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    save_file(named, tmp_path / "CLIP-ViT-H.safetensors")
    return tmp_path / "CLIP-ViT-H.safetensors"


def test_a_file_gives_what_the_folder_gives(models: SmallModels, whole_clip: Path) -> None:
    folder = models.models / "clip_vision" / "small_vit_h"
    expected = CLIPVisionModelWithProjection.from_pretrained(folder)
    found = load_image_encoder_file(whole_clip, torch.float32, "x", SMALL)
    pixels = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert torch.equal(found(pixels).image_embeds, expected(pixels).image_embeds)
    ours, theirs = (module.config.to_dict() for module in (found, expected))
    for name in ("hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "image_size", "patch_size"):
        assert ours[name] == theirs[name], name
    assert load_image_encoder_file(whole_clip, torch.float32, "x", SMALL) is found, "in memory once"


def as_open_clip(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """transformers' tensors under OpenCLIP's names, with a tensor of its text encoder."""
    names = {
        "vision_model.embeddings.class_embedding": "class_embedding",
        "vision_model.embeddings.patch_embedding.": "conv1.",
        "vision_model.embeddings.position_embedding.weight": "positional_embedding",
        "vision_model.pre_layrnorm.": "ln_pre.",
        "vision_model.post_layernorm.": "ln_post.",
        "vision_model.encoder.layers.": "transformer.resblocks.",
        ".layer_norm": ".ln_",
        ".mlp.fc1.": ".mlp.c_fc.",
        ".mlp.fc2.": ".mlp.c_proj.",
        ".self_attn.": ".attn.",
    }
    made: dict[str, torch.Tensor] = {"transformer.resblocks.0.ln_1.weight": torch.ones(4)}
    joined: dict[str, list[torch.Tensor]] = {}
    for key in sorted(tensors, key=lambda key: ("qkv".find(key.split("_proj.")[0][-1]), key)):
        name, tensor = key, tensors[key]
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        if key == "visual_projection.weight":
            made["visual.proj"] = tensor.T.contiguous()
        elif match := re.fullmatch(r"(.*attn)\.[qkv]_proj\.(.*)", name):
            joined.setdefault(f"visual.{match[1]}.in_proj_{match[2]}", []).append(tensor)
        elif key.startswith("vision_model.") and not key.endswith("position_ids"):
            made[f"visual.{name}"] = tensor
    return made | {key: torch.cat(parts) for key, parts in joined.items()}


def test_a_file_with_the_names_of_open_clip(models: SmallModels, whole_clip: Path, tmp_path: Path) -> None:
    save_file(as_open_clip(load_file(whole_clip)), tmp_path / "open_clip.safetensors")
    expected = CLIPVisionModelWithProjection.from_pretrained(models.models / "clip_vision" / "small_vit_h")
    found = load_image_encoder_file(tmp_path / "open_clip.safetensors", torch.float32, "x", SMALL)
    theirs = expected.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in found.state_dict().items())
    pixels = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert torch.allclose(found(pixels).image_embeds, expected(pixels).image_embeds, atol=1e-6)


def test_the_kinds_are_the_published_ones() -> None:
    """Width, heads and activation of openai/clip-vit-base-patch32 and -large-patch14, and of LAION's ViT-H-14 and ViT-bigG-14."""
    assert {width: (kind.heads, kind.activation) for width, kind in KINDS.items()} == {
        768: (12, "quick_gelu"),
        1024: (16, "quick_gelu"),
        1280: (16, "gelu"),
        1664: (16, "gelu"),
    }


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda found: {"visual.conv1.weight": torch.ones(2, 3, 2, 2)}, "x lacks vision_model.embeddings.position_emb"),
        (lambda found: {"lora_unet_a.lora_down.weight": torch.ones(2, 2)}, "x is not a CLIP .* It is a LoRA"),
        (lambda found: without(found, "visual_projection.weight"), "x lacks visual_projection.weight"),
        (lambda found: found, r"of an unknown kind: its layers are 32 wide and it has 17 positions. .*ViT-H \(1280\)"),
        (lambda found: found | {"a.scale_weight": torch.ones(1)}, "x has 8-bit weights"),
    ],
)
def test_another_file_is_no_image_encoder(change: Any, says: str, whole_clip: Path) -> None:
    save_file(change(load_file(whole_clip)), whole_clip)
    with pytest.raises(RelayError, match=says):
        load_image_encoder_file(whole_clip, torch.float32, "x")


def test_an_encoder_with_missing_layers_is_refused(whole_clip: Path) -> None:
    found = load_file(whole_clip)
    key = next(key for key in found if key.endswith("layers.1.mlp.fc2.weight"))
    save_file(without(found, key), whole_clip)
    with pytest.raises(RelayError, match="x: the weights of its image_encoder"):
        load_image_encoder_file(whole_clip, torch.float32, "x", SMALL)


# --- the hub

REPO = "someone/IP-Adapter"


@pytest.fixture
def fake(models: SmallModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A fake hub with a repository of the layout of h94/IP-Adapter, and an empty cache."""
    folder = tmp_path / "repo"
    shutil.copytree(models.models / "ipadapter", folder)
    for part, name in (("models", "small_vit_h"), ("sdxl_models", "small_vit_g")):
        shutil.copytree(models.models / "clip_vision" / name, folder / part / "image_encoder")
    with FakeHub() as server:
        server.repos[REPO] = FakeRepo.of_folder(
            folder, **{"README.md": b"#", "models/image_encoder/pytorch_model.bin": b""}
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        (tmp_path / "hub").mkdir()
        yield server


def from_hub(file: str, repo: str = REPO) -> tuple[Any, ListeningMonitor]:
    monitor = ListeningMonitor()
    return load_ip_adapter_from_hub(repo, file, dtype=torch.float32, monitor=monitor), monitor


@pytest.mark.parametrize(
    ("file", "folder"),
    [(PLAIN, "models"), ("sdxl_models/ip-adapter_sdxl.safetensors", "sdxl_models"), (SDXL_PLUS, "models")],
)
def test_the_file_and_the_encoder_that_fits_are_fetched(
    fake: FakeHub, models: SmallModels, file: str, folder: str
) -> None:
    found, _ = from_hub(file)
    configs = {f"{part}/image_encoder/config.json" for part in ("models", "sdxl_models")}
    assert fake.fetched() == {file, *configs, f"{folder}/image_encoder/model.safetensors"}
    local = load(models, file, models.models / "clip_vision" / ("small_vit_h" if folder == "models" else "small_vit_g"))
    theirs = dict(local.weights.named_parameters())
    assert all(torch.equal(value, theirs[name]) for name, value in found.weights.named_parameters())
    assert found.encoder.config.hidden_size == local.encoder.config.hidden_size
    assert found.title == f"{REPO}: {file}"


def test_a_copy_in_the_cache_serves_where_there_is_no_hub(fake: FakeHub) -> None:
    first, _ = from_hub(SDXL_PLUS)
    del fake.repos[REPO]
    second, monitor = from_hub(SDXL_PLUS)
    assert (second.weights, second.encoder) == (first.weights, first.encoder)
    assert "Using the copy in this machine's cache" in monitor.said[0]


def test_what_the_repository_lacks_is_named(fake: FakeHub) -> None:
    with pytest.raises(RelayError, match=f"{REPO} has no models/nothing.safetensors. It has: .*{re.escape(PLAIN)}"):
        from_hub("models/nothing.safetensors")
    with pytest.raises(RelayError, match=r"file: models/x.bin is not a .safetensors file. A pickle can run"):
        from_hub("models/x.bin")
    with pytest.raises(
        RelayError, match=r"has no nothing/image_encoder/config.json, so it does not have the layout of h94"
    ):
        from_hub("nothing/x.safetensors")
    fake.repos[REPO].commit, files = "b" * 40, fake.repos[REPO].files
    for part in ("models", "sdxl_models"):
        config = json.loads(files[f"{part}/image_encoder/config.json"])
        files[f"{part}/image_encoder/config.json"] = json.dumps({**config, "projection_dim": 11}).encode()
    with pytest.raises(
        RelayError, match=r"needs one with embeddings of 24, but the repository only has: models.* \(11\)"
    ):
        from_hub(PLAIN)


@pytest.mark.parametrize("repo_id", HUB_IP_ADAPTERS)
def test_the_published_ids_are_in_the_test_cache(
    models: SmallModels, monkeypatch: pytest.MonkeyPatch, repo_id: str
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(models.hub_cache))
    found, _ = from_hub(PLAIN, repo_id)
    assert all(float(value.abs().max()) > 0 for value in found.weights.parameters())
