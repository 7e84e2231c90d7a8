"""The only package that talks to the host: devices, memory, progress, previews, cancel and model folders."""

from .cached_values import mark_as_model
from .caught import handles
from .choices import check_choice, pick_folder, refusal
from .devices import DTYPES, denoising_device, pick_dtype
from .folders import (
    diffusers_folders,
    folders_with,
    model_files,
    pick_file,
    register_folder,
    safetensors_files,
    state_of_file,
    state_of_files,
    vocabularies,
)
from .memory import HostOffload
from .monitor import HostMonitor, notes_kept
from .newer import advanced, found_by
from .outputs import refused_output
from .routes import answer_posts
from .runtime import runtime_for
from .urls import ALLOW_URL, check_urls_allowed

CATEGORY = "Diffusers Relay"

__all__ = [
    "ALLOW_URL",
    "CATEGORY",
    "DTYPES",
    "HostMonitor",
    "HostOffload",
    "advanced",
    "answer_posts",
    "check_choice",
    "check_urls_allowed",
    "denoising_device",
    "diffusers_folders",
    "folders_with",
    "found_by",
    "handles",
    "mark_as_model",
    "model_files",
    "notes_kept",
    "pick_dtype",
    "pick_file",
    "pick_folder",
    "refusal",
    "refused_output",
    "register_folder",
    "runtime_for",
    "safetensors_files",
    "state_of_file",
    "state_of_files",
    "vocabularies",
]
