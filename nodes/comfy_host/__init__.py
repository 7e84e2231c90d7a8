"""The only package that talks to the host: devices, memory, progress, previews, cancel and model folders."""

from .caught import handles
from .choices import check_choice, pick_folder, refusal
from .devices import DTYPES, denoising_device, pick_dtype
from .folders import (
    diffusers_folders,
    folders_with,
    model_files,
    pick_file,
    safetensors_files,
    state_of_file,
    state_of_files,
    tokenizer_folder,
)
from .memory import HostOffload
from .monitor import HostMonitor, notes_kept
from .outputs import refused_output
from .runtime import runtime_for
from .urls import ALLOW_URL, check_urls_allowed

CATEGORY = "Diffusers Relay"

__all__ = [
    "ALLOW_URL",
    "CATEGORY",
    "DTYPES",
    "HostMonitor",
    "HostOffload",
    "check_choice",
    "check_urls_allowed",
    "denoising_device",
    "diffusers_folders",
    "folders_with",
    "handles",
    "model_files",
    "notes_kept",
    "pick_dtype",
    "pick_file",
    "pick_folder",
    "refusal",
    "refused_output",
    "runtime_for",
    "safetensors_files",
    "state_of_file",
    "state_of_files",
    "tokenizer_folder",
]
