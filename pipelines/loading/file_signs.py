"""What the files that people put into a models folder are, by keys that only one kind of file has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

WRAPPERS = ("module.", "state_dict.", "model.diffusion_model.", "diffusion_model.", "net.", "transformer.", "model.")
"""What stands before the keys of a denoiser in files of one or another program."""


@dataclass(frozen=True)
class Sign:
    """Keys that only one kind of file has: every one of ``keys`` begins a key of the file, or ends one where it begins with ``*``."""

    what: str
    keys: tuple[str, ...]
    advice: str = ""


IN_LORAS = "Put it into models/loras, and load it with Load LoRA (Diffusers)."
NO_PLAIN_LORA = "Load LoRA (Diffusers) does not load this format: take a plain LoRA."
IN_CONTROLNET = "Put it into models/controlnet, and load it with Load ControlNet (Diffusers)."
IN_EMBEDDINGS = "Put it into models/embeddings, and load it with Load Textual Inversion."
IN_VAE = "Put it into models/vae, and choose it as vae_file in Set VAE."
UNET_ALONE = (
    "Diffusers Relay can't load one by itself: take the whole checkpoint, with UNet, VAE and text encoder in one file, or a diffusers "
    "folder of the model."
)
ADAPTERS = (
    Sign("a LoHa (LyCORIS)", ("*.hada_w1_a",), NO_PLAIN_LORA),
    Sign("a LoKr (LyCORIS)", ("*.lokr_w1",), NO_PLAIN_LORA),
    Sign("a LoKr (LyCORIS)", ("*.lokr_w1_a",), NO_PLAIN_LORA),
    Sign("an OFT or BOFT (LyCORIS)", ("*.oft_blocks",), NO_PLAIN_LORA),
    Sign("an OFT or BOFT (LyCORIS)", ("*.oft_diag",), NO_PLAIN_LORA),
    Sign("a GLoRA (LyCORIS)", ("*.a1.weight", "*.b1.weight"), NO_PLAIN_LORA),
    Sign("a ControlLLLite", ("lllite_unet_",)),
    Sign("a LoRA", ("lora_unet_",), IN_LORAS),
    Sign("a LoRA", ("lora_te",), IN_LORAS),
    Sign("a LoRA", ("*.lora_down.weight",), IN_LORAS),
    Sign("a LoRA", ("*.lora_A.weight",), IN_LORAS),
    Sign("a LoRA", ("*.lora.down.weight",), IN_LORAS),
    Sign("a Control-LoRA", ("lora_controlnet",)),
    Sign("a ControlNet", ("control_model.",), IN_CONTROLNET),
    Sign("a ControlNet", ("controlnet_cond_embedding.",), IN_CONTROLNET),
    Sign("a ControlNet", ("zero_convs.",), IN_CONTROLNET),
    Sign("a ControlNet of a transformer model", ("controlnet_blocks.",)),
    Sign("a T2I-Adapter", ("adapter.body.",)),
    Sign("a T2I-Adapter", ("body.0.resnets.",)),
    Sign("an IP-Adapter", ("ip_adapter.",)),
    Sign("an AnimateDiff motion module", ("*.temporal_transformer.norm.weight",)),
    Sign("a textual inversion", ("emb_params",), IN_EMBEDDINGS),
    Sign("a textual inversion", ("clip_g", "clip_l"), IN_EMBEDDINGS),
)
DENOISERS = (
    Sign("a Stable Diffusion 3.5 large", ("joint_blocks.37.",)),
    Sign("a Stable Diffusion 3", ("joint_blocks.",)),
    Sign("a Flux.2", ("double_stream_modulation_img.",)),
    Sign("a Chroma", ("distilled_guidance_layer.",)),
    Sign("a HunyuanVideo", ("txt_in.individual_token_refiner.",)),
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
    Sign("a Qwen-Image", ("txt_norm.", "transformer_blocks.")),
    Sign("a Kandinsky prior", ("prd_embedding",)),
    Sign("a Kandinsky UNet", ("down_blocks.", "encoder_hid_proj.")),
    Sign("a UNet alone in diffusers' layout", ("down_blocks.", "time_embedding.", "conv_norm_out."), UNET_ALONE),
    Sign("a UNet alone", ("input_blocks.", "output_blocks.", "time_embed."), UNET_ALONE),
)
ALONE = (
    Sign("a text encoder alone", ("text_model.encoder.layers.",)),
    Sign("a text encoder alone", ("transformer.resblocks.",)),
    Sign("a T5 text encoder alone", ("encoder.block.0.layer.0.SelfAttention.",)),
    Sign("a CLIP image encoder", ("vision_model.",)),
    Sign("a video VAE", ("decoder.middle.0.residual.0.gamma",)),
    Sign("a VAE alone", ("decoder.conv_in.", "decoder.conv_out."), IN_VAE),
    Sign("a VAE alone", ("first_stage_model.decoder.",), IN_VAE),
    Sign("the decoder of a VAE alone", ("decoder.conv_in.",)),
    Sign("the encoder of a VAE alone", ("encoder.conv_in.", "encoder.conv_out.")),
    Sign("a small preview VAE (TAESD)", ("decoder.layers.",)),
    Sign("a picture upscaler (ESRGAN and the like)", ("model.0.weight", "model.1.sub.")),
    Sign("a picture upscaler (ESRGAN and the like)", ("body.0.rdb1.",)),
)


def shows(sign: Sign, keys: Iterable[str]) -> bool:
    """Whether ``keys`` are those of such a file."""
    return all(
        any(key.endswith(wanted[1:]) if wanted.startswith("*") else key.startswith(wanted) for key in keys)
        for wanted in sign.keys
    )


def unwrapped(key: str) -> str:
    """The key with nothing of :data:`WRAPPERS` before it."""
    for wrapper in WRAPPERS:
        key = key.removeprefix(wrapper)
    return key
