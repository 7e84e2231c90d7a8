"""Recognises the files that people put into models folders by keys that only one kind of file has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

WRAPPERS = (
    *("module.", "state_dict.", "params_ema.", "params.", "model.diffusion_model.", "diffusion_model.", "net."),
    *("transformer.", "model.", "model."),
)
"""Prefixes that programs put before the keys of a denoiser."""


@dataclass(frozen=True)
class Sign:
    """Keys that only one kind of file has. Each of ``keys`` is the start of a key, the end of one if it begins with ``*``, or a
    part of one if it also ends with ``*``."""

    what: str
    keys: tuple[str, ...]
    advice: str = ""


IN_LORAS = "Put it into models/loras and load it with Load LoRA (Diffusers)."
NO_PLAIN_LORA = "Load LoRA (Diffusers) can't load this format: use a plain LoRA."
IN_CONTROLNET = "Put it into models/controlnet and load it with Load ControlNet (Diffusers)."
IN_EMBEDDINGS = "Put it into models/embeddings and load it with Load Textual Inversion."
IN_VAE = "Put it into models/vae and choose it as vae_file in Set VAE."
IN_DIFFUSION_MODELS = "Put it into models/diffusion_models and load it with Load Diffusers Model."
FULL_WEIGHTS = "Use the float16 file of the same model."
QUANTISED = (
    Sign("8-bit", ("*.scale_weight",)),
    Sign("8-bit", ("scaled_fp8",)),
    Sign("8-bit or 4-bit", ("*.weight_scale",)),
    Sign("8-bit or 4-bit", ("*.comfy_quant",)),
    Sign("8-bit", ("*.input_scale",)),
    Sign("4-bit (bitsandbytes)", ("*.absmax",)),
    Sign("4-bit (bitsandbytes)", ("*.quant_map",)),
    Sign("4-bit", ("*.qweight",)),
)
"""Tensors that are stored with quantised weights."""
ADAPTERS = (
    Sign("a LoHa (LyCORIS)", ("*.hada_w1_a",), IN_LORAS),
    Sign("a LoKr (LyCORIS)", ("*.lokr_w1",), IN_LORAS),
    Sign("a LoKr (LyCORIS)", ("*.lokr_w1_a",), IN_LORAS),
    Sign("an OFT or BOFT (kohya, LyCORIS)", ("*.oft_blocks",), IN_LORAS),
    Sign("an OFT or BOFT (LyCORIS)", ("*.oft_diag",), NO_PLAIN_LORA),
    Sign("a GLoRA (LyCORIS)", ("*.a1.weight", "*.b1.weight"), NO_PLAIN_LORA),
    Sign("a ControlLLLite", ("lllite_unet_",)),
    Sign("a LoRA", ("lora_unet_",), IN_LORAS),
    Sign("a LoRA", ("lora_te",), IN_LORAS),
    Sign("a LoRA", ("*.lora_down.weight",), IN_LORAS),
    Sign("a LoRA", ("*.lora_A.weight",), IN_LORAS),
    Sign("a LoRA", ("*.lora.down.weight",), IN_LORAS),
    Sign("a LoRA", ("*.lora_A.default.weight",), IN_LORAS),
    Sign("an AnimateDiff LoRA", ("*_lora.down.weight", "down_blocks.0.motion_modules.")),
    Sign("a PhotoMaker file", ("id_encoder.",)),
    Sign("a LoRA", ("*_lora.down.weight",), IN_LORAS),
    Sign("an OFT or BOFT (PEFT)", ("*.oft_R.weight",), NO_PLAIN_LORA),
    Sign("a Control-LoRA", ("lora_controlnet",)),
    Sign("a ControlNet", ("control_model.",), IN_CONTROLNET),
    Sign("a ControlNet", ("controlnet_cond_embedding.",), IN_CONTROLNET),
    Sign("a ControlNet", ("zero_convs.",), IN_CONTROLNET),
    Sign("a ControlNet for a transformer model", ("controlnet_blocks.",)),
    Sign("a T2I-Adapter", ("adapter.body.",)),
    Sign("a T2I-Adapter", ("body.0.resnets.",)),
    Sign("an IP-Adapter", ("ip_adapter.",)),
    Sign("an IP-Adapter", ("image_proj.",)),
    Sign("an IP-Adapter", ("ip_adapter_proj_model.",)),
    Sign("a PuLID file", ("pulid_encoder.",)),
    Sign("a PuLID file", ("id_adapter.",)),
    Sign("a BrushNet", ("brushnet_down_blocks.",)),
    Sign("a GLIGEN", ("position_net.",)),
    Sign("an AnimateDiff motion module", ("*.temporal_transformer.norm.weight",)),
    Sign("an AnimateDiff motion module", ("down_blocks.0.motion_modules.",)),
    Sign("a textual inversion", ("emb_params",), IN_EMBEDDINGS),
    Sign("a textual inversion", ("clip_g", "clip_l"), IN_EMBEDDINGS),
)
LONE_UNETS = (
    Sign(
        "only a UNet, in diffusers' layout", ("down_blocks.", "time_embedding.", "conv_norm_out."), IN_DIFFUSION_MODELS
    ),
    Sign("only a UNet", ("input_blocks.", "output_blocks.", "time_embed."), IN_DIFFUSION_MODELS),
)
DENOISERS = (
    Sign("a Stable Diffusion 3.5 large", ("joint_blocks.37.",)),
    Sign("a Stable Diffusion 3", ("joint_blocks.",)),
    Sign("a Flux.2", ("double_stream_modulation_img.",)),
    Sign("a Chroma", ("distilled_guidance_layer.",)),
    Sign("a HunyuanVideo", ("txt_in.individual_token_refiner.",)),
    Sign("a HunyuanImage", ("byt5_in.", "double_blocks.")),
    Sign("a Hunyuan3D", ("latent_in.", "double_blocks.")),
    Sign("a Flux", ("double_blocks.", "single_blocks.")),
    Sign("a Flux (diffusers layout)", ("single_transformer_blocks.", "transformer_blocks.", "x_embedder.")),
    Sign("an AuraFlow", ("double_layers.", "cond_seq_linear.")),
    Sign("a Stable Cascade, stage C", ("clip_txt_mapper.",)),
    Sign("a Stable Cascade, stage B", ("down_blocks.1.0.channelwise.",)),
    Sign("a HunyuanDiT", ("mlp_t5.", "text_embedding_padding")),
    Sign("a PixArt", ("t_block.", "y_embedder.y_embedding")),
    Sign("a PixArt (diffusers layout)", ("adaln_single.", "caption_projection.", "pos_embed.proj.")),
    Sign("a Sana", ("*.cross_attn.kv_linear.weight",)),
    Sign("an LTX-Video", ("patchify_proj.", "transformer_blocks.")),
    Sign("a Mochi", ("blocks.0.attn.qkv_x.",)),
    Sign("a HiDream", ("double_stream_blocks.",)),
    Sign("a Lumina 2 or Z-Image", ("cap_embedder.", "layers.")),
    Sign("a Cosmos", ("x_embedder.proj.1.weight", "blocks.")),
    Sign("a Wan", ("head.modulation", "patch_embedding.")),
    Sign("a Wan (diffusers layout)", ("condition_embedder.", "patch_embedding.")),
    Sign("a Stable Diffusion 3 (diffusers layout)", ("context_embedder.", "pos_embed.proj.", "transformer_blocks.")),
    Sign("an OmniGen2", ("noise_refiner.", "time_caption_embed.")),
    Sign("a Kandinsky 5", ("visual_transformer_blocks.",)),
    Sign("a Qwen-Image", ("txt_norm.", "transformer_blocks.")),
    Sign("a Kandinsky prior", ("prd_embedding",)),
    Sign("a DeepFloyd IF UNet", ("down_blocks.", "encoder_hid_proj.", "add_embedding.pool.")),
    Sign("a Kandinsky UNet", ("down_blocks.", "encoder_hid_proj.image_embeds.")),
    *LONE_UNETS,
)
UNET_VARIANTS = (
    Sign("a Stable Video Diffusion model", ("*.time_stack.*",)),
    Sign("a Stable Diffusion 2.1 unCLIP model", ("embedder.model.visual.",)),
    Sign("a Zero123 model", ("cc_projection.",)),
    Sign("an AltDiffusion model", ("cond_stage_model.roberta.",)),
)
"""Checkpoints with a UNet in the original layout that no pipeline of the pack can run."""
ALONE = (
    Sign("a whole CLIP model, with its text and image encoders", ("text_model.encoder.layers.", "vision_model.")),
    Sign("only a text encoder", ("text_model.encoder.layers.",)),
    Sign("only a text encoder", ("transformer.resblocks.",)),
    Sign("only a T5 text encoder", ("encoder.block.0.layer.0.SelfAttention.",)),
    Sign("a CLIP image encoder", ("vision_model.",)),
    Sign("a language model, which newer models use as a text encoder", ("embed_tokens.", "layers.0.self_attn.")),
    Sign("a video VAE", ("decoder.middle.0.residual.0.gamma",)),
    Sign("a video VAE", ("decoder.conv_in.conv.",)),
    Sign("a video VAE", ("decoder.time_conv_out.",)),
    Sign("the VAE of a VQ model", ("decoder.conv_in.", "quantize.embedding.")),
    Sign("an asymmetric VAE, which also reads a mask", ("decoder.condition_encoder.",)),
    Sign("only a VAE", ("decoder.conv_in.", "decoder.conv_out."), IN_VAE),
    Sign("only a VAE", ("first_stage_model.decoder.",), IN_VAE),
    Sign("only the decoder of a VAE", ("decoder.conv_in.",)),
    Sign("only the encoder of a VAE", ("encoder.conv_in.", "encoder.conv_out.")),
    Sign("a small preview VAE (TAESD)", ("decoder.layers.",)),
    Sign("an image upscaler (ESRGAN or similar)", ("model.0.weight", "model.1.sub.")),
    Sign("an image upscaler (ESRGAN or similar)", ("body.0.rdb1.",)),
    Sign("an image upscaler (ESRGAN or similar)", ("body.0.weight", "body.1.weight", "body.2.weight")),
    Sign("an image upscaler (SwinIR, DAT or similar)", ("conv_first.", "layers.0.")),
    Sign("a small preview VAE (TAESD)", ("taesd_decoder.",)),
    Sign("a depth estimator", ("depth_head.",)),
    Sign("a Segment Anything model", ("mask_decoder.", "image_encoder.")),
)
PARTS_OF_VAE = ("only a VAE", "only the decoder of a VAE", "only the encoder of a VAE")
"""What :data:`ALONE` says of a VAE file or half of one."""
FIRST_OF_VAE = "decoder.conv_in.weight"
LATENT_CHANNELS = {
    4: "",
    16: " with 16 latent channels (SD3, Flux, Qwen-Image and others)",
    32: " with 32 latent channels (Flux.2, Sana)",
}


def shows(sign: Sign, keys: Iterable[str]) -> bool:
    """Whether a file with these ``keys`` is what ``sign`` describes."""
    return all(any(_matches(key, part) for key in keys) for part in sign.keys)


def _matches(key: str, part: str) -> bool:
    if not part.startswith("*"):
        return key.startswith(part)
    return part[1:-1] in key if part.endswith("*") else key.endswith(part[1:])


def what_it_is(
    shapes: Mapping[str, tuple[int, ...]], signs: Sequence[Sign] = (*ADAPTERS, *DENOISERS, *ALONE)
) -> Sign | None:
    """What a file with tensors of these shapes is, with or without a prefix before its keys; None if no sign matches."""
    keys = {*shapes, *map(unwrapped, shapes)}
    sign = next((sign for sign in signs if shows(sign, keys)), None)
    if sign is not None and sign.advice == IN_VAE:
        channels = next(
            (shape[1] for key, shape in shapes.items() if key.endswith(FIRST_OF_VAE) and len(shape) == 4), 4
        )
        if channels != 4:
            return Sign(f"a VAE{LATENT_CHANNELS.get(channels, f' with {channels} latent channels')}", sign.keys)
    return sign


def quantised(keys: Iterable[str]) -> str | None:
    """The bits of the weights, e.g. "8-bit", if ``keys`` include those of quantised weights; otherwise None."""
    keys = list(keys)
    return next((sign.what for sign in QUANTISED if shows(sign, keys)), None)


def unwrapped(key: str) -> str:
    """The key without the prefixes of :data:`WRAPPERS`."""
    for wrapper in WRAPPERS:
        key = key.removeprefix(wrapper)
    return key
