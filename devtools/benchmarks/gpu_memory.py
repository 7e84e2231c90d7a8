"""GPU memory of a chain of models under the host's memory manager: the chain's peak against that of its largest stage.

    python devtools/benchmarks/gpu_memory.py              SD1.5 -> SDXL refiner -> Kandinsky 2.2, float16, under each of the host's flags
    python devtools/benchmarks/gpu_memory.py --card 8              fills the card except for 8 GB
    python devtools/benchmarks/gpu_memory.py --dry-run             the same calls with narrow models on the CPU: checks only that they run

The architectures are the real ones, with random weights. Each stage is a forward pass of its modules through the pack's
HostOffload, with the memory that the pack requests. Every flag runs in a separate process, because the host reads it at startup.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "devtools"))

from benchmarks.working_memory import MOVQ, SD_VAE, UNETS  # noqa: E402
from relay_host.comfyui import get_host  # noqa: E402
from relay_host.environment import enter_environment  # noqa: E402
from relay_host.pack import load_pack, take_off_path  # noqa: E402

FLAGS = ("", "--highvram", "--gpu-only", "--lowvram", "--novram", "--disable-smart-memory")
GIGABYTE = 1024**3
SIDES = {"SD1.5": 512, "SDXL refiner": 1024, "Kandinsky 2.2": 768}


@dataclass(frozen=True)
class StageRun:
    title: str
    stage: str
    module: Any
    working_bytes: int
    call: Callable[[torch.device], Any]


def stages(dtype: torch.dtype, dry: bool) -> Iterator[StageRun]:
    """Denoise and decode for each model; the second and third also encode."""
    import diffusers

    from diffusers_relay.pipelines.device import working_memory as formulas

    for title, side in SIDES.items():
        side = 64 if dry else side
        unet = diffusers.UNet2DConditionModel(**(narrow(UNETS[title]) if dry else UNETS[title]))
        kandinsky = title.startswith("Kandinsky")
        vae_config = MOVQ if kandinsky else SD_VAE
        vae = (diffusers.VQModel if kandinsky else diffusers.AutoencoderKL)(**vae_config)
        unet, vae = (module.to(dtype).eval().requires_grad_(False) for module in (unet, vae))
        work = formulas.unet_bytes(unet, rows=2, latent_pixels=(side // 8) ** 2)
        latent = torch.randn(1, 4, side // 8, side // 8, dtype=dtype)
        pixels = torch.randn(1, 3, side, side, dtype=dtype)
        if title != "SD1.5":
            yield StageRun(
                f"{title} encode",
                "vae",
                vae,
                formulas.encode_bytes(vae, side**2, dtype),
                lambda device: vae.encode(pixels.to(device)),  # noqa: B023
            )
        yield StageRun(f"{title} denoise", "denoise", unet, work, lambda device: forward(unet, side, device))  # noqa: B023
        extra = {"force_not_quantize": True} if kandinsky else {}
        yield StageRun(
            f"{title} decode",
            "vae",
            vae,
            formulas.decode_bytes(vae, side**2, dtype),
            lambda device: vae.decode(latent.to(device), **extra),  # noqa: B023
        )


def narrow(config: dict[str, Any]) -> dict[str, Any]:
    levels = len(config["down_block_types"]) if "down_block_types" in config else 4
    changes = {"block_out_channels": (64,) * levels, "attention_head_dim": 32, "addition_embed_type_num_heads": 2}
    return {**config, **changes, "transformer_layers_per_block": 1}


def forward(unet: Any, side: int, device: torch.device) -> None:
    config, options = unet.config, {"device": device, "dtype": unet.dtype}
    sample = torch.randn(2, config.in_channels, side // 8, side // 8, **options)
    text: torch.Tensor | None = torch.randn(2, 77, config.cross_attention_dim, **options)
    added = None
    if config.addition_embed_type == "image":
        text, added = None, {"image_embeds": torch.randn(2, config.encoder_hid_dim, **options)}
    elif config.addition_embed_type == "text_time":
        ids = (config.projection_class_embeddings_input_dim - 1280) // config.addition_time_embed_dim
        added = {"text_embeds": torch.randn(2, 1280, **options), "time_ids": torch.randn(2, ids, **options)}
    unet(sample, 1, text, added_cond_kwargs=added)


def child(flag: str, card: float | None, dry: bool) -> dict[str, Any]:
    """Runs all stages twice, in order, in this process."""
    take_off_path(ROOT)
    enter_environment(get_host())
    sys.path.insert(0, str(get_host()))
    from comfy.cli_args import args

    args.base_directory = tempfile.mkdtemp()
    args.cpu = dry
    if flag and not dry:
        setattr(args, flag.removeprefix("--").replace("-", "_"), True)
    load_pack()
    import comfy.model_management as memory

    from diffusers_relay.nodes.comfy_host import HostOffload
    from diffusers_relay.pipelines.device.offload import Stage

    device, dtype = memory.get_torch_device(), torch.float32 if dry else torch.float16
    runs = list(stages(dtype, dry))
    ballast = fill(device, card) if card and not dry else None
    base = allocated(device)
    rows = []
    policy = HostOffload()
    for turn in (1, 2):
        for run in runs:
            reset_peak(device)
            with torch.inference_mode(), policy.on_device(Stage(run.stage), [run.module], run.working_bytes) as where:
                weights = allocated(device) - base
                run.call(where)
            names = [entry.model.model.__class__.__name__ for entry in memory.current_loaded_models]
            rows.append(
                {
                    "turn": turn,
                    "stage": run.title,
                    "own": memory.module_size(run.module) + run.working_bytes,
                    "asked": run.working_bytes,
                    "worked": peak(device) - base - weights,
                    "peak": peak(device) - base,
                    "loaded": names,
                }
            )
    if flag == "--disable-smart-memory" or not dry:
        memory.unload_all_models()
    del ballast
    return {"flag": flag, "rows": rows, "left": allocated(device) - base, "state": memory.vram_state.name}


def fill(device: torch.device, card: float) -> torch.Tensor:
    free = torch.cuda.mem_get_info(device)[0]
    return torch.empty(max(0, free - int(card * GIGABYTE)), dtype=torch.uint8, device=device)


def allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def report(result: dict[str, Any]) -> None:
    rows = result["rows"]
    print(f"\n{result['flag'] or 'no flag'} ({result['state']})")
    print(f"{'':<26}{'turn':>5}{'peak MB':>9}{'worked':>8}{'asked':>8}  in the host's list")
    for row in rows:
        figures = "".join(
            f"{row[name] / 2**20:>{width}.0f}" for name, width in (("peak", 9), ("worked", 8), ("asked", 8))
        )
        print(f"{row['stage']:<26}{row['turn']:>5}{figures}  {', '.join(row['loaded'])}")
    top, largest = max(row["peak"] for row in rows), max(row["own"] for row in rows)
    print(f"peak of the chain / the largest stage (weights and requested memory): {top / largest:.2f}")
    print(f"still on the card after unloading everything: {result['left'] / 2**20:.0f} MB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--card", type=float, help="GB to leave free on the card; the rest is filled")
    parser.add_argument(
        "--flags", nargs="*", default=FLAGS, help="the host's flags to test (default: no flag, then each flag)"
    )
    parser.add_argument("--dry-run", action="store_true", help="narrow models on the CPU")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        logging.disable(logging.INFO)
        print(json.dumps(child(arguments.child, arguments.card, arguments.dry_run)))
        return 0
    if not arguments.dry_run and not torch.cuda.is_available():
        print("PyTorch finds no CUDA device. Run this on a machine with a GPU, or use --dry-run.")
        return 2
    for flag in arguments.flags:
        command = [sys.executable, __file__, f"--child={flag}"]
        command += ["--dry-run"] * arguments.dry_run + ([f"--card={arguments.card}"] if arguments.card else [])
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            print(f"{flag}: failed")
            return 1
        report(json.loads(done.stdout.splitlines()[-1]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
