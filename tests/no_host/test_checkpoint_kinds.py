"""Recognises a file only from the keys and shapes in its header."""

from __future__ import annotations

import pytest

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.files.safetensors import Header
from diffusers_relay.pipelines.loading.checkpoint_kinds import layout_of
from diffusers_relay.pipelines.loading.checkpoint_place import placed

UNET = "model.diffusion_model."
FIRST = UNET + "input_blocks.0.0.weight"
LABEL = UNET + "label_emb.0.0.weight"
VAE = "first_stage_model.decoder.conv_in.weight"
CLIP = "cond_stage_model.transformer.text_model.final_layer_norm.bias"
EARLY_CLIP = "cond_stage_model.transformer.final_layer_norm.bias"
OPEN_CLIP = "cond_stage_model.model.ln_final.bias"
SDXL_CLIP = "conditioner.embedders.0.transformer.text_model.final_layer_norm.bias"
SDXL_OPEN_CLIP = "conditioner.embedders.1.model.ln_final.bias"
REFINER_OPEN_CLIP = "conditioner.embedders.0.model.ln_final.bias"


def header(*keys: str, channels: int = 4) -> Header:
    return Header({key: (320, channels, 3, 3) if key == FIRST else (1,) for key in keys}, {})


@pytest.mark.parametrize("channels", [4, 9])
@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ((FIRST, VAE, CLIP), "sd15"),
        ((FIRST, CLIP), "sd15"),
        ((FIRST, LABEL, SDXL_CLIP, SDXL_OPEN_CLIP), "sdxl"),
        ((FIRST, LABEL, VAE, SDXL_CLIP, SDXL_OPEN_CLIP, "edm_mean", "edm_std"), "playground_v2_5"),
        ((FIRST, LABEL, VAE, SDXL_CLIP, SDXL_OPEN_CLIP, "edm_vpred.sigma_max"), "cosxl"),
        ((FIRST, VAE, EARLY_CLIP), "sd15"),
        ((FIRST, VAE, OPEN_CLIP), "sd2"),
        ((FIRST, VAE, REFINER_OPEN_CLIP), "sd2"),
        ((FIRST, LABEL, VAE, SDXL_CLIP, SDXL_OPEN_CLIP), "sdxl"),
        ((FIRST, LABEL, VAE, REFINER_OPEN_CLIP), "sdxl_refiner"),
    ],
)
def test_kinds_that_load(keys: tuple[str, ...], kind: str, channels: int) -> None:
    assert layout_of(header(*keys, channels=channels), "file").configs == kind


SD15 = (FIRST, VAE, CLIP)
SDXL = (FIRST, LABEL, VAE, SDXL_CLIP, SDXL_OPEN_CLIP)
OTHERS = {
    "SD3": ((UNET + "joint_blocks.0.context_block.adaLN_modulation.1.bias", VAE), "Stable Diffusion 3,"),
    "SD3.5": (
        ("joint_blocks.0.x_block.mlp.fc1.weight", "joint_blocks.37.x_block.mlp.fc1.weight"),
        "Stable Diffusion 3.5 large",
    ),
    "Flux": ((UNET + "double_blocks.0.img_attn.qkv.weight", UNET + "single_blocks.0.linear1.weight"), "a Flux,"),
    "bare Flux": (("double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight"), "a Flux,"),
    "diffusers Flux": (
        (
            "transformer_blocks.0.ff.net.0.proj.weight",
            "single_transformer_blocks.0.proj_mlp.weight",
            "x_embedder.weight",
        ),
        "Flux",
    ),
    "Flux.2": (("double_blocks.0.x", "single_blocks.0.x", "double_stream_modulation_img.lin.weight"), "Flux.2"),
    "Chroma": (("double_blocks.0.x", "single_blocks.0.x", "distilled_guidance_layer.in_proj.bias"), "Chroma"),
    "AuraFlow": ((UNET + "double_layers.0.attn.w1q.weight", UNET + "cond_seq_linear.weight"), "AuraFlow"),
    "Cascade C": (("clip_txt_mapper.weight", "down_blocks.0.0.channelwise.0.weight"), "Stable Cascade, stage C"),
    "Cascade B": (("down_blocks.1.0.channelwise.0.weight",), "Stable Cascade, stage B"),
    "PixArt": (("t_block.1.weight", "y_embedder.y_embedding", "blocks.0.attn.qkv.weight"), "PixArt"),
    "HunyuanVideo": (("txt_in.individual_token_refiner.blocks.0.x", "double_blocks.0.x"), "HunyuanVideo"),
    "HunyuanDiT": (("mlp_t5.0.weight", "text_embedding_padding"), "HunyuanDiT"),
    "LTX": ((UNET + "patchify_proj.weight", UNET + "transformer_blocks.27.scale_shift_table"), "LTX-Video"),
    "Wan": (("head.modulation", "patch_embedding.weight"), "Wan"),
    "Lumina": ((UNET + "cap_embedder.0.weight", UNET + "layers.0.attention.qkv.weight"), "Lumina"),
    "SVD": ((FIRST, UNET + "input_blocks.1.0.time_stack.in_layers.0.weight", VAE), "Stable Video Diffusion"),
    "unCLIP": ((FIRST, LABEL, VAE, OPEN_CLIP, "embedder.model.visual.proj"), "unCLIP"),
    "fp8": ((*SDXL, "scaled_fp8"), "8-bit"),
    "VAE": (("encoder.conv_in.weight", "decoder.conv_in.weight", "decoder.conv_out.weight"), "only a VAE"),
    "VAE of a checkpoint": (("first_stage_model.encoder.conv_in.weight", VAE), "only a VAE"),
    "kohya LoRA": (("lora_unet_down_blocks_0_attentions_0.lora_down.weight",), "a LoRA"),
    "diffusers LoRA": (("unet.down_blocks.0.attentions.0.to_q.lora_A.weight",), "a LoRA"),
    "old LoRA": (("unet.down_blocks.0.processor.to_q_lora.down.weight", "lora_te_x"), "a LoRA"),
    "LoKr": (
        ("lora_unet_x.lokr_w1",),
        r"a LoKr \(LyCORIS\), not .*Put it into models/loras and load it with Load LoRA",
    ),
    "LoHa": (("lora_unet_x.hada_w1_a",), r"a LoHa \(LyCORIS\), not"),
    "OFT": (("lora_unet_x.oft_blocks",), r"an OFT or BOFT .*Put it into models/loras"),
    "GLoRA": (("lora_unet_x.a1.weight", "lora_unet_x.b1.weight"), "a GLoRA"),
    "LLLite": (("lllite_unet_input_blocks_4_1_x.down.0.weight",), "a ControlLLLite"),
    "Control-LoRA": (("lora_controlnet", "input_hint_block.0.weight"), "Control-LoRA"),
    "ControlNet": (("control_model.time_embed.0.weight",), "a ControlNet"),
    "diffusers ControlNet": (("controlnet_cond_embedding.conv_in.weight", "conv_in.weight"), "a ControlNet"),
    "T2I": (("adapter.body.0.in_conv.weight",), "T2I-Adapter"),
    "IP-Adapter": (("image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"), "IP-Adapter"),
    "AnimateDiff": (("down_blocks.0.motion_modules.0.temporal_transformer.norm.weight",), "AnimateDiff"),
    "embedding": (("emb_params",), "textual inversion"),
    "SDXL embedding": (("clip_g", "clip_l"), "textual inversion"),
    "text encoder": (("text_model.encoder.layers.0.mlp.fc1.bias",), "only a text encoder"),
    "T5": (("encoder.block.0.layer.0.SelfAttention.k.weight",), "T5"),
    "image encoder": (("vision_model.embeddings.class_embedding",), "image encoder"),
    "ESRGAN": (("model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"), "upscaler"),
    "diffusers UNet": (
        ("down_blocks.0.resnets.0.norm1.weight", "time_embedding.linear_1.weight", "conv_norm_out.weight"),
        "a UNet without text encoders, and it is none of the kinds",
    ),
    "only a UNet": (
        (FIRST,),
        r"a UNet without text encoders, and it is none of the kinds .*\(its shapes are unusual\)",
    ),
    "bare UNet": (
        ("input_blocks.0.0.weight", "output_blocks.0.0.weight", "time_embed.0.weight"),
        "a UNet without text encoders, and it is none of the kinds",
    ),
    "a VAE's decoder": (("decoder.conv_in.weight", "decoder.x"), "only the decoder of a VAE"),
    "4 bit": ((*SD15, UNET + "out.2.weight.absmax"), "4-bit"),
    "half a VAE": (
        (FIRST, CLIP, "first_stage_model.encoder.conv_in.weight"),
        "only a part of a VAE, without its decoder",
    ),
    "no text encoder": ((FIRST, VAE), "a UNet without text encoders, and it is none of the kinds"),
    "nothing": ((), "does not know"),
    "one SDXL text encoder": ((FIRST, LABEL, VAE, SDXL_CLIP), "an SDXL UNet with only one of its two text encoders"),
    "averages alone": (
        ("model_ema.diffusion_modelout2weight", VAE, CLIP),
        r"only the averaged \(EMA\) weights of its UNet",
    ),
    "a UNet elsewhere": (
        ("model.diffusion_model.module.out.2.weight", VAE, CLIP),
        "a VAE and a text encoder, but without a known UNet",
    ),
    "fp8 of ComfyUI": ((*SDXL, UNET + "out.2.comfy_quant"), "8-bit or 4-bit weights, .*Use the float16 file"),
    "fp8 with scales of inputs": ((*SD15, UNET + "out.2.input_scale"), "8-bit"),
    "GPTQ": ((*SD15, UNET + "out.2.qweight"), "4-bit"),
    "AltDiffusion": ((FIRST, VAE, "cond_stage_model.roberta.x"), "an AltDiffusion"),
    "LoRA of a peft model": (("base_model.model.unet.x.lora_A.default.weight",), "a LoRA"),
    "OFT of peft": (
        ("base_model.model.unet.x.oft_R.weight",),
        r"an OFT or BOFT \(PEFT\), not .*can't load this format",
    ),
    "PhotoMaker": (("id_encoder.x", "lora_weights.unet.to_k_lora.down.weight"), "a PhotoMaker"),
    "AnimateDiff LoRA": (("down_blocks.0.motion_modules.0.processor.to_q_lora.down.weight",), "an AnimateDiff LoRA"),
    "IP-Adapter of Flux": (("ip_adapter_proj_model.proj.weight", "double_blocks.0.x"), "an IP-Adapter"),
    "PuLID": (("pulid_ca.0.norm1.weight", "pulid_encoder.mapping_0.0.weight"), "a PuLID"),
    "BrushNet": (("brushnet_down_blocks.0.weight", "down_blocks.0.x"), "a BrushNet"),
    "SD3 of diffusers": (("context_embedder.x", "pos_embed.proj.x", "transformer_blocks.0.x"), "a Stable Diffusion 3"),
    "Wan of diffusers": (("condition_embedder.x", "patch_embedding.weight"), "a Wan"),
    "HunyuanVideo, wrapped twice": (
        ("model.model.txt_in.individual_token_refiner.x", "model.model.double_blocks.0.x"),
        "HunyuanVideo",
    ),
    "Hunyuan3D": (("model.double_blocks.0.x", "model.single_blocks.0.x", "model.latent_in.weight"), "a Hunyuan3D"),
    "HunyuanImage": (("byt5_in.fc1.weight", "double_blocks.0.x", "single_blocks.0.x"), "a HunyuanImage"),
    "DeepFloyd IF": (("down_blocks.0.x", "encoder_hid_proj.weight", "add_embedding.pool.x"), "a DeepFloyd IF"),
    "Kandinsky 2.2": (("down_blocks.0.x", "encoder_hid_proj.image_embeds.weight"), "a Kandinsky UNet"),
    "Kolors": (
        ("down_blocks.0.x", "encoder_hid_proj.weight", "time_embedding.linear_1.weight", "conv_norm_out.weight"),
        "a UNet without text encoders, and it is none of the kinds",
    ),
    "Kandinsky 5": (("visual_transformer_blocks.0.x", "text_transformer_blocks.0.x"), "a Kandinsky 5"),
    "whole CLIP": (("text_model.encoder.layers.0.x", "vision_model.x"), "a whole CLIP"),
    "LLM": (("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"), "a language model"),
    "video VAE": (("decoder.conv_in.conv.weight", "decoder.conv_out.conv.weight"), "a video VAE"),
    "VQ model": (("decoder.conv_in.weight", "decoder.conv_out.weight", "quantize.embedding.weight"), "the VAE of a VQ"),
    "TAESD of ComfyUI": (("taesd_decoder.1.weight", "taesd_encoder.0.weight"), "TAESD"),
    "compact upscaler": (("body.0.weight", "body.1.weight", "body.2.weight"), "an image upscaler"),
    "ESRGAN with averages": (("params_ema.body.0.rdb1.conv1.weight",), "an image upscaler"),
    "keys to be seen": (("\x1b[31m\n" + "k" * 5000,), r"it contains \\x1b\[31m\\nk{35}\.\.\.k{32}\)"),
    "unknown": (("some.weight", "other.weight"), r"does not know \(it contains other.weight, some.weight\)"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_kinds_are_refused_by_what_they_are(name: str) -> None:
    keys, words = OTHERS[name]
    with pytest.raises(RelayError, match=f"^some/file .*{words}"):
        layout_of(placed(header(*keys)).header, "some/file")


@pytest.mark.parametrize(
    ("channels", "what"),
    [
        (4, r"only a VAE, not .* choose it as vae_file"),
        (16, "a VAE with 16 latent channels .* not .* RUNS"),
        (8, "a VAE with 8 latent channels"),
    ],
)
def test_a_vae_that_set_vae_refuses_is_not_sent_there(channels: int, what: str) -> None:
    shapes = {"decoder.conv_in.weight": (512, channels, 3, 3), "decoder.conv_out.weight": (3, 128, 3, 3)}
    with pytest.raises(RelayError, match=what.replace("RUNS", "Diffusers Relay loads checkpoints and UNets of")):
        layout_of(Header(shapes, {}), "file")


@pytest.mark.parametrize(
    ("channels", "what"),
    [
        (5, "depth"),
        (7, "x4 upscaler"),
        (8, "an InstructPix2Pix or CosXL Edit, whose UNet also reads the picture to edit, not a checkpoint that"),
        (16, "UNet with 16 input channels"),
    ],
)
@pytest.mark.parametrize("keys", [SD15, SDXL, (*SDXL, "edm_vpred.sigma_max")])
def test_a_unet_that_takes_something_else(keys: tuple[str, ...], channels: int, what: str) -> None:
    with pytest.raises(RelayError, match=what):
        layout_of(header(*keys, channels=channels), "file")
