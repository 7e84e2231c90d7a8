"""Which model a checkpoint file holds, from the keys and shapes of its header and never from its name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from ..base.errors import RelayError
from ..files.safetensors import Header

UNET = "model.diffusion_model."
VAE = "first_stage_model."
WRAPPERS = (UNET, "diffusion_model.", "net.", "transformer.", "model.")
"""What stands before the keys of a denoiser in files of one or another program."""


class CheckpointKind(str, Enum):
    """A kind that the pack loads; the value is the name of its folder of configs."""

    SD15 = "sd15"
    SD2 = "sd2"
    SDXL = "sdxl"
    SDXL_REFINER = "sdxl_refiner"


@dataclass(frozen=True)
class Sign:
    """Keys that only one kind of file has: every one of ``keys`` begins a key of the file, or ends one where it begins with ``*``."""

    what: str
    keys: tuple[str, ...]
    advice: str = ""


IN_LORAS = "Put it into models/loras, and use it with a node that loads LoRAs."
IN_CONTROLNET = "Put it into models/controlnet, and load it with Load Diffusers ControlNet."
ADAPTERS = (
    Sign("a LoRA", ("lora_unet_",), IN_LORAS),
    Sign("a LoRA", ("lora_te",), IN_LORAS),
    Sign("a LoRA", ("*.lora_down.weight",), IN_LORAS),
    Sign("a LoRA", ("*.lora_A.weight",), IN_LORAS),
    Sign("a LoRA", ("*.lora.down.weight",), IN_LORAS),
    Sign("a LoRA (LoHa or LoKr)", ("*.hada_w1_a",), IN_LORAS),
    Sign("a LoRA (LoHa or LoKr)", ("*.lokr_w1",), IN_LORAS),
    Sign("a Control-LoRA", ("lora_controlnet",)),
    Sign("a ControlNet", ("control_model.",), IN_CONTROLNET),
    Sign("a ControlNet", ("controlnet_cond_embedding.",), IN_CONTROLNET),
    Sign("a ControlNet", ("zero_convs.",), IN_CONTROLNET),
    Sign("a ControlNet of a transformer model", ("controlnet_blocks.",)),
    Sign("a T2I-Adapter", ("adapter.body.",)),
    Sign("a T2I-Adapter", ("body.0.resnets.",)),
    Sign("an IP-Adapter", ("ip_adapter.",)),
    Sign("an AnimateDiff motion module", ("*.temporal_transformer.norm.weight",)),
    Sign("a textual inversion", ("emb_params",), "Put it into models/embeddings."),
    Sign("a textual inversion", ("clip_g", "clip_l"), "Put it into models/embeddings."),
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
    Sign("a UNet alone, in diffusers' layout,", ("down_blocks.", "time_embedding.", "conv_norm_out.")),
)
ALONE = (
    Sign("a text encoder alone", ("text_model.encoder.layers.",)),
    Sign("a text encoder alone", ("transformer.resblocks.",)),
    Sign("a T5 text encoder alone", ("encoder.block.0.layer.0.SelfAttention.",)),
    Sign("a CLIP image encoder", ("vision_model.",)),
    Sign("a video VAE", ("decoder.middle.0.residual.0.gamma",)),
    Sign("a VAE alone", ("decoder.conv_in.", "decoder.conv_out."), "Put it into models/vae."),
    Sign("a VAE alone", ("first_stage_model.decoder.",), "Put it into models/vae."),
    Sign("a small preview VAE (TAESD)", ("decoder.layers.",)),
    Sign("a picture upscaler (ESRGAN and the like)", ("model.0.weight", "model.1.sub.")),
    Sign("a picture upscaler (ESRGAN and the like)", ("body.0.rdb1.",)),
)
UNET_CHANNELS = {5: "a Stable Diffusion 2 depth model", 7: "the Stable Diffusion x4 upscaler", 8: "an InstructPix2Pix"}
"""Input channels of UNets in the original layout -> what they are. 4: a plain model, 9: an inpainting one."""
RUNS = "Diffusers Relay loads files of Stable Diffusion 1.x and 2.x, SDXL base and SDXL refiner, and their inpainting variants."


def kind_of(header: Header, where: str) -> CheckpointKind:
    """The kind of a whole model in the original layout: UNet, VAE and text encoders in one file.

    Raises:
        RelayError: it is something else; the message names what, as far as its keys tell.
    """
    what, advice = _something_else(header)
    if what:
        raise RelayError(f"{where} is {what}, not a checkpoint that can be loaded here. {advice or RUNS}")
    if not header.has(UNET + "input_blocks."):
        some = ", ".join(sorted(header.shapes)[:3]) or "nothing"
        raise RelayError(f"{where} is a file of a kind that Diffusers Relay does not know (it holds {some}). {RUNS}")
    kind = _by_text_encoder(header)
    missing = [
        name for name, there in (("text encoder", kind is not None), ("VAE", header.has(VAE + "decoder."))) if not there
    ]
    if kind is None or missing:
        raise RelayError(
            f"{where} holds a UNet, but no {' and no '.join(missing)}. Take the whole checkpoint, with UNet, VAE and text encoder in one file."
        )
    return kind


def _by_text_encoder(header: Header) -> CheckpointKind | None:
    if header.has("conditioner.embedders.1.model."):
        return CheckpointKind.SDXL
    if header.has("conditioner.embedders.0.model."):  # Stable Diffusion 2 has been written so too
        return CheckpointKind.SDXL_REFINER if header.has(UNET + "label_emb.") else CheckpointKind.SD2
    if header.has("cond_stage_model.model."):
        return CheckpointKind.SD2
    if header.has("cond_stage_model.transformer."):
        return CheckpointKind.SD15
    return None


def _something_else(header: Header) -> tuple[str, str]:
    """(what the file is, what to do with it), empty where nothing speaks against a checkpoint that the pack loads."""
    for sign in ADAPTERS:
        if _shows(sign, header.shapes):
            return sign.what, sign.advice
    if not header.has(UNET + "input_blocks."):
        bare = {_unwrapped(key) for key in header.shapes}
        found = next((sign for sign in (*DENOISERS, *ALONE) if _shows(sign, bare | set(header.shapes))), None)
        return (found.what, found.advice) if found else ("", "")
    if any(".time_stack." in key for key in header.shapes):
        return "a Stable Video Diffusion", ""
    if "edm_mean" in header.shapes:
        return "a Playground v2.5", ""
    if "edm_vpred.sigma_max" in header.shapes:
        return "an SDXL with EDM v-prediction (CosXL)", ""
    if header.has("embedder.model.visual."):
        return "a Stable Diffusion 2.1 unCLIP", ""
    if header.has("cc_projection."):
        return "a Zero123", ""
    if any(key.endswith((".scale_weight", ".weight_scale")) for key in header.shapes) or "scaled_fp8" in header.shapes:
        return "a checkpoint with scaled 8-bit weights", "Take the float16 file of the same model."
    channels = header.shapes.get(UNET + "input_blocks.0.0.weight", (0, 4))[1]
    if channels not in (4, 9):
        return UNET_CHANNELS.get(channels, f"a UNet with {channels} input channels"), ""
    return "", ""


def _shows(sign: Sign, keys: Iterable[str]) -> bool:
    return all(
        any(key.endswith(wanted[1:]) if wanted.startswith("*") else key.startswith(wanted) for key in keys)
        for wanted in sign.keys
    )


def _unwrapped(key: str) -> str:
    for wrapper in WRAPPERS:
        key = key.removeprefix(wrapper)
    return key
